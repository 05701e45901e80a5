package web

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"sync"
	"time"
)

const (
	// maxSessions bounds those at once; the one that was used longest ago goes first.
	maxSessions = 64
	// sessionLife is how long one lasts, and sessionIdle how long without being used.
	sessionLife = 12 * time.Hour
	sessionIdle = 2 * time.Hour
)

// session is somebody who has logged in.
type session struct {
	// form is what every form of the session carries and nobody else knows.
	form string
	ends time.Time
	// ctx ends with the session, and end ends it.
	ctx context.Context
	end context.CancelFunc

	used  time.Time // guarded by sessions.mu
	flash flash     // likewise
}

// flash is what the next page of a session says first: how an action went.
type flash struct {
	Text string // "" = nothing
	Bad  bool
}

// sessions are those of one process; they end with it.
type sessions struct {
	now func() time.Time

	mu sync.Mutex // guards the following
	// all has the sessions by the hash of their id: who can read this memory at another
	// moment finds nothing to log in with.
	all    map[[sha256.Size]byte]*session
	closed bool
}

func newSessions(now func() time.Time) *sessions {
	return &sessions{now: now, all: map[[sha256.Size]byte]*session{}}
}

// begin returns the id of a new session: 26 random characters of 5 bits.
func (s *sessions) begin() (id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	s.expire(now)
	for len(s.all) >= maxSessions {
		var oldest [sha256.Size]byte
		for key, one := range s.all {
			if first := s.all[oldest]; first == nil || one.used.Before(first.used) {
				oldest = key
			}
		}
		s.drop(oldest)
	}
	id = rand.Text()
	one := &session{form: rand.Text(), ends: now.Add(sessionLife), used: now}
	one.ctx, one.end = context.WithCancel(context.Background())
	if s.closed {
		one.end()
	}
	s.all[sha256.Sum256([]byte(id))] = one
	return id
}

// find is the session with an id; nil = there is none (any more). A page that fetches
// itself again does not use it: nobody may be there.
func (s *sessions) find(id string, use bool) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	s.expire(now)
	one := s.all[sha256.Sum256([]byte(id))]
	if one != nil && use {
		one.used = now
	}
	return one
}

// tell keeps what the next page of a session says; told takes it.
func (s *sessions) tell(one *session, f flash) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one.flash = f
}

func (s *sessions) told(one *session) flash {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := one.flash
	one.flash = flash{}
	return f
}

// finish ends the session with an id.
func (s *sessions) finish(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop(sha256.Sum256([]byte(id)))
}

// close ends all of them.
func (s *sessions) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for key := range s.all {
		s.drop(key)
	}
}

// expire is called with mu held.
func (s *sessions) expire(now time.Time) {
	for key, one := range s.all {
		if !now.Before(one.ends) || now.Sub(one.used) >= sessionIdle {
			s.drop(key)
		}
	}
}

// drop is called with mu held.
func (s *sessions) drop(key [sha256.Size]byte) {
	if one := s.all[key]; one != nil {
		one.end()
		delete(s.all, key)
	}
}

// hasForm reports whether a form is one of the session's own.
func (s *session) hasForm(value string) bool {
	return subtle.ConstantTimeCompare([]byte(value), []byte(s.form)) == 1
}
