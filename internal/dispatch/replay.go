package dispatch

import (
	"context"
	"errors"
	"math"
	"slices"

	"github.com/peanutsapp/peanuts-relay/internal/queue"
)

const (
	// replayWindow is how many replayed deliveries of a lane may be due at the
	// same time. The rest of a replay stays finished in the store, so that a
	// replay can be cancelled and never grows the pending queue.
	replayWindow = 64
	// stepPause is how long a lane waits after a replay step that failed, in ms.
	stepPause = 1000
)

// replayJob is a replay under way on a lane. What it has done is durable in the
// store; here is only its pace. The jobs of one lane run one after the other.
type replayJob struct {
	id     string
	rate   float64 // deliveries per second; 0 = as fast as live traffic lets it
	tokens float64
	at     int64 // relay time at which tokens was right
}

// Replay begins to deliver again what is finished and matches the job. It
// returns when the job is durable; a restart resumes it.
func (d *Dispatcher) Replay(ctx context.Context, job queue.ReplayJob) (queue.ReplayJob, error) {
	job, err := d.store.CreateReplay(ctx, job) // may take long: it counts
	if err != nil {
		return job, err
	}
	// An Apply under way may be making the lane, and have looked for jobs already.
	d.applying.Lock()
	defer d.applying.Unlock()
	if l := d.table.Load().lanes[job.Lane]; l != nil {
		l.mu.Lock()
		l.adopt(&job)
		l.kick()
		l.arm()
		l.mu.Unlock()
	}
	return job, nil
}

// CancelReplay ends a replay. What it brought back already is still delivered.
func (d *Dispatcher) CancelReplay(ctx context.Context, id string) error {
	if err := d.store.CancelReplay(ctx, id); err != nil {
		return err
	}
	for _, l := range d.table.Load().lanes {
		l.mu.Lock()
		l.forget(id)
		l.arm()
		l.mu.Unlock()
	}
	return nil
}

// Replays lists the replays that the store knows, with their counts.
func (d *Dispatcher) Replays() []queue.ReplayJob { return d.store.Replays() }

// adoptReplays gives the lanes that next has and old had not the replays that an
// earlier life of the process left unfinished.
func (d *Dispatcher) adoptReplays(old, next *table) {
	if len(next.lanes) == len(old.lanes) {
		return
	}
	for _, job := range d.store.Replays() {
		if l := next.lanes[job.Lane]; l != nil && !job.Done {
			l.mu.Lock()
			l.adopt(&job)
			l.mu.Unlock()
		}
	}
}

func (l *lane) adopt(job *queue.ReplayJob) {
	if slices.ContainsFunc(l.jobs, func(j *replayJob) bool { return j.id == job.ID }) {
		return
	}
	rate := job.Rate
	if !(rate > 0) || math.IsInf(rate, 0) {
		rate = 0
	}
	l.jobs = append(l.jobs, &replayJob{id: job.ID, rate: rate, tokens: 1, at: l.d.store.Now()})
}

func (l *lane) forget(id string) {
	l.jobs = slices.DeleteFunc(l.jobs, func(j *replayJob) bool { return j.id == id })
}

// earn adds the tokens of the time that has passed: at most one second's worth,
// so that a pause is not made up for by a burst.
func (j *replayJob) earn(now int64) {
	if j.rate == 0 {
		j.tokens = replayWindow
		return
	}
	earned := float64(now-j.at) / 1000 * j.rate
	j.tokens = min(j.tokens+earned, max(j.rate, 1), replayWindow)
	j.at = now
}

// allowance is how many deliveries the first job may bring back now: it fills
// the window when half of it is empty.
func (l *lane) allowance(s *slot) int {
	if len(l.jobs) == 0 || l.scanning || l.back.more {
		return 0
	}
	outstanding := l.back.replays.len() + l.order.replaying
	if outstanding > replayWindow/2 || l.replaysAllowed(s) == 0 {
		return 0
	}
	j := l.jobs[0]
	j.earn(l.d.store.Now())
	return min(int(j.tokens), replayWindow-outstanding)
}

func (l *lane) wantsStep(s *slot) bool { return l.allowance(s) > 0 }

// nextStep is when a paced job may go on; 0 when no clock is needed for that.
func (l *lane) nextStep() int64 {
	if len(l.jobs) == 0 || l.jobs[0].rate == 0 {
		return 0
	}
	j := l.jobs[0]
	j.earn(l.d.store.Now())
	if j.tokens >= 1 {
		return 0 // it waits for room, which the end of an attempt makes
	}
	return j.at + int64(math.Ceil((1-j.tokens)/j.rate*1000))
}

// step lets the first job bring back what it may. Like a scan it is called and
// returns with the lock held, gives it up for the store's transaction, and
// excludes scans: those could find the rows before they are owned.
func (l *lane) step() {
	s := l.slot()
	n := l.allowance(s)
	if n <= 0 {
		return
	}
	j, epoch := l.jobs[0], l.epoch
	l.scanning = true
	l.mu.Unlock()
	ds, done, err := l.d.store.StepReplay(context.WithoutCancel(l.d.base), j.id, n)
	l.mu.Lock()
	l.scanOver()
	if j.rate > 0 {
		j.tokens -= float64(len(ds))
	}
	switch {
	case errors.Is(err, queue.ErrStopped):
		l.d.dead.Store(true)
		return
	case errors.Is(err, queue.ErrNotFound):
		l.forget(j.id) // cancelled meanwhile
		return
	case err != nil:
		l.d.log.Error("replay cannot go on", "replay", j.id, "err", err)
		l.halt.backoff = l.d.store.Now() + stepPause
		l.arm()
		return
	}
	if done {
		l.forget(j.id)
		l.d.log.Info("replay has brought back all that matched", "replay", j.id)
	}
	if epoch != l.epoch {
		return // the lane starts from the mark and finds the rows itself
	}
	for i := range ds {
		l.list(&l.back.replays, &ds[i])
	}
}
