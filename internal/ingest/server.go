package ingest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/event"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
)

// Limits that are not configured; docs/api.md tells them to senders.
const (
	defaultMaxEvent = 1 << 20
	defaultStall    = 10 * time.Second
	defaultMaxConns = 1024

	// idleTimeout closes a kept-alive connection between requests.
	idleTimeout = 5 * time.Minute
	// maxHeader bounds request line and headers together; net/http allows 4 KiB
	// more.
	maxHeader = 16 << 10
	// cutWait is how long handlers get to notice that their connections are cut.
	cutWait = 2 * time.Second
	// spareConns are taken beyond the limit only to be told about it.
	spareConns = 16

	// bigBody is what a request may hold without asking; bodies and lines beyond
	// it share bigMemory.
	bigBody   = 64 << 10
	bigMemory = 64 << 20

	// streamResults bounds what one stream's unread results hold; once all
	// streams together hold allResults, each may hold only fewResults.
	streamResults = 16 << 20
	allResults    = 64 << 20
	fewResults    = 256 << 10
)

// Store makes events durable. Its methods are called concurrently.
type Store interface {
	// Accept returns when all events are durable, or with an error when none
	// is; an event that alone was refused has its Err set. It gives up early
	// only if ctx ends before the events were handed over.
	Accept(ctx context.Context, evs []*queue.Event) error
	// StoreID is the part of ids that tells this store from others.
	StoreID() uint64
	// LaneName is the webhook ("helper.webhook") of a lane; needed for
	// repeats whose first answer named a webhook that is gone from the catalog.
	LaneName(queue.Lane) string
}

// Options configure a [Server]. Store and Catalog are required.
type Options struct {
	Store Store
	// Catalog returns what is configured now. It is called for every event and
	// must be cheap; what it returns is never modified.
	Catalog func() *Catalog
	// Gate says whether events can be taken at all: nil, or a *queue.SpaceError,
	// queue.ErrStopped or other error while the store is not open or degraded.
	// No method of Store is called before Gate returned nil. A nil Gate is open.
	Gate func() error

	Logger        *slog.Logger     // nil discards
	Now           func() time.Time // nil is time.Now; gives events their default times
	MaxEventBytes int64            // of one body or line; 0 is 1 MiB
	AllowUIDs     []uint32         // users that may connect; empty: all whom the socket's mode admits
	StallTimeout  time.Duration    // longest pause of a client inside a request; 0 is 10 s
	MaxConns      int              // open connections; 0 is 1024

	// Observe, if set, is told how long it took from the whole body's arrival until
	// the event was durable, or for a stream how long each group of lines took. What is
	// refused does not count. It must not block.
	Observe func(time.Duration)
}

// Catalog is all helpers by id. It is immutable; a reload makes a new one.
type Catalog struct {
	Helpers map[string]*Helper
}

// Helper implements [event.Helpers].
func (c *Catalog) Helper(id string) *event.Helper {
	if h := c.Helpers[id]; h != nil {
		return &h.Helper
	}
	return nil
}

// HelperIDs implements [event.Helpers].
func (c *Catalog) HelperIDs() []string { return slices.Collect(maps.Keys(c.Helpers)) }

// Helper is a helper and its webhooks, in the order in which answers list them.
type Helper struct {
	event.Helper
	Webhooks []Webhook
}

// Webhook is what decides whether and how an event is delivered to it.
type Webhook struct {
	Name    string // "helper.webhook"
	Lane    queue.Lane
	Format  event.Format
	Enabled bool
	Events  map[string]bool // types that it wants; nil = all
}

// Server serves the events socket.
type Server struct {
	o       Options
	http    *http.Server
	fast    fastConns
	epoch   time.Time // base of monotonic clock readings
	metrics metrics

	conns   chan struct{} // a slot for each open connection
	big     chan struct{} // a slot for each body or line above bigBody
	results atomic.Int64  // bytes of results that streams hold

	// handlers are the requests under way. Counting is under mu so that Wait
	// does not race with the first Add.
	mu        sync.Mutex
	stopping  bool // nobody new is taken; who was, is served
	refusing  bool // nobody is served any more
	listeners []*listener
	accepting sync.WaitGroup
	streams   map[*stream]struct{}
	long      map[*conn]http.ConnState // what net/http has
	handlers  sync.WaitGroup

	requests sync.Pool // *request
	batches  sync.Pool // *batch
	windows  sync.Pool // *[]byte of bigBody bytes
}

// New makes a server that does not listen yet.
func New(o Options) *Server {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Gate == nil {
		o.Gate = func() error { return nil }
	}
	if o.Observe == nil {
		o.Observe = func(time.Duration) {}
	}
	o.MaxEventBytes = cmp.Or(o.MaxEventBytes, defaultMaxEvent)
	o.StallTimeout = cmp.Or(o.StallTimeout, defaultStall)
	o.MaxConns = cmp.Or(o.MaxConns, defaultMaxConns)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{
		o:       o,
		epoch:   time.Now(),
		conns:   make(chan struct{}, o.MaxConns+spareConns),
		big:     make(chan struct{}, max(4, bigMemory/o.MaxEventBytes)),
		streams: make(map[*stream]struct{}),
		long:    make(map[*conn]http.ConnState),
	}
	s.metrics.rejected = make(map[string]int64)
	s.metrics.byHelper.Store(&map[string]*atomic.Int64{})
	s.requests.New = func() any { return newRequest() }
	s.batches.New = func() any { return new(batch) }
	s.windows.New = func() any { return new(make([]byte, bigBody)) }
	s.http = &http.Server{
		Handler:                      http.HandlerFunc(s.serveHTTP),
		ReadHeaderTimeout:            o.StallTimeout,
		IdleTimeout:                  idleTimeout,
		MaxHeaderBytes:               maxHeader,
		DisableGeneralOptionsHandler: true, // "OPTIONS *" is answered like any other mistake
		ConnContext:                  withConn,
		ConnState:                    s.follow,
		ErrorLog:                     log.New(serverLog{o.Logger}, "", 0),
	}
	return s
}

// Serve answers connections of l until [Server.Shutdown]; then it returns nil.
// Any other return is the error that ended it. It may be called for several
// listeners.
func (s *Server) Serve(l net.Listener) error {
	bounded := newListener(s, l)
	rest := newHandover(bounded)
	s.mu.Lock()
	if s.stopping {
		s.mu.Unlock()
		return bounded.Close()
	}
	s.listeners = append(s.listeners, bounded)
	s.accepting.Add(1)
	s.mu.Unlock()
	go func() {
		defer s.accepting.Done()
		s.accept(bounded, rest)
	}()
	err := s.http.Serve(rest)
	rest.Close()
	s.accepting.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve events on %s: %w", l.Addr(), err)
}

// begin registers a request; false: it comes too late to be served.
func (s *Server) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refusing {
		return false
	}
	s.handlers.Add(1)
	return true
}

func (s *Server) addStream(st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.streams[st] = struct{}{}
	if s.stopping { // between begin and here
		st.conn.interrupt()
	}
}

func (s *Server) removeStream(st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.streams, st)
}

func (s *Server) isStopping() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopping
}

// Full reports whether no connection is taken because as many are open as may be.
func (s *Server) Full() bool { return len(s.conns) == cap(s.conns) }

// clock reads the monotonic clock.
func (s *Server) clock() time.Duration { return time.Since(s.epoch) }

// serverLog takes what net/http would print: failing accepts and panics.
type serverLog struct{ logger *slog.Logger }

func (l serverLog) Write(p []byte) (int, error) {
	l.logger.Warn("events socket: net/http reports", "err", string(bytes.TrimSpace(p)))
	return len(p), nil
}
