package ingest

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/queue"
)

// Results that nobody fetches are bounded; then the client is not read any more
// and, as it does not move, closed.
func TestClientThatNeverReadsIsBoundedAndClosed(t *testing.T) {
	t.Parallel()
	s := serve(t, Options{StallTimeout: 3 * time.Second})
	c := s.stream(t)
	done, peak := make(chan struct{}), make(chan int64)
	go func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		var most int64
		for {
			most = max(most, s.results.Load())
			select {
			case <-tick.C:
			case <-done:
				peak <- most
				return
			}
		}
	}()
	block := strings.Repeat("x\n", 8<<10)
	sent := 0
	for ; sent < 1<<30; sent += len(block) {
		if _, err := io.WriteString(c.body, block); err != nil {
			break
		}
	}
	s.settle(t)
	close(done)
	most := <-peak
	if sent >= 1<<30 {
		t.Error("never closed")
	}
	if most < streamResults/2 || most > streamResults+(1<<20) {
		t.Errorf("held %d bytes of results, want about %d", most, streamResults)
	}
}

func TestClientKilledInTheMiddle(t *testing.T) {
	t.Parallel()
	catalog := oneWebhook()
	s := serve(t, Options{Catalog: func() *Catalog { return catalog }})
	for round := range 20 {
		before := len(s.store.all())
		c := s.stream(t)
		go func() {
			for i := range 2000 {
				if _, err := io.WriteString(c.body, entry(i)); err != nil {
					return
				}
			}
		}()
		var ids []string
		for range round * 30 {
			a := c.result()
			if a.Status != 202 || a.Line != int64(len(ids)+1) {
				t.Fatalf("%+v", a)
			}
			ids = append(ids, a.ID)
		}
		c.conn.Close()
		s.settle(t)
		evs := s.store.all()[before:]
		if len(evs) < len(ids) {
			t.Fatalf("%d results but %d events", len(ids), len(evs))
		}
		for i, ev := range evs {
			if i < len(ids) && ev.ID != ids[i] || ev.EntryID != fmt.Sprintf("e%d", i) {
				t.Fatalf("event %d is %s %s", i, ev.ID, ev.EntryID)
			}
		}
	}
}

// settle waits until no stream is under way.
func (s *served) settle(t testing.TB) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for s.Metrics().InFlight > 0 {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("requests go on and on")
		}
	}
}

// A cut line may be a whole event by chance; only its line feed, or the proper
// end of the body, says so.
func TestLineThatTheConnectionCutIsNotTaken(t *testing.T) {
	s := serve(t, Options{})
	c := s.stream(t)
	c.send(created("a") + "\n" + created("cut"))
	c.conn.(*net.UnixConn).CloseWrite()
	got := c.rest()
	if outcome(got) != "1:202 2:400" || !strings.Contains(string(*got[1].Error), CodeIncomplete) {
		t.Errorf("%s", outcome(got))
	}
	if n := len(s.store.all()); n != 1 {
		t.Errorf("%d events", n)
	}
}

func TestStalledStreamIsToldAndClosed(t *testing.T) {
	t.Parallel()
	s := serve(t, Options{StallTimeout: 3 * time.Second})
	c := s.stream(t)
	c.send(created("a") + "\n" + created("b"))
	got := c.rest()
	if outcome(got) != "1:202 2:408" || !strings.Contains(string(*got[1].Error), CodeTimeout) {
		t.Errorf("%s", outcome(got))
	}
	if _, err := c.conn.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("connection is open: %v", err)
	}
}

func TestBlankLinesKeepAStreamOpen(t *testing.T) {
	t.Parallel()
	const stall = 3 * time.Second
	s := serve(t, Options{StallTimeout: stall})
	c := s.stream(t)
	tick := time.NewTicker(stall / 10)
	defer tick.Stop()
	for range 15 {
		<-tick.C
		c.send("\n")
	}
	c.send(created("a") + "\n")
	if a := c.result(); a.Line != 16 || a.Status != 202 {
		t.Errorf("%+v", a)
	}
	c.finish()
	c.rest()
}

// The client waits for us, not we for it: however slow the store is, that is no
// stall.
func TestSlowStoreIsNotTheClientsStall(t *testing.T) {
	t.Parallel()
	const stall = 2 * time.Second
	s := serve(t, Options{StallTimeout: stall, Store: &fakeStore{before: func([]*queue.Event) error {
		<-time.After(stall + stall/2)
		return nil
	}}})
	c := s.stream(t)
	for i := range 2 {
		c.send(created("a") + "\n")
		if a := c.result(); a.Line != int64(i+1) || a.Status != 202 {
			t.Errorf("%+v", a)
		}
	}
	c.finish()
	c.rest()

	resp, body := s.raw(t, post(created("e")))
	if resp.StatusCode != 202 {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}

func TestStreamIsToldOfAShutdown(t *testing.T) {
	s := serve(t, Options{})
	c := s.stream(t)
	c.send(created("a") + "\n")
	first := c.result()
	c.send(created("half"))
	done := make(chan error, 1)
	go func() { done <- s.Shutdown(t.Context()) }()
	got := append([]answer{first}, c.rest()...)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if outcome(got) != "1:202 2:503" || !strings.Contains(string(*got[1].Error), CodeShuttingDown) {
		t.Errorf("%s", outcome(got))
	}
	if n := len(s.store.all()); n != 1 {
		t.Errorf("%d events", n)
	}
	if _, err := net.Dial("unix", s.path); err == nil {
		t.Error("the socket is still there")
	}
}
