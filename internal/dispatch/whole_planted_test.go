package dispatch

import (
	"context"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
)

// plantedStore is the queue with a bug between it and dispatch.
type plantedStore struct {
	*queue.Store
	bug string
	n   atomic.Int64
}

func (w *whole) planted(s *queue.Store) Store {
	if w.plant == "" {
		return s
	}
	return &plantedStore{Store: s, bug: w.plant}
}

func (p *plantedStore) Complete(c queue.Completion) { p.CompleteAll([]queue.Completion{c}) }

func (p *plantedStore) CompleteAll(cs []queue.Completion) {
	for i := range cs {
		switch {
		case p.bug == "drops a completion" && p.n.Add(1)%10 == 0:
			continue
		case p.bug == "records twice":
			p.Store.Complete(cs[i])
		case p.bug == "takes every failure for final" && cs[i].Attempt.State == delivery.Pending:
			a := *cs[i].Attempt
			a.State, a.Outcome = delivery.Failed, delivery.Rejected
			cs[i].Attempt = &a
		}
		p.Store.Complete(cs[i])
	}
}

func (p *plantedStore) ReadReady(lane queue.Lane, after uint64, limit, maxBytes int) ([]queue.Delivery, bool, error) {
	ds, more, err := p.Store.ReadReady(lane, after, limit, maxBytes)
	switch {
	case p.bug == "skips one in a refill" && len(ds) > 1:
		ds = append(ds[:1:1], ds[2:]...)
	case p.bug == "changes a payload" && len(ds) > 0:
		b := []byte(string(ds[0].Payload))
		b[len(b)-1]++
		ds[0].Payload = b
	}
	return ds, more, err
}

func (p *plantedStore) ReadWaiting(lane queue.Lane, afterDue int64, afterSeq uint64, now int64, limit, maxBytes int) ([]queue.Delivery, int64, error) {
	if p.bug == "retries too early" {
		now += 5000
	}
	return p.Store.ReadWaiting(lane, afterDue, afterSeq, now, limit, maxBytes)
}

func (p *plantedStore) Blocked(lane queue.Lane, entry string, seq uint64) (bool, error) {
	if p.bug == "lets an entry be overtaken" {
		return false, nil
	}
	return p.Store.Blocked(lane, entry, seq)
}

func (p *plantedStore) DropPending(ctx context.Context, q *queue.PendingDrop, limit int) (int, bool, error) {
	if p.bug == "drops more than it was told" {
		for lane := queue.Lane(1); lane <= 3; lane++ {
			other := queue.PendingDrop{Lane: lane, Code: q.Code}
			_, _, _ = p.Store.DropPending(ctx, &other, limit)
		}
	}
	return p.Store.DropPending(ctx, q, limit)
}

// A model that finds nothing shows nothing: it must find each of these.
func TestTheBookFindsEachPlantedBug(t *testing.T) {
	const most = 60 // histories; each is the same in every run
	for _, bug := range []string{"drops a completion", "records twice", "takes every failure for final", "skips one in a refill", "changes a payload",
		"retries too early", "lets an entry be overtaken", "drops more than it was told", "other ids", "acknowledges without storing",
		"goes on with an older store"} {
		t.Run(bug, func(t *testing.T) {
			for n := range most {
				if _, err := play(t, uint64(n), bug, stories.Example(n)); err != nil {
					t.Logf("after %d histories: %v", n+1, err)
					return
				}
			}
			t.Errorf("%d histories found nothing", most)
		})
	}
}

// remember keeps a copy of the store for the crash to go on with.
func (w *whole) remember() {
	if w.plant != "goes on with an older store" || w.old != "" {
		return
	}
	w.still()
	w.old = filepath.Join(w.root, "old")
	if err := copyStore(w.old, w.life.dir); err != nil {
		w.fail("%v", fmt.Errorf("remember: %w", err))
	}
}
