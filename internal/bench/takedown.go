package main

import (
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"time"
)

// takedown is an address of the receiver that goes away and comes back: to the daemon
// that is a restart of its receiver. The process stays, because it counts.
type takedown struct {
	s    *receiver
	addr string

	mu    sync.Mutex // guards the rest
	l     net.Listener
	conns map[net.Conn]struct{}
}

func newTakedown(s *receiver) (*takedown, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	t := &takedown{s: s, addr: l.Addr().String(), l: l, conns: map[net.Conn]struct{}{}}
	go t.accept(l)
	return t, nil
}

func (t *takedown) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		t.mu.Lock()
		t.conns[c] = struct{}{}
		t.mu.Unlock()
		go func() {
			t.s.serve(c)
			t.mu.Lock()
			delete(t.conns, c)
			t.mu.Unlock()
		}()
	}
}

// take closes the listener, resets every connection and listens again after d. A second
// call meanwhile does nothing.
func (t *takedown) take(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.l == nil {
		return
	}
	_ = t.l.Close()
	t.l = nil
	for c := range t.conns {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = c.Close()
	}
	time.AfterFunc(d, t.back)
}

func (t *takedown) back() {
	l, err := net.Listen("tcp", t.addr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench: receiver:", err)
		time.AfterFunc(100*time.Millisecond, t.back)
		return
	}
	t.mu.Lock()
	t.l = l
	t.mu.Unlock()
	go t.accept(l)
}

// window summarises the latencies since the last call.
func (st *stream) window() summary {
	st.mu.Lock()
	v := slices.Clone(st.latency[st.windowed:])
	st.windowed = len(st.latency)
	st.mu.Unlock()
	return summarise(v)
}
