package main

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/peanutsapp/peanuts-relay/sinks"
)

// pacer spreads the calls of all webhooks of this process that lead to the same place.
// The relay paces each webhook by itself, but does not know which of them share a
// channel.
type pacer struct {
	every time.Duration // between two messages of a channel

	mu     sync.Mutex
	free   map[string]time.Time // by key: from when on the next call may be made
	paused map[string]pause     // by key: what Slack asked for
	ids    map[string]string    // the key of a channel's name → that of its id, once it is known
}

// pause is a time in which Slack wants no calls. The webhook that was told is paused by
// the relay, and when the relay calls all the same, because an operator wants it, that
// is to be tried; the others do not know of it.
type pause struct {
	until time.Time
	told  sinks.Sink
}

const (
	// maxWait is how long a delivery waits for its turn inside its attempt; beyond it the
	// webhook pauses, which costs no attempt.
	maxWait = 3 * time.Second
	// maxKeys is how many keys are kept before those of the past are forgotten.
	maxKeys = 1024
)

func newPacer(every time.Duration) *pacer {
	return &pacer{every: every, free: map[string]time.Time{}, paused: map[string]pause{}, ids: map[string]string{}}
}

// channelKey is the key of a channel, whether it is called by its name or its id.
func (p *pacer) channelKey(token sinks.Secret, channel string) string {
	key := token.Reveal() + " " + strings.ToLower(strings.TrimPrefix(channel, "#"))
	p.mu.Lock()
	defer p.mu.Unlock()
	if id, ok := p.ids[key]; ok {
		return id
	}
	return key
}

// learn says that name is the channel with this id.
func (p *pacer) learn(token sinks.Secret, name, id string) {
	from, to := p.channelKey(token, name), p.channelKey(token, id)
	if from == to {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.ids) < maxKeys {
		p.ids[from] = to
	}
	if p.free[from].After(p.free[to]) {
		p.free[to] = p.free[from]
	}
}

// methodKey is the key of a method's own limit, which is that of the app in a workspace.
func methodKey(token sinks.Secret, method string) string { return token.Reveal() + " " + method }

// slot is a claim of a key's time.
type slot struct {
	key   string
	every time.Duration
}

// take waits for the turn of a webhook's call. When that is too far away it returns a
// [sinks.RateLimited], and claims nothing.
func (p *pacer) take(ctx context.Context, webhook sinks.Sink, slots ...slot) error {
	now := time.Now()
	p.mu.Lock()
	p.forget(now)
	at := now
	for _, s := range slots {
		if p.free[s.key].After(at) {
			at = p.free[s.key]
		}
		if pause := p.paused[s.key]; pause.told != webhook && pause.until.After(at) {
			at = pause.until
		}
	}
	wait := at.Sub(now)
	if deadline, ok := ctx.Deadline(); wait > maxWait || (ok && wait > 0 && at.After(deadline)) {
		p.mu.Unlock()
		return sinks.RateLimited(wait, fmt.Errorf("other messages for the same channel go first; Slack takes one a second (%v to wait)", wait.Round(time.Millisecond)))
	}
	for _, s := range slots {
		p.free[s.key] = at.Add(s.every)
	}
	p.mu.Unlock()
	if wait <= 0 {
		return nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the channel's turn: %w", ctx.Err())
	}
}

// pause keeps the other webhooks from a key for a while, because Slack told one.
func (p *pacer) pause(key string, told sinks.Sink, d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if until := time.Now().Add(d); until.After(p.paused[key].until) {
		p.paused[key] = pause{until, told}
	}
}

// forget drops the keys whose time has come. p.mu is held.
func (p *pacer) forget(now time.Time) {
	if len(p.free) >= maxKeys {
		maps.DeleteFunc(p.free, func(_ string, at time.Time) bool { return !at.After(now) })
	}
	if len(p.paused) >= maxKeys {
		maps.DeleteFunc(p.paused, func(_ string, at pause) bool { return !at.until.After(now) })
	}
}
