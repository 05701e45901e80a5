package queue

import (
	"errors"
	"fmt"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
)

// Lane numbers the deliveries of one webhook. Numbers start at 1, are given
// out in ascending order, are durable before [Store.SetLanes] returns and
// never stand for another webhook.
type Lane uint32

// Format selects which of an event's payloads a delivery sends.
type Format uint8

const (
	FormatPeanuts Format = 0
	FormatEvent   Format = 1
	numFormats           = 2
)

// Event is handed to [Store.Accept], which fills the fields after the comment
// "answer". An Event is owned by the store from the call until it returns.
type Event struct {
	ID             string   // the sender's; "" lets the store generate one
	IdempotencyKey string   // "" = none; unique per Helper for 24 h
	BodyHash       [16]byte // of the sender's bytes; tells a repeat from a conflict

	Helper    string
	Type      string // "entry.created"
	EntryID   string
	Timestamp time.Time
	Unstable  bool // some number could not be written so that JavaScript keeps it

	// Payloads holds the bytes for each Format that Deliveries use, nil for the
	// others. The store keeps references to them until the deliveries are done;
	// they must not be modified after Accept returns.
	Payloads [numFormats][]byte
	// IDAt is the offset in Payloads[FormatEvent] of id.EventLen bytes that the
	// store overwrites with the generated id; 0 when ID is the sender's.
	IDAt int

	Deliveries []NewDelivery
	Skipped    []Skip

	// answer
	Seq       uint64
	Duplicate bool  // Deliveries, Skipped, ID and Seq are those of the first
	Err       error // ErrKeyReused, *QuotaError; nil = durable
}

// NewDelivery asks for one delivery of an event.
type NewDelivery struct {
	Lane   Lane
	Format Format
}

// Skip records that a webhook got no delivery of an event, and why.
type Skip struct {
	Lane   Lane
	Reason delivery.SkipReason
}

// Track is the order in which a lane finds a pending delivery.
type Track uint8

const (
	// Ready rows wait for their first attempt, in the order of acceptance.
	Ready Track = 1
	// Waiting rows wait for the time of a retry.
	Waiting Track = 2
	// Returning rows are due now but stand outside the order of acceptance:
	// retried or replayed by an operator.
	Returning Track = 3
	// Following rows wait for an earlier delivery of their entry, in a lane that
	// is ordered. Dispatch never sees one: it is Waiting when it is called.
	Following Track = 4

	numTracks = 4
)

// Delivery is a pending delivery as the dispatcher sees it: everything that an
// attempt needs. It is a value; Payload and the strings are shared and must
// not be modified.
type Delivery struct {
	Lane     Lane
	Seq      uint64
	Track    Track
	Due      int64 // Waiting: relay time in ms (see [Store.Now]), part of the row's key
	Attempts int   // attempts made so far, over all schedules
	Tries    int   // attempts made in the schedule under way; 0 at first, after a retry and a replay
	Crashes  int   // times that a sink's process died while it had the delivery; 0 after a retry and a replay
	Replay   bool  // came from a replay: yields to live traffic
	Format   Format

	EventID   string
	EventType string
	EntryID   string
	Helper    string
	Accepted  time.Time // wall clock
	Unstable  bool
	Payload   []byte

	ref    payloadRef
	charge uint32 // live bytes that the delivery counts for
}

// payloadRef says in which bucket the event's record is.
type payloadRef struct {
	class uint8
	day   uint16
}

// current is the class that a copy of the record gets.
func (r payloadRef) current() uint8 {
	if r.class <= formerFailed {
		return r.class - formerAccepted + eventAccepted
	}
	return r.class
}

// Completion is what became of an attempt, handed to [Store.Complete].
type Completion struct {
	Delivery Delivery
	Attempt  *delivery.Attempt // Attempt.State, .NextIn and .Rule decide where the delivery goes
	// Sink names whose Attempt.EntryState is, see [Store.EntryState]; "" keeps
	// nothing.
	Sink string
	// Ordered says that later deliveries of the entry must not overtake this one
	// while it waits for a retry.
	Ordered bool

	at int64 // relay time of Complete; the time to a next attempt counts from it
}

// Summary is one row of the delivery log's listing.
type Summary struct {
	ID         string // del_…
	Lane       Lane
	Seq        uint64
	EventID    string
	EventType  string
	EntryID    string
	State      delivery.State
	Attempts   int
	StatusCode int // of the last attempt; 0 = no response yet
	Code       delivery.Code
	Error      string
	Accepted   time.Time
	Finished   time.Time // zero while pending
	Next       time.Time // wall clock; zero when due now or finished
	Unstable   bool
	WaitsFor   uint64 // the delivery of the same lane and entry that must end first; 0 = none
}

// EventRecord is one accepted event as it is kept.
type EventRecord struct {
	ID         string
	Seq        uint64
	Helper     string
	Type       string
	EntryID    string
	Timestamp  time.Time
	Accepted   time.Time
	Unstable   bool
	Payloads   [numFormats][]byte
	Deliveries []NewDelivery
	Skipped    []Skip
}

// ErrKeyReused answers an idempotency key that came with another body.
var ErrKeyReused = errors.New("idempotency key was used with another body")

// ErrStopped answers every call after the store met a storage error or was
// closed. Nothing that was acknowledged is lost; the process must end and open
// the store anew.
var ErrStopped = errors.New("queue is stopped")

// ErrNotFound answers a look-up of an id that the store does not have (any
// more).
var ErrNotFound = errors.New("not found")

// ErrBadCursor answers a listing whose cursor was not given out by one.
var ErrBadCursor = errors.New("not a cursor of a listing")

// ErrPayloadExpired answers a retry or replay of a delivery whose payload was
// let go by retention.
var ErrPayloadExpired = errors.New("payload expired")

// ErrNotFinished answers an operation on a pending delivery that only a
// finished one allows.
var ErrNotFinished = errors.New("delivery is not finished")

// SpaceError says that the disk has too little room (or too few inodes or
// descriptors are left) to accept anything safely.
type SpaceError struct {
	What string // "disk space", "inodes", "file descriptors"
	Path string
	Free int64
	Need int64
}

func (e *SpaceError) Error() string {
	return fmt.Sprintf("too little %s for %s: %d left, %d needed", e.What, e.Path, e.Free, e.Need)
}

// QuotaError says that live bytes reached a limit of the configuration.
type QuotaError struct {
	Helper string // "" = the whole queue
	Live   int64
	Max    int64
}

func (e *QuotaError) Error() string {
	if e.Helper != "" {
		return fmt.Sprintf("queue of helper %q holds %d bytes, the limit is %d", e.Helper, e.Live, e.Max)
	}
	return fmt.Sprintf("queue holds %d bytes, the limit is %d", e.Live, e.Max)
}

// FormatError says why the data directory cannot be opened: it is of a newer
// format, damaged, or not a store at all. File names what to look at, Remedy
// what to do.
type FormatError struct {
	File   string
	What   string
	Remedy string

	newer bool // there is nothing to repair
}

func (e *FormatError) Error() string { return fmt.Sprintf("%s: %s; %s", e.File, e.What, e.Remedy) }
