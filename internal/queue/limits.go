package queue

import (
	"context"
	"time"
)

// Limits are what may change while a store is open. Zero fields take the
// defaults of [Options] and [Retention].
type Limits struct {
	MaxBytes          int64
	MaxBytesPerHelper int64
	MinFree           int64
	Retention         Retention
}

func (l Limits) withDefaults() Limits {
	if l.MaxBytes == 0 {
		l.MaxBytes = 10 << 30
	}
	const day = 24 * time.Hour
	r := &l.Retention
	for _, f := range [...]struct {
		v *time.Duration
		d time.Duration
	}{{&r.Delivered, 30 * day}, {&r.Failed, 90 * day}, {&r.Payloads, 7 * day}} {
		if *f.v == 0 {
			*f.v = f.d
		}
	}
	if r.MaxBytes == 0 {
		r.MaxBytes = 5 << 30
	}
	return l
}

// Configure replaces the limits. They hold for whatever is decided after it
// returns; what was accepted stays, however much it is. History that is too
// old under a new retention goes at once, in the steps of any other pass; a
// pass under way is planned anew, so that a longer retention keeps whatever is
// still there. The same limits again change nothing.
func (s *Store) Configure(ctx context.Context, l Limits) error {
	return s.quietly(ctx, func(*group) error {
		s.configure(l.withDefaults())
		return errUnchanged
	})
}

// configure runs in the committer. Store.mu is held.
func (s *Store) configure(l Limits) {
	old := s.limits
	s.limits = l
	if l.MinFree != old.MinFree {
		s.guard.set(l.MinFree)
	}
	if l.Retention != old.Retention {
		// A pass that is given up loses nothing: it drops only at its end, and what
		// it copied forward is referred to already.
		s.c.retiring = nil
		s.c.day.Reset(0)
	}
}
