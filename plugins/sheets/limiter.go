package main

import (
	"slices"
	"sync"
	"time"
)

// Google's quotas of one user of a project, and so of a service account: 60 reads and
// 60 writes a minute (https://developers.google.com/workspace/sheets/api/limits).
const (
	perMinute = 60
	window    = time.Minute
)

// limiter allows so many calls within any minute, whichever minutes Google counts in.
// It is safe for concurrent use.
type limiter struct {
	mu    sync.Mutex
	taken []time.Time // of the last minute, oldest first; at most perMinute
	until time.Time   // Google said that the quota is used up
}

// take takes a place, or says how long there is none.
func (l *limiter) take() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if wait := l.wait(now); wait > 0 {
		return wait
	}
	l.taken = append(l.taken, now)
	return 0
}

// full says how long there is no place, and takes none.
func (l *limiter) full() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.wait(time.Now())
}

// pause leaves no place for so long.
func (l *limiter) pause(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if until := time.Now().Add(d); until.After(l.until) {
		l.until = until
	}
}

// idle reports whether the limiter has nothing to remember.
func (l *limiter) idle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.wait(now)
	return len(l.taken) == 0 && !l.until.After(now)
}

func (l *limiter) wait(now time.Time) time.Duration {
	l.taken = slices.DeleteFunc(l.taken, func(t time.Time) bool { return now.Sub(t) >= window })
	wait := l.until.Sub(now)
	if len(l.taken) >= perMinute {
		wait = max(wait, l.taken[0].Add(window).Sub(now))
	}
	return max(wait, 0)
}
