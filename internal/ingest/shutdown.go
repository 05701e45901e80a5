package ingest

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"
)

const (
	// firstWait is how long who has connected, and has sent nothing when a shutdown
	// begins, may take to send.
	firstWait = 2 * time.Second
	// endedPoll is how often it is looked whether connections have ended.
	endedPoll = 2 * time.Millisecond
)

// Shutdown stops: listeners are closed at once, and what waits in the backlog of a socket
// that belongs to a service manager waits for the next daemon. Whoever was accepted is served:
// requests under way are finished, one that was sent is taken, and who has sent none has
// two seconds to do so; streams answer what they have read, say so in a last line and end. When ctx
// ends first, connections are cut; the error is ctx's then. On return no handler
// runs any more, unless the store has kept one for longer than two seconds
// after that.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.stopping = true
	for st := range s.streams {
		st.conn.interrupt()
	}
	listeners := s.listeners
	s.mu.Unlock()
	for _, l := range listeners {
		l.Close() // its error is that it was closed
	}
	s.accepting.Wait()
	s.fast.stop()
	err := s.fast.ended(ctx)
	if err == nil {
		err = s.longEnded(ctx)
	}
	if err == nil {
		err = s.http.Shutdown(ctx)
	}
	if err != nil {
		s.http.Close()
		s.fast.cut()
		idle := make(chan struct{})
		go func() {
			s.noMore()
			close(idle)
		}()
		select {
		case <-idle:
		case <-time.After(cutWait):
		}
		return fmt.Errorf("shut the events socket down: %w", err)
	}
	s.noMore() // they have answered; only their last lines are left
	return nil
}

// noMore lets no request begin any more and waits for those that have.
func (s *Server) noMore() {
	s.mu.Lock()
	s.refusing = true
	s.mu.Unlock()
	s.handlers.Wait()
}

// follow notes what net/http does with a connection.
func (s *Server) follow(nc net.Conn, state http.ConnState) {
	c := nc.(*conn)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch state {
	case http.StateClosed, http.StateHijacked:
		delete(s.long, c)
		return
	case http.StateIdle:
		if s.stopping {
			c.lastCall()
		}
	}
	s.long[c] = state
}

// longEnded has the connections of net/http end that wait for a request, and waits until
// they have. net/http would close them whether or not one has just come.
func (s *Server) longEnded(ctx context.Context) error {
	s.callLong(http.StateIdle)
	patience := time.NewTimer(firstWait)
	defer patience.Stop()
	poll := time.NewTicker(endedPoll)
	defer poll.Stop()
	for {
		if !s.waiting() {
			return nil
		}
		select {
		case <-poll.C:
		case <-patience.C:
			s.callLong(http.StateNew)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// callLong is the last call for connections in a state.
func (s *Server) callLong(of http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c, state := range s.long {
		if state == of {
			c.lastCall()
		}
	}
}

// waiting reports whether net/http waits for a request anywhere.
func (s *Server) waiting() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, state := range s.long {
		if state == http.StateNew || state == http.StateIdle {
			return true
		}
	}
	return false
}
