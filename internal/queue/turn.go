package queue

import "context"

// Turn returns once the committer has come round after the call, with nil when the
// store can record what happens: a group that is durable since the last Turn shows
// that, else an empty one is made durable for it. Too little space is a state of its
// own, which [Store.Stats] tells, and no error here. A store that has stopped or is
// closed answers [ErrStopped]. When ctx ends first Turn returns its error.
//
// It is for a watchdog, not for every second: in an idle store each call is a sync.
func (s *Store) Turn(ctx context.Context) error {
	if err := s.usable(); err != nil {
		return err
	}
	answer := make(chan error, 1)
	select {
	case s.turns <- answer:
	case <-s.done:
		return firstError(s.stopped(), ErrStopped)
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// turn is the committer's part of Turn.
func (s *Store) turn(answer chan<- error) {
	if s.led.groups == s.c.turned && s.guard.check() == nil {
		s.flushCompletions()
		if s.failure.Load() == nil {
			s.commit(s.begin())
		}
	}
	s.c.turned = s.led.groups
	answer <- s.stopped()
}
