package main

import (
	"context"
	"sync"
)

// shared is what the webhooks of one process share. The zero value is ready.
type shared struct {
	mu       sync.Mutex
	accounts map[string]*account // by client_email
	books    map[string]*book    // by address of the API and id
}

// account is one service account, with its quota.
type account struct {
	users         int // guarded by shared.mu
	reads, writes limiter
}

// book is one spreadsheet. Whoever holds turn may read and write it.
type book struct {
	users int           // guarded by shared.mu
	turn  chan struct{} // holds one value while somebody has the turn
}

// join gives a webhook its account and its book. leave gives them back, once.
func (s *shared) join(email, address string) (a *account, b *book, leave func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.accounts == nil {
		s.accounts, s.books = map[string]*account{}, map[string]*book{}
	}
	// An account that nobody uses is forgotten when its minute is over, not before: a
	// reload must not make a new quota of it.
	for k, a := range s.accounts {
		if a.users == 0 && a.reads.idle() && a.writes.idle() {
			delete(s.accounts, k)
		}
	}
	a = s.accounts[email]
	if a == nil {
		a = &account{}
		s.accounts[email] = a
	}
	b = s.books[address]
	if b == nil {
		b = &book{turn: make(chan struct{}, 1)}
		s.books[address] = b
	}
	a.users++
	b.users++
	return a, b, sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		a.users--
		if b.users--; b.users == 0 {
			delete(s.books, address)
		}
	})
}

// lock waits for the turn.
func (b *book) lock(ctx context.Context) error {
	select {
	case b.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *book) unlock() { <-b.turn }
