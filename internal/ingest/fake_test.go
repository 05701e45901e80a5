package ingest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/peanutsapp/peanuts-relay/internal/event"
	"github.com/peanutsapp/peanuts-relay/internal/id"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
	"github.com/peanutsapp/peanuts-relay/internal/unixsock"
)

func TestMain(m *testing.M) {
	if path := os.Getenv("INGEST_TEST_POST"); path != "" {
		os.Exit(childPost(path))
	}
	goleak.VerifyTestMain(m)
}

const fakeStoreID = 0x123456789a

// patience is how long a test waits for what must happen.
const patience = time.Minute

// fakeStore keeps what it accepts and holds its callers to the contract.
type fakeStore struct {
	t testing.TB

	// before, if set, is called in Accept before anything is taken; an error
	// refuses the group.
	before func(evs []*queue.Event) error
	// each, if set, may refuse a single event.
	each func(ev *queue.Event) error

	mu     sync.Mutex
	events []stored
	keys   map[string]int // helper and key to index in events
	calls  int
	inCall int
	most   int // calls at once
}

type stored struct {
	queue.Event
	copies [2][]byte // of the payloads at acceptance
}

func (f *fakeStore) StoreID() uint64 { return fakeStoreID }

func (f *fakeStore) LaneName(l queue.Lane) string { return fmt.Sprintf("gone.lane%d", l) }

func (f *fakeStore) Accept(ctx context.Context, evs []*queue.Event) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f.mu.Lock()
	f.calls++
	f.inCall++
	f.most = max(f.most, f.inCall)
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		f.inCall--
		f.mu.Unlock()
	}()
	if len(evs) == 0 {
		f.t.Error("Accept without events")
	}
	if f.before != nil {
		snapshot := make([]queue.Event, len(evs))
		for i, ev := range evs {
			snapshot[i] = *ev
		}
		if err := f.before(evs); err != nil {
			return err
		}
		for i, ev := range evs {
			if !reflect.DeepEqual(*ev, snapshot[i]) {
				f.t.Errorf("event was modified while the store owned it: %+v", ev)
			}
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, ev := range evs {
		f.take(ev)
	}
	return nil
}

func (f *fakeStore) take(ev *queue.Event) {
	f.check(ev)
	if f.each != nil {
		if ev.Err = f.each(ev); ev.Err != nil {
			return
		}
	}
	key := ev.Helper + "\x00" + ev.IdempotencyKey
	if i, ok := f.keys[key]; ok && ev.IdempotencyKey != "" {
		first := &f.events[i]
		if first.BodyHash != ev.BodyHash {
			ev.Err = queue.ErrKeyReused
			return
		}
		ev.Duplicate, ev.ID, ev.Seq = true, first.ID, first.Seq
		ev.Deliveries, ev.Skipped = first.Deliveries, first.Skipped
		return
	}
	ev.Seq = uint64(len(f.events) + 1)
	if ev.ID == "" {
		ev.ID = id.Event(fakeStoreID, ev.Seq)
		if ev.IDAt > 0 {
			copy(ev.Payloads[queue.FormatEvent][ev.IDAt:], ev.ID)
		}
	}
	s := stored{Event: *ev}
	// The slices of an Event are the caller's again afterwards, its payloads are not.
	s.Deliveries = append([]queue.NewDelivery(nil), ev.Deliveries...)
	s.Skipped = append([]queue.Skip(nil), ev.Skipped...)
	for i, p := range ev.Payloads {
		s.copies[i] = bytes.Clone(p)
	}
	if f.keys == nil {
		f.keys = map[string]int{}
	}
	f.keys[key] = len(f.events)
	f.events = append(f.events, s)
}

func (f *fakeStore) check(ev *queue.Event) {
	var used [2]bool
	for _, d := range ev.Deliveries {
		used[d.Format] = true
	}
	for i, p := range ev.Payloads {
		if (p != nil) != used[i] {
			f.t.Errorf("payload of format %d is there: %v, used: %v", i, p != nil, used[i])
		}
		if p != nil && !json.Valid(p) {
			f.t.Errorf("payload is not JSON: %q", p)
		}
		if cap(p) > len(p)+len(p)/4+64 {
			f.t.Errorf("payload of %d bytes pins %d", len(p), cap(p))
		}
	}
	if want := used[1] && ev.ID == ""; (ev.IDAt > 0) != want {
		f.t.Errorf("IDAt is %d, id %q, used %v", ev.IDAt, ev.ID, used)
	}
	if ev.ID != "" && ev.IdempotencyKey != ev.ID {
		f.t.Errorf("id %q but key %q", ev.ID, ev.IdempotencyKey)
	}
	if ev.Helper == "" || ev.Type == "" || ev.EntryID == "" || ev.Timestamp.Year() > 9999 || ev.Timestamp.IsZero() {
		f.t.Errorf("incomplete event %+v", ev)
	}
}

// all returns what was accepted and checks that nobody touched it since.
func (f *fakeStore) all() []stored {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.events {
		for j, p := range f.events[i].Payloads {
			if !bytes.Equal(p, f.events[i].copies[j]) {
				f.t.Errorf("payload of event %d changed after acceptance:\n%s\n%s", i, f.events[i].copies[j], p)
			}
		}
	}
	return append([]stored(nil), f.events...)
}

func testCatalog() *Catalog {
	expenses := &Helper{
		Helper: event.Helper{ID: "expenses", Name: "Daily Expenses", Command: "/expenses",
			Fields: []event.Field{{Name: "amount", Type: event.Number}}, Events: []string{"payment.failed"}},
		Webhooks: []Webhook{
			{Name: "expenses.backend", Lane: 1, Format: event.FormatPeanuts, Enabled: true},
			{Name: "expenses.audit", Lane: 2, Format: event.FormatEvent, Enabled: true, Events: map[string]bool{event.Created: true}},
			{Name: "expenses.alerts", Lane: 3, Format: event.FormatPeanuts},
		},
	}
	silent := &Helper{Helper: event.Helper{ID: "silent"}}
	return &Catalog{Helpers: map[string]*Helper{"expenses": expenses, "silent": silent}}
}

// served is a server on a real socket.
type served struct {
	*Server
	path  string
	store *fakeStore
}

func serve(t testing.TB, o Options) *served {
	t.Helper()
	store, _ := o.Store.(*fakeStore)
	if o.Store == nil {
		store = &fakeStore{t: t}
		o.Store = store
	}
	if store != nil {
		store.t = t
	}
	if o.Catalog == nil {
		catalog := testCatalog()
		o.Catalog = func() *Catalog { return catalog }
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelInfo}))
	}
	path := filepath.Join(t.TempDir(), "events.sock")
	l, err := unixsock.Listen(path, unixsock.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s := New(o)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
		if m := s.Metrics(); m.InFlight != 0 || m.Streams != 0 || m.Connections != 0 || s.results.Load() != 0 || len(s.big) != 0 {
			t.Errorf("left behind: %+v, %d bytes of results, %d big bodies", m, s.results.Load(), len(s.big))
		}
		if store != nil {
			store.all()
		}
	})
	return &served{Server: s, path: path, store: store}
}

type testWriter struct{ t testing.TB }

// Write fails the test: net/http complains only about bugs of handlers.
func (w testWriter) Write(p []byte) (int, error) {
	w.t.Errorf("logged: %s", p)
	return len(p), nil
}

func (s *served) dial(t testing.TB) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", s.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

// raw sends bytes as they are and reads one response.
func (s *served) raw(t testing.TB, request string) (*http.Response, string) {
	t.Helper()
	c := s.dial(t)
	defer c.Close()
	go io.WriteString(c, request) // a refusal may come first
	return readResponse(t, bufio.NewReader(c))
}

func readResponse(t testing.TB, r *bufio.Reader) (*http.Response, string) {
	t.Helper()
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatalf("no response: %v", err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("response breaks off: %v", err)
	}
	return resp, string(body)
}

// post is one JSON request.
func post(body string, headers ...string) string {
	return postAs(typeJSON, body, headers...)
}

func postAs(contentType, body string, headers ...string) string {
	var b strings.Builder
	b.WriteString("POST /v1/events HTTP/1.1\r\nHost: x\r\n")
	if contentType != "" {
		fmt.Fprintf(&b, "Content-Type: %s\r\n", contentType)
	}
	for _, h := range headers {
		b.WriteString(h + "\r\n")
	}
	fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n%s", len(body), body)
	return b.String()
}

func created(entry string) string {
	return `{"event":"entry.created","helper":"expenses","entry":{"id":"` + entry + `","data":{"amount":42.5}}}`
}

// wireError is the shape of every refusal.
type wireError struct {
	Error struct {
		Code, Message string
		Field         *string
		Offset        *int64
		RetryAfter    int `json:"retry_after"`
	}
}

func decodeError(t testing.TB, body string) wireError {
	t.Helper()
	var e wireError
	d := json.NewDecoder(strings.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&e); err != nil {
		t.Fatalf("refusal %q is not as documented: %v", body, err)
	}
	if e.Error.Code == "" || e.Error.Message == "" || e.Error.Field == nil {
		t.Fatalf("refusal %q lacks a member", body)
	}
	return e
}

// gate holds Accept until the test releases it, or has ended.
type gate struct {
	done    <-chan struct{}
	in      chan int
	outward chan struct{}
}

func newGate(t testing.TB) *gate {
	return &gate{done: t.Context().Done(), in: make(chan int), outward: make(chan struct{})}
}

// pass is a fakeStore.before.
func (g *gate) pass(evs []*queue.Event) error {
	select {
	case g.in <- len(evs):
	case <-g.done:
		return queue.ErrStopped
	}
	select {
	case <-g.outward:
		return nil
	case <-g.done:
		return queue.ErrStopped
	}
}

// entered waits for a call of Accept and tells its size.
func (g *gate) entered(t testing.TB) int {
	t.Helper()
	select {
	case n := <-g.in:
		return n
	case <-time.After(patience):
		t.Fatal("the store is not called")
		return 0
	}
}

// release lets that call go on.
func (g *gate) release(t testing.TB) {
	t.Helper()
	select {
	case g.outward <- struct{}{}:
	case <-time.After(patience):
		t.Fatal("the store is not being called")
	}
}
