package api

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/adminclient"
	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

func accepted(lane queue.Lane, seq uint64) queue.Change {
	return queue.Change{Lane: lane, Seq: seq, State: delivery.Pending, Kind: rest.KindAccepted}
}

func attempted(lane queue.Lane, seq uint64, state delivery.State, attempts int) queue.Change {
	return queue.Change{Lane: lane, Seq: seq, State: state, Attempts: attempts, StatusCode: 200, Kind: rest.KindAttempt}
}

// follow opens a stream that ends with the test.
func follow(t *testing.T, w *world, q adminclient.FollowQuery) *adminclient.Stream {
	t.Helper()
	s, err := w.client.Follow(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func TestTheStreamTellsEveryChangeInOrder(t *testing.T) {
	w := newWorld(t).start(t)
	first := w.store.add(backend, 1, delivery.Success, nil)
	second := w.store.add(alerts, 2, delivery.Pending, nil)
	s := follow(t, w, adminclient.FollowQuery{})
	w.Feed.Publish([]queue.Change{accepted(backend, 1), accepted(alerts, 2)})
	w.Feed.Publish([]queue.Change{attempted(backend, 1, delivery.Success, 1)})
	for _, want := range []struct{ id, kind, status string }{
		{first, rest.KindAccepted, rest.StatusPending}, {second, rest.KindAccepted, rest.StatusHeld}, {first, rest.KindAttempt, rest.StatusSuccess},
	} {
		got, err := s.Next()
		if err != nil {
			t.Fatal(err)
		}
		if d := got.Delivery; d.ID != want.id || got.Kind != want.kind || d.Status != want.status || got.At.IsZero() || d.EntryID == "" {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
}

func TestTheStreamFilters(t *testing.T) {
	w := newWorld(t).start(t)
	for lane := backend; lane <= crm; lane++ {
		w.store.add(lane, 1, delivery.Success, nil)
	}
	one := follow(t, w, adminclient.FollowQuery{Webhook: "crm.main"})
	done := follow(t, w, adminclient.FollowQuery{Status: []string{"success"}})
	w.Feed.Publish([]queue.Change{accepted(backend, 1), attempted(backend, 1, delivery.Success, 1), accepted(crm, 1)})
	if got, err := one.Next(); err != nil || got.Delivery.Webhook != "crm.main" {
		t.Errorf("got %+v, %v", got, err)
	}
	if got, err := done.Next(); err != nil || got.Delivery.Status != rest.StatusSuccess {
		t.Errorf("got %+v, %v", got, err)
	}
}

// A change of a delivery that has gone from the log is told all the same.
func TestTheStreamTellsWhatWasRemoved(t *testing.T) {
	w := newWorld(t).start(t)
	s := follow(t, w, adminclient.FollowQuery{})
	w.Feed.Publish([]queue.Change{{Lane: backend, Seq: 77, State: delivery.Failed, Attempts: 4, Code: delivery.CodeDropped, Kind: rest.KindDropped}})
	got, err := s.Next()
	if err != nil || got.Kind != rest.KindDropped || got.Delivery.Webhook != "expenses.backend" || got.Delivery.Attempts != 4 || got.Delivery.ID == "" {
		t.Errorf("got %+v, %v", got, err)
	}
}

// Publish is called by the committer: a reader that does not read must neither
// hold it up nor make the buffer grow, and learns what it missed.
func TestASlowReaderIsToldWhatItMissed(t *testing.T) {
	w := newWorld(t).start(t)
	w.store.add(backend, 1, delivery.Pending, nil)
	conn, err := net.Dial("unix", w.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET /v1/deliveries/stream HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return w.Feed.readers() == 1 })
	const changes = 200_000
	batch := make([]queue.Change, 100)
	for i := range changes / len(batch) {
		for j := range batch {
			batch[j] = accepted(backend, 1)
			batch[j].Attempts = i*len(batch) + j + 1
		}
		w.Feed.Publish(batch)
	}
	// Not closed: Close would read on to an end that does not come.
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	stream := adminclient.NewReader(resp.Body)
	var told, missed, last uint64
	for last < changes {
		f, err := stream.Next()
		if err != nil {
			t.Fatalf("after %d told and %d missed: %v", told, missed, err)
		}
		if f.Missed > 0 {
			missed += f.Missed
			continue
		}
		told++
		if n := uint64(f.Delivery.Attempts); n <= last || n != told+missed {
			t.Fatalf("change %d after %d, with %d missed: one was lost silently", n, last, missed)
		}
		last = uint64(f.Delivery.Attempts)
	}
	if missed == 0 || told+missed != changes {
		t.Errorf("%d told and %d missed of %d", told, missed, changes)
	}
}

func TestSubscriberBufferIsBounded(t *testing.T) {
	f := NewFeed()
	s, err := f.subscribe(0)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3*subscriberBuffer + 5 {
		f.Publish([]queue.Change{accepted(backend, uint64(i))})
	}
	cs, missed, ended := s.take()
	if len(cs) != subscriberBuffer || missed != 2*subscriberBuffer+5 || ended {
		t.Fatalf("took %d, missed %d, ended %t", len(cs), missed, ended)
	}
	for i, c := range cs {
		if want := uint64(2*subscriberBuffer + 5 + i); c.Seq != want {
			t.Fatalf("element %d is change %d, want %d", i, c.Seq, want)
		}
	}
	if cs, missed, _ := s.take(); len(cs) != 0 || missed != 0 {
		t.Errorf("took %d and %d missed again", len(cs), missed)
	}
}

func TestAHeadRequestOfTheStreamDoesNotWait(t *testing.T) {
	w := newWorld(t)
	if rec := w.request("HEAD", "/v1/deliveries/stream", ""); rec.Code != http.StatusOK || rec.Header().Get("Content-Type") != "text/event-stream" {
		t.Errorf("got %d %v", rec.Code, rec.Header())
	}
	if n := w.Feed.readers(); n != 0 {
		t.Errorf("%d readers are left", n)
	}
}

func TestOnlySoManyReaders(t *testing.T) {
	w := newWorld(t).start(t)
	for range maxSubscribers {
		follow(t, w, adminclient.FollowQuery{})
	}
	_, err := w.client.Follow(t.Context(), adminclient.FollowQuery{})
	refused(t, err, 429, rest.CodeTooMany)
}

func TestShutdownEndsStreams(t *testing.T) {
	w := newWorld(t).start(t)
	s := follow(t, w, adminclient.FollowQuery{})
	ended := make(chan error, 1)
	go func() {
		_, err := s.Next()
		ended <- err
	}()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := w.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, adminclient.ErrStreamEnded) {
		t.Errorf("the stream ended with %v", err)
	}
	w.Feed.Publish([]queue.Change{attempted(backend, 1, delivery.Success, 1)})
	if c := w.Feed.counts(backend); c.success != 1 {
		t.Error("the feed no longer counts")
	}
}

func TestClosingTheStreamFreesItsPlace(t *testing.T) {
	w := newWorld(t).start(t)
	s := follow(t, w, adminclient.FollowQuery{})
	s.Close()
	waitFor(t, func() bool { return w.Feed.readers() == 0 })
	if _, err := s.Next(); err == nil {
		t.Error("a closed stream went on")
	}
}

// flushRecorder is a response writer that passes every flush on.
type flushRecorder struct {
	*httptest.ResponseRecorder
	flushed chan string
}

func (f *flushRecorder) Flush() {
	f.flushed <- f.Body.String()
	f.Body.Reset()
}

func (f *flushRecorder) SetWriteDeadline(time.Time) error { return nil }

func TestAQuietStreamBeatsEvery15Seconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ctx, cancel := context.WithCancel(t.Context())
		rec := &flushRecorder{httptest.NewRecorder(), make(chan string)}
		var wg sync.WaitGroup
		wg.Go(func() {
			w.Handler().ServeHTTP(rec, httptest.NewRequestWithContext(ctx, "GET", "/v1/deliveries/stream", nil))
		})
		if got := <-rec.flushed; got != ": connected\n\n" {
			t.Errorf("began with %q", got)
		}
		start := time.Now()
		for i := range 3 {
			if got := <-rec.flushed; got != ": alive\n\n" || time.Since(start) != time.Duration(i+1)*heartbeat {
				t.Errorf("beat %d was %q after %s", i, got, time.Since(start))
			}
		}
		cancel()
		wg.Wait()
	})
}

func TestTheConnectionLimitHoldsOthersBack(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := newBounded(inner, 2, new(atomic.Int64))
	acceptedConns := make(chan net.Conn)
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(acceptedConns)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			acceptedConns <- c
		}
	})
	for range 3 {
		c, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	one, two := <-acceptedConns, <-acceptedConns
	select {
	case <-acceptedConns:
		t.Fatal("a third connection was accepted")
	default:
	}
	if len(l.open) != 2 {
		t.Errorf("%d places taken", len(l.open))
	}
	_, _ = one.Close(), one.Close() // a second Close gives no second place
	three := <-acceptedConns
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	for range acceptedConns {
		t.Error("a connection was accepted after Close")
	}
	wg.Wait()
	_, _ = two.Close(), three.Close()
}

func TestHostileConnectionsEnd(t *testing.T) {
	w := newWorld(t)
	w.srv.ReadHeaderTimeout = 50 * time.Millisecond
	w.start(t)
	conn, err := net.Dial("unix", w.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET /v1/status HTTP/1.1\r\nX-"); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("a request whose header never ends was waited for")
	}
	big := "GET /v1/status HTTP/1.1\r\nHost: x\r\nX-Big: " + strings.Repeat("x", 2*maxHeader) + "\r\n\r\n"
	conn2, err := net.Dial("unix", w.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn2.Close()
	go func() { _, _ = io.WriteString(conn2, big) }()
	resp, err := http.ReadResponse(bufio.NewReader(conn2), nil)
	if err != nil || resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("a header of %d bytes: %v, %v", len(big), resp, err)
	}
}

// The store's words go into the documents as they are.
func TestTheStoresWordsAreThoseOfTheDocuments(t *testing.T) {
	for store, document := range map[string]string{queue.ChangeAccepted: rest.KindAccepted, queue.ChangeAttempt: rest.KindAttempt,
		queue.ChangeRequeued: rest.KindRequeued, queue.ChangeDropped: rest.KindDropped,
		delivery.Pending.String(): rest.StatusPending, delivery.Success.String(): rest.StatusSuccess, delivery.Failed.String(): rest.StatusFailed} {
		if store != document {
			t.Errorf("the store says %q, the documents %q", store, document)
		}
	}
}
