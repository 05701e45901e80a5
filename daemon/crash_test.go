package main

import (
	"context"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/adminclient"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
	"github.com/peanutsapp/peanuts-relay/internal/testhost"
)

// times is how often a test repeats its scenario: what the environment says,
// else the count for every push.
func times(t *testing.T, env string, short int) int {
	t.Helper()
	if n, err := strconv.Atoi(os.Getenv(env)); err == nil {
		return n
	}
	if testing.Short() {
		return 1
	}
	return short
}

// A daemon is killed again and again while it accepts, delivers, retries,
// replays and puts back. Whatever it had acknowledged ends once, with the bytes
// that were handed in, under one id, however often it was repeated.
func TestNothingAcknowledgedIsLostByKill(t *testing.T) {
	kills := times(t, "DAEMON_CRASH_KILLS", 6)
	chance := testhost.Chance(t)
	r := newReceiver(t)
	s := newSite(t, "", crashWebhooks(r))
	l := newLedger()
	var next atomic.Int64
	var slowest time.Duration
	for range kills {
		began := time.Now()
		p := s.up()
		slowest = max(slowest, time.Since(began))
		s.repeats(l)
		ctx, cancel := context.WithCancel(t.Context())
		stop := s.flood(l, &next, 8)
		var operator sync.WaitGroup
		operator.Go(func() { s.operate(ctx) })
		select {
		case <-time.After(time.Duration(20+chance.IntN(400)) * time.Millisecond):
		case <-p.over:
			t.Fatalf("the daemon ended by itself:\n%s", p.output())
		}
		p.kill()
		cancel()
		operator.Wait()
		// The senders wait for the next daemon with what was not acknowledged.
		p = s.up()
		stop()
		if chance.IntN(2) == 0 {
			p.kill() // in the middle of catching up
		} else {
			p.stop()
		}
	}
	p := s.up()
	s.repeats(l)
	s.settle()
	s.check(l, r, 4)
	p.stop()
	verifyStore(t, s.data)
	t.Logf("%d rounds, slowest start %v", kills, slowest)
	testhost.Cases(t, kills)
}

// operate is an operator who retries what failed and replays what was
// delivered. The daemon may go away at any moment.
func (s *site) operate(ctx context.Context) {
	for ctx.Err() == nil {
		page, err := s.admin.Deliveries(ctx, adminclient.DeliveryQuery{Webhook: "crash.gone", Status: []string{rest.StatusFailed}, Limit: 10})
		if err != nil {
			return
		}
		for _, d := range page.Deliveries {
			if _, err := s.admin.Retry(ctx, d.ID); err != nil && ctx.Err() != nil {
				return
			}
		}
		request := rest.ReplayRequest{Since: "1s", Status: rest.StatusSuccess}
		if _, err := s.admin.Replay(ctx, "crash.ok", request); err != nil {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// repeats sends events again that an earlier daemon acknowledged: they must be
// answered as they were then.
func (s *site) repeats(l *ledger) {
	s.t.Helper()
	l.mu.Lock()
	var some []int
	for n := range l.acked {
		if some = append(some, n); len(some) == 20 {
			break
		}
	}
	l.mu.Unlock()
	for _, n := range some {
		if status := s.send(s.t.Context(), l, n); status != http.StatusOK {
			s.t.Errorf("repeat of event %d was answered %d", n, status)
		}
	}
}

// verifyStore compares every row of a closed store with its ledger.
func verifyStore(t *testing.T, dir string) {
	t.Helper()
	q, err := queue.Open(context.Background(), queue.Options{Dir: dir, MinFree: 1}) // the least there is
	if err != nil {
		t.Fatal(err)
	}
	f, err := q.Verify(context.Background())
	if err != nil {
		t.Error(err)
	}
	for _, problem := range f.Problems {
		t.Error(problem)
	}
	if st := q.Stats(); st.Quarantined != 0 {
		t.Errorf("%d rows were set aside", st.Quarantined)
	}
	if err := q.Close(context.Background()); err != nil {
		t.Error(err)
	}
}
