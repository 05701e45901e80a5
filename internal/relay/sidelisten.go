package relay

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// sideListener serves a TCP address beside the sockets from the start until the end. One
// that cannot be listened on, because somebody has it or the network is not up yet, costs
// the daemon only that: it says so and tries again. To deliver is worth more than to
// be watched, and who watches notices.
type sideListener struct {
	r        *relay
	key      string // of the configuration
	what     string // that is served, for the log
	local    bool   // the loopback only, whatever a name resolves to
	serve    func(net.Listener) error
	shutdown func(context.Context) error

	again time.Duration // between two tries
	err   atomic.Pointer[error]
	at    atomic.Pointer[net.Addr] // where it listens
	quit  chan struct{}
	done  sync.WaitGroup
}

// sideAgain is how long an address that could not be listened on is left alone.
const sideAgain = 5 * time.Second

func (r *relay) newSideListener(key, what string) *sideListener {
	return &sideListener{r: r, key: key, what: what, again: cmp.Or(r.sideAgain, sideAgain), quit: make(chan struct{})}
}

// start tries to listen on address, if there is one, before it returns.
func (m *sideListener) start(address string, serve func(net.Listener) error, shutdown func(context.Context) error) {
	if address == "" {
		return
	}
	m.serve, m.shutdown = serve, shutdown
	l, err := m.listen(address)
	m.done.Go(func() {
		for {
			if l != nil {
				if err = m.serve(l); err == nil {
					return
				}
				m.note(nil, err)
			}
			select {
			case <-m.quit:
				return
			case <-time.After(m.again):
			}
			l, err = m.listen(address)
		}
	})
}

func (m *sideListener) listen(address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err == nil && m.local && !l.Addr().(*net.TCPAddr).IP.IsLoopback() {
		err = errors.Join(fmt.Errorf("%s is %s, which other machines can reach; write 127.0.0.1", address, l.Addr()), l.Close())
		l = nil
	}
	m.note(l, err)
	return l, err
}

// note says when it begins or ceases to work, once.
func (m *sideListener) note(l net.Listener, err error) {
	if err == nil {
		m.err.Store(nil)
		m.at.Store(new(l.Addr()))
		m.r.log.Info("listening", "what", m.what, "address", l.Addr().String())
		return
	}
	if m.err.Swap(&err) == nil {
		m.r.log.Error("address cannot be listened on; it is tried again", "what", m.what, "key", m.key, "err", err)
	}
}

// problem is why it does not serve; nil when it does, or is not to.
func (m *sideListener) problem() error {
	if err := m.err.Load(); err != nil {
		return *err
	}
	return nil
}

// stop ends it. Nothing is told of one that was not started.
func (m *sideListener) stop(ctx context.Context) (err error) {
	close(m.quit)
	if m.shutdown != nil {
		err = m.shutdown(ctx)
	}
	m.done.Wait()
	return err
}
