package queue

import (
	"context"
	"slices"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/failpoint"
)

const (
	// expiryPause is how long the expiry waits at first when something keeps it
	// from going on: an attempt under way, or a full disk.
	expiryPause = time.Second
	// maxExpiryPause is the longest that it becomes.
	maxExpiryPause = time.Minute
	// maxExpirySleep bounds one sleep, whatever times were computed.
	maxExpirySleep = 24 * time.Hour
)

// expiry ends the deliveries of webhooks that did not come back. Its goroutine
// sleeps until the next webhook's time; every decision is made in the
// committer, where a webhook that is back cannot be taken for one that is not.
type expiry struct {
	wake  chan struct{} // one slot: something may have become due earlier
	ended chan struct{}
	armed bool // SetLanes was called; Store.mu guards it
}

func (e *expiry) init() {
	e.wake = make(chan struct{}, 1)
	e.ended = make(chan struct{})
}

// poke makes the goroutine compute anew; it never blocks.
func (e *expiry) poke() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// expireLoop is the goroutine. It ends with the store.
func (s *Store) expireLoop() {
	defer close(s.expiry.ended)
	timer := stoppedTimer()
	defer timer.Stop()
	pause := expiryPause
	for {
		due, sleep := s.dueLanes()
		progress := false
		for _, lane := range due {
			progress = s.expireLane(lane) || progress
		}
		switch {
		case progress:
			pause = expiryPause
			continue // until nothing is left that can be ended now
		case len(due) == 0:
			pause = expiryPause
		default:
			sleep = min(sleep, pause)
			pause = min(2*pause, maxExpiryPause)
		}
		timer.Reset(sleep)
		select {
		case <-timer.C:
		case <-s.expiry.wake:
		case <-s.closing:
			return
		case <-s.dead:
			return
		}
	}
}

// dueLanes lists the lanes whose time is over, and says how long to sleep until
// the next one's is.
func (s *Store) dueLanes() (due []Lane, sleep time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sleep = maxExpirySleep
	if !s.expiry.armed {
		return nil, sleep
	}
	now := s.sureNow(s.Now())
	for lane, l := range s.lanes {
		switch left := s.expiresAt(l) - now; {
		case !l.life.removed || (!s.awaited(lane, l) && len(l.states) == 0):
		case left <= 0:
			due = append(due, lane)
		default:
			sleep = min(sleep, time.Duration(left)*time.Millisecond)
		}
	}
	slices.Sort(due)
	return due, sleep
}

// expiresAt is when a removed lane's time is over, in sure time.
func (s *Store) expiresAt(l *laneState) int64 { return l.life.at + s.opts.RemovedKeep.Milliseconds() }

// expireLane ends what is pending on a lane whose time is over, in steps that let
// other transactions through, and reports whether anything was. What is being
// attempted stays, and so does everything while the disk is full or once the
// store has stopped, both of which the store reports itself. A crash between
// two steps: the next start finds the lane due and goes on.
func (s *Store) expireLane(lane Lane) (progress bool) {
	q := &PendingDrop{Lane: lane, Code: delivery.CodeRemoved}
	if s.opts.Busy != nil {
		q.Skip = func(seq uint64) bool { return s.opts.Busy(lane, seq) }
	}
	// A webhook that came back between two steps keeps what is left.
	still := func(g *group, l *laneState) bool {
		if !l.life.removed || s.expiresAt(l) > s.sureNow(g.now) {
			return false
		}
		g.endReplays(lane)
		if len(l.states) > 0 {
			s.c.sweep.begin()
		}
		return true
	}
	var total int
	var err error
	for more := true; more && err == nil; {
		var n int
		n, more, err = s.dropStep(context.Background(), q, maxDropStep, still)
		failpoint.Here("expire.step")
		total += n
	}
	if total > 0 {
		s.log.Warn("deliveries of a webhook that did not come back ended as failed", "webhook", s.LaneName(lane), "count", total)
	}
	return total > 0
}

// endReplays forgets the replays under way of a lane: what they would still
// bring back has had its time. Store.mu is held.
func (g *group) endReplays(lane Lane) {
	for id, j := range g.s.jobs {
		if j.Lane == lane && !j.Done {
			delete(g.s.jobs, id)
			g.del(replayKey(id))
			g.s.log.Warn("replay of a webhook that did not come back was ended", "replay", id, "webhook", g.s.lanes[lane].name)
		}
	}
}
