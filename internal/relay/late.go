package relay

import (
	"context"
	"errors"
	"io"
	"iter"
	"sync/atomic"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/api"
	"github.com/peanutsapp/peanuts-relay/internal/backup"
	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/dispatch"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
)

// lateStore is the store before and after it is open: the servers run earlier,
// to say why it is not.
type lateStore struct{ p atomic.Pointer[queue.Store] }

func (l *lateStore) set(s *queue.Store) { l.p.Store(s) }
func (l *lateStore) get() *queue.Store  { return l.p.Load() }

// Accept implements ingest.Store.
func (l *lateStore) Accept(ctx context.Context, evs []*queue.Event) error {
	if s := l.get(); s != nil {
		return s.Accept(ctx, evs)
	}
	return queue.ErrStopped
}

// The rest implements api.Store.

func (l *lateStore) StoreID() uint64 {
	if s := l.get(); s != nil {
		return s.StoreID()
	}
	return 0
}

func (l *lateStore) LaneName(lane queue.Lane) string {
	if s := l.get(); s != nil {
		return s.LaneName(lane)
	}
	return ""
}

func (l *lateStore) Lanes() iter.Seq2[queue.Lane, queue.LaneStats] {
	if s := l.get(); s != nil {
		return s.Lanes()
	}
	return func(func(queue.Lane, queue.LaneStats) bool) {}
}

func (l *lateStore) Stats() queue.Stats {
	if s := l.get(); s != nil {
		return s.Stats()
	}
	return queue.Stats{State: queue.StateStarting}
}

func (l *lateStore) OldestAccepted(lane queue.Lane) (time.Time, error) {
	if s := l.get(); s != nil {
		return s.OldestAccepted(lane)
	}
	return time.Time{}, queue.ErrStopped
}

func (l *lateStore) Summary(lane queue.Lane, seq uint64) (queue.Summary, error) {
	if s := l.get(); s != nil {
		return s.Summary(lane, seq)
	}
	return queue.Summary{}, queue.ErrStopped
}

func (l *lateStore) Summaries(of []queue.Change) ([]queue.Summary, error) {
	if s := l.get(); s != nil {
		return s.Summaries(of)
	}
	return nil, queue.ErrStopped
}

func (l *lateStore) Attempts(lane queue.Lane, seq uint64) ([]delivery.Attempt, error) {
	if s := l.get(); s != nil {
		return s.Attempts(lane, seq)
	}
	return nil, queue.ErrStopped
}

func (l *lateStore) Event(seq uint64) (queue.EventRecord, error) {
	if s := l.get(); s != nil {
		return s.Event(seq)
	}
	return queue.EventRecord{}, queue.ErrStopped
}

func (l *lateStore) FindEvent(id string) ([]queue.EventRecord, error) {
	if s := l.get(); s != nil {
		return s.FindEvent(id)
	}
	return nil, queue.ErrStopped
}

func (l *lateStore) List(q queue.ListQuery) ([]queue.Summary, string, error) {
	if s := l.get(); s != nil {
		return s.List(q)
	}
	return nil, "", queue.ErrStopped
}

func (l *lateStore) CountReplay(ctx context.Context, j queue.ReplayJob) (queue.ReplayJob, error) {
	if s := l.get(); s != nil {
		return s.CountReplay(ctx, j)
	}
	return j, queue.ErrStopped
}

func (l *lateStore) Audit(ctx context.Context, progress func(queue.AuditProgress)) (queue.Audit, error) {
	if s := l.get(); s != nil {
		return s.Audit(ctx, progress)
	}
	return queue.Audit{}, queue.ErrStopped
}

func (l *lateStore) Backup(ctx context.Context, w io.Writer, version string) (backup.Footer, error) {
	if s := l.get(); s != nil {
		return s.Backup(ctx, w, version)
	}
	return backup.Footer{}, queue.ErrStopped
}

func (l *lateStore) Account(ids []string) ([]queue.Account, error) {
	if s := l.get(); s != nil {
		return s.Account(ids)
	}
	return nil, queue.ErrStopped
}

// lateDispatcher is the dispatcher as package api sees it, before and after it
// runs.
type lateDispatcher struct {
	p     atomic.Pointer[dispatch.Dispatcher]
	store *lateStore
}

func (l *lateDispatcher) set(d *dispatch.Dispatcher) { l.p.Store(d) }

// running is nil before the dispatcher exists.
func (l *lateDispatcher) running() *dispatch.Dispatcher { return l.p.Load() }

// expires is when the deliveries of a removed webhook fail.
func (l *lateDispatcher) expires(lane queue.Lane) time.Time {
	if s := l.store.get(); s != nil {
		return s.Expires(lane)
	}
	return time.Time{}
}

// turned is queue.Options.OnTurn.
func (l *lateDispatcher) turned(ts []queue.Turn) {
	if d := l.running(); d != nil {
		d.Turned(ts)
	}
}

// busy is queue.Options.Busy.
func (l *lateDispatcher) busy(lane queue.Lane, seq uint64) bool {
	d := l.running()
	return d != nil && d.Busy(lane, seq)
}

func (l *lateDispatcher) InFlight(lane queue.Lane, seq uint64) bool {
	d := l.running()
	return d != nil && d.InFlight(lane, seq)
}

func (l *lateDispatcher) WaitsFor(lane queue.Lane, seq uint64) uint64 {
	if d := l.running(); d != nil {
		return d.WaitsFor(lane, seq)
	}
	return 0
}

func (l *lateDispatcher) LaneState(lane queue.Lane) api.LaneState {
	d := l.running()
	if d == nil {
		return api.LaneState{}
	}
	s := d.LaneStats(lane)
	out := api.LaneState{InFlight: s.InFlight, Hold: s.Hold, NextDue: s.NextDue, HoldUntil: s.HoldEnds, HoldWhy: s.HoldWhy,
		Attempts: s.Attempts, Took: s.Took}
	if s.Hold == delivery.HoldRemoved {
		out.HoldUntil = l.expires(lane)
	}
	return out
}

func (l *lateDispatcher) Retry(ctx context.Context, lane queue.Lane, seq uint64) error {
	if d := l.running(); d != nil {
		return inFlight(d.Retry(ctx, lane, seq))
	}
	return queue.ErrStopped
}

func (l *lateDispatcher) Drop(ctx context.Context, lane queue.Lane, seq uint64) error {
	if d := l.running(); d != nil {
		return inFlight(d.Drop(ctx, lane, seq))
	}
	return queue.ErrStopped
}

// inFlight gives package api its own error: it does not know package dispatch.
func inFlight(err error) error {
	if errors.Is(err, dispatch.ErrInFlight) {
		return api.ErrInFlight
	}
	return err
}

func (l *lateDispatcher) Test(ctx context.Context, lane queue.Lane, o *delivery.Outbound) (delivery.Attempt, error) {
	if d := l.running(); d != nil {
		return d.Test(ctx, lane, o)
	}
	return delivery.Attempt{}, queue.ErrStopped
}

func (l *lateDispatcher) Replay(ctx context.Context, j queue.ReplayJob) (queue.ReplayJob, error) {
	if d := l.running(); d != nil {
		return d.Replay(ctx, j)
	}
	return queue.ReplayJob{}, queue.ErrStopped
}

func (l *lateDispatcher) CancelReplay(ctx context.Context, id string) error {
	if d := l.running(); d != nil {
		return d.CancelReplay(ctx, id)
	}
	return queue.ErrStopped
}

func (l *lateDispatcher) Replays() []queue.ReplayJob {
	if d := l.running(); d != nil {
		return d.Replays()
	}
	return nil
}
