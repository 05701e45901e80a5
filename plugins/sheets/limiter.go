package main

import (
	"slices"
	"sync"
	"time"
)

// shortWait is worth waiting for in place: a pause of the whole webhook costs more.
const shortWait = 2 * time.Second

// Google's quotas of one user of a project, and so of a service account: 60 reads and
// 60 writes a minute (https://developers.google.com/workspace/sheets/api/limits), unless
// its project was granted more.
const (
	perMinute = 60
	window    = time.Minute
)

// limiter allows so many calls within any minute, whichever minutes Google counts in.
// It is safe for concurrent use.
type limiter struct {
	mu    sync.Mutex
	taken []time.Time // of the last minute, oldest first
	until time.Time   // Google said that the quota is used up
}

// take takes a place among so many, or says how long there is none.
func (l *limiter) take(limit int) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if wait := l.wait(now, limit); wait > 0 {
		return wait
	}
	l.taken = append(l.taken, now)
	return 0
}

// full says how long there is no place, and takes none.
func (l *limiter) full(limit int) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.wait(time.Now(), limit)
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
	l.wait(now, perMinute)
	return len(l.taken) == 0 && !l.until.After(now)
}

func (l *limiter) wait(now time.Time, limit int) time.Duration {
	l.taken = slices.DeleteFunc(l.taken, func(t time.Time) bool { return now.Sub(t) >= window })
	wait := l.until.Sub(now)
	if n := len(l.taken); n >= limit {
		wait = max(wait, l.taken[n-limit].Add(window).Sub(now))
	}
	return max(wait, 0)
}
