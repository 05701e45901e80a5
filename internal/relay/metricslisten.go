package relay

import (
	"cmp"
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/api"
)

// metricsListener serves listen.metrics from the start until the end. An address that
// cannot be listened on, because somebody has it or the network is not up yet, costs the
// daemon only that: it says so and tries again. To deliver is worth more than to
// be watched, and who watches notices.
type metricsListener struct {
	r     *relay
	again time.Duration // between two tries
	err   atomic.Pointer[error]
	at    atomic.Pointer[net.Addr] // where it listens
	quit  chan struct{}
	done  sync.WaitGroup
}

// metricsAgain is how long an address that could not be listened on is left alone.
const metricsAgain = 5 * time.Second

func newMetricsListener(r *relay) *metricsListener {
	return &metricsListener{r: r, again: cmp.Or(r.metricsAgain, metricsAgain), quit: make(chan struct{})}
}

// start tries to listen before it returns, if an address is configured.
func (m *metricsListener) start(server *api.API) {
	address := m.r.boot.Listen.Metrics
	if address == "" {
		return
	}
	l, err := net.Listen("tcp", address)
	m.note(l, err)
	m.done.Go(func() {
		for {
			if l != nil {
				if err = server.ServeMetrics(l); err == nil {
					return
				}
				m.note(nil, err)
			}
			select {
			case <-m.quit:
				return
			case <-time.After(m.again):
			}
			l, err = net.Listen("tcp", address)
			m.note(l, err)
		}
	})
}

// note says when it begins or ceases to work, once.
func (m *metricsListener) note(l net.Listener, err error) {
	if err == nil {
		m.err.Store(nil)
		m.at.Store(new(l.Addr()))
		m.r.log.Info("metrics are served", "address", l.Addr().String())
		return
	}
	if m.err.Swap(&err) == nil {
		m.r.log.Error("metrics cannot be served on the address of their own; it is tried again", "key", "listen.metrics", "err", err)
	}
}

// problem is why metrics are not served; nil when they are, or are not to be.
func (m *metricsListener) problem() error {
	if err := m.err.Load(); err != nil {
		return *err
	}
	return nil
}

// stop ends it. It is one of the last to go, so that the end can be watched.
func (m *metricsListener) stop(ctx context.Context, server *api.API) error {
	close(m.quit)
	err := server.ShutdownMetrics(ctx)
	m.done.Wait()
	return err
}
