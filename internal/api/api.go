package api

import (
	"context"
	"errors"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/peanutsapp/peanuts-relay/internal/backup"
	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

// Store is what the API reads of the durable queue; *queue.Store has it. All
// methods may be called concurrently. They answer queue.ErrNotFound for what is
// not there (any more) and queue.ErrStopped after the store has stopped.
type Store interface {
	StoreID() uint64 // 0 = the store is not open yet
	LaneName(queue.Lane) string
	// Lanes and Stats are made from counters and read no rows.
	Lanes() iter.Seq2[queue.Lane, queue.LaneStats]
	Stats() queue.Stats
	// OldestAccepted is the acceptance of the oldest delivery that waits for its
	// first attempt; zero = none. It costs one seek.
	OldestAccepted(queue.Lane) (time.Time, error)

	Summary(lane queue.Lane, seq uint64) (queue.Summary, error)
	Summaries(of []queue.Change) ([]queue.Summary, error)
	Attempts(lane queue.Lane, seq uint64) ([]delivery.Attempt, error)
	Event(seq uint64) (queue.EventRecord, error)
	FindEvent(id string) ([]queue.EventRecord, error)
	// List returns the newest rows first. A page that is shorter than the limit
	// and has a next cursor came to the end of the work that one call does. A
	// cursor that is not one of List's is queue.ErrBadCursor.
	List(queue.ListQuery) (rows []queue.Summary, next string, err error)
	CountReplay(context.Context, queue.ReplayJob) (queue.ReplayJob, error)

	// Audit and Backup read the whole store beside its work, which takes minutes.
	// They answer a *queue.SpaceError when the disk became too full for that.
	Audit(context.Context, func(queue.AuditProgress)) (queue.Audit, error)
	Backup(ctx context.Context, w io.Writer, relay string) (backup.Footer, error)
	// Account looks up events by id, in the order of ids.
	Account(ids []string) ([]queue.Account, error)
}

// Dispatcher is what the API asks of the running lanes. All methods may be
// called concurrently.
type Dispatcher interface {
	InFlight(lane queue.Lane, seq uint64) bool
	// WaitsFor is the delivery under way that one in memory is kept behind, 0 =
	// none; what waits in the store is in its summary.
	WaitsFor(lane queue.Lane, seq uint64) uint64
	LaneState(queue.Lane) LaneState
	// Retry and Drop are durable on return. They answer ErrInFlight while the
	// delivery is being attempted, and the store's errors.
	Retry(ctx context.Context, lane queue.Lane, seq uint64) error
	Drop(ctx context.Context, lane queue.Lane, seq uint64) error
	// Test makes one attempt that is neither queued nor repeated; it returns when
	// that is over.
	Test(ctx context.Context, lane queue.Lane, o *delivery.Outbound) (delivery.Attempt, error)
	Replay(context.Context, queue.ReplayJob) (queue.ReplayJob, error)
	CancelReplay(ctx context.Context, id string) error
	Replays() []queue.ReplayJob
}

// LaneState is what a lane does at this moment.
type LaneState struct {
	InFlight int
	Hold     delivery.HoldReason // "" = attempts are made
	NextDue  time.Time           // of the earliest waiting delivery, wall clock; zero = none
	// HoldUntil is when the hold ends by itself, wall clock: the deliveries of a
	// removed webhook fail then, those of a rate-limited one go on. Zero = it
	// does not, or nobody knows when.
	HoldUntil time.Time
	// HoldWhy is what the sink says of a hold that it asked for, masked; "" = nothing.
	HoldWhy string
	// Attempts are those that are over since the start, Took is the time of all of
	// them. Attempts that the daemon itself cut short are not among them.
	Attempts uint64
	Took     time.Duration
}

// ErrInFlight is what Dispatcher.Retry and Drop answer for a delivery that is
// being attempted.
var ErrInFlight = errors.New("delivery is in flight")

// Catalog is the running configuration as it may be shown. It is immutable and
// replaced as a whole.
type Catalog struct {
	Helpers  []rest.Helper // in the order in which they are listed
	Webhooks []Webhook
}

// Webhook is one configured webhook. Of Shown, the fields that tell its state
// are filled in by the API: State, HeldReason, HeldText, Counts, NextAttemptAt
// and Last; the others come from the configuration, with references unexpanded
// and literal secrets masked. Lists may be nil.
type Webhook struct {
	Lane  queue.Lane
	Shown rest.Webhook
}

// Options are what the API works with. Every field is required unless it says
// otherwise.
type Options struct {
	Store      Store
	Dispatcher Dispatcher
	Control    Control
	Feed       *Feed
	Catalog    func() *Catalog
	// Status gives what only the composition root knows; State, Ingest, Webhooks,
	// Replays and the counters of Queue are filled in by the API. Reasons of the
	// root make the state degraded.
	Status func() rest.Status
	// Ingest counts what came in. Its Rejected has one element for every reason
	// there is, those at 0 included.
	Ingest func() rest.Ingest
	// AcceptedBy counts the events that came in for each helper, all that are
	// configured included.
	AcceptedBy func() map[string]int64
	// Timings is told by whoever does the work; the API only shows it.
	Timings *Timings
	// Sample makes the sample that a test of a webhook sends. eventType "" is the
	// first type that the webhook takes. Its error is shown to the client as a
	// bad request.
	Sample func(webhook, eventType string) (*delivery.Outbound, error)
	// RequestHeaders is the complete list of headers of an attempt in the order
	// in which the http sink sends them.
	RequestHeaders func(o *delivery.Outbound, signatures, own []delivery.Header) []delivery.Header
	// Ready says why the daemon is not ready to take events; nil = it is.
	Ready func() error

	Registry *prometheus.Registry // the API registers its collector; served as /metrics
	Logger   *slog.Logger         // nil discards
	Now      func() time.Time     // nil = time.Now
}

// API serves the admin routes.
type API struct {
	Options

	tests chan struct{} // one element for every test under way
	plans chan struct{} // one element for every plan that is being made
	// wholes has one element while an audit or a backup is under way.
	wholes  chan struct{}
	ending  context.Context // ends with Shutdown
	end     context.CancelFunc
	scraper http.Handler
	mux     *http.ServeMux
	srv     *http.Server
	metrics *http.Server
	full    atomic.Int64 // see Full
}

// maxTests is how many tests may be under way at once: each holds a connection
// to a receiver for up to the attempt's timeout.
const maxTests = 8

// New returns the API over o and registers its metrics.
func New(o Options) (*API, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	a := &API{Options: o, tests: make(chan struct{}, maxTests), plans: make(chan struct{}, maxPlans), wholes: make(chan struct{}, 1)}
	a.ending, a.end = context.WithCancel(context.Background())
	if err := o.Registry.Register(&collector{api: a}); err != nil {
		return nil, err
	}
	a.scraper = scraper(o.Registry)
	a.mux = a.routes()
	a.srv, a.metrics = a.server(), a.metricsServer()
	return a, nil
}

// Handler serves every route of the API. The server that it is given to must
// not have a WriteTimeout: the handler sets its own deadline for every write.
func (a *API) Handler() http.Handler { return a.guard(a.mux) }

// webhook finds a webhook by its id: a configured one, or one that left the
// configuration and still has a lane.
func (a *API) webhook(id string) (Webhook, bool) {
	for _, w := range a.Catalog().Webhooks {
		if w.Shown.ID == id {
			return w, true
		}
	}
	for lane, stats := range a.Store.Lanes() {
		if stats.Webhook == id {
			return removed(lane, id), true
		}
	}
	return Webhook{}, false
}

// webhookOf finds the webhook of a lane, configured or not.
func (a *API) webhookOf(lane queue.Lane) Webhook {
	for _, w := range a.Catalog().Webhooks {
		if w.Lane == lane {
			return w
		}
	}
	return removed(lane, a.Store.LaneName(lane))
}
