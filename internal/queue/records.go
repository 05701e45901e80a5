package queue

import (
	"errors"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
)

// ChangeKind says what made a delivery change.
const (
	ChangeAccepted = "accepted" // a new delivery
	ChangeAttempt  = "attempt"  // an attempt was recorded
	ChangeRequeued = "requeued" // retried or replayed
	ChangeDropped  = "dropped"  // discarded by the operator
)

// Change is one change of a delivery's state that a commit made durable.
type Change struct {
	Lane       Lane
	Seq        uint64
	State      delivery.State
	Attempts   int // made so far, over all schedules
	StatusCode int // of the last attempt; 0 = no response
	Code       delivery.Code
	Next       time.Time // wall clock; zero when due now or finished
	Kind       string    // one of the Change constants
}

// LaneStats counts the deliveries of one lane.
type LaneStats struct {
	Webhook string
	// Pending deliveries by track; their sum is what is pending, in flight and
	// held included.
	Ready, Waiting, Returning int64
	LiveBytes                 int64 // what the pending ones count for
	Success, Failed           int64 // finished and not put back since
}

// Pending is how many deliveries of the lane are not finished.
func (s LaneStats) Pending() int64 { return s.Ready + s.Waiting + s.Returning }

// Stats says what the whole store holds.
type Stats struct {
	Events      int64 // accepted, ever
	Deliveries  int64 // accepted, ever = Success + Failed + Pending
	Success     int64
	Failed      int64
	Pending     int64
	LiveBytes   int64
	Groups      int64 // transactions, ever
	Quarantined int64 // rows that could not be believed, ever
	LastSeq     uint64

	DiskFree      int64  // bytes, at most a second old
	AcceptMark    int64  // below this many free bytes nothing is accepted
	DispatchMark  int64  // below this many outcomes may not find room: pause
	PauseDispatch bool   // DiskFree is below DispatchMark
	State         string // "ok", "no_space", "stopped"
}

// ListQuery selects rows of the delivery log.
type ListQuery struct {
	Lanes     []Lane           // empty = all
	States    []delivery.State // empty = all
	Since     time.Time        // accepted at or after; zero = no bound
	Until     time.Time        // accepted before; zero = no bound
	EventType string           // "" = all
	Limit     int              // at most this many rows
	Cursor    string           // of the page before; "" = from the newest
}

// ReplayJob puts finished deliveries of one lane back, at a rate, across
// restarts.
type ReplayJob struct {
	ID        string
	Lane      Lane
	States    []delivery.State
	Since     time.Time
	Until     time.Time
	EventType string
	Rate      float64 // deliveries a second; 0 = as many as the lane takes
	Cursor    uint64  // how far it came; owned by the store
	Matched   int64
	Requeued  int64
	Expired   int64 // their payload is gone
	Done      bool
	Started   time.Time
}

// ErrBadCursor answers a listing whose cursor was not given out by one.
var ErrBadCursor = errors.New("bad cursor")

// ErrDelivered answers a Drop of what was delivered.
var ErrDelivered = errors.New("was delivered")
