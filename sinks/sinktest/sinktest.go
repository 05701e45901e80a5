package sinktest

import (
	"context"
	"net/http"
	"regexp"
	"time"

	"google.golang.org/grpc"

	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
	"github.com/peanutsapp/peanuts-relay/sinks"
)

// Options say what the suite cannot know of a sink. The zero value runs the checks that
// make no delivery.
//
// The struct is long because each field is one thing that only an author knows.
type Options struct {
	// Settings are good settings: a map, a struct, or JSON as []byte or
	// json.RawMessage. Not the sink's own settings type: a [sinks.Secret] encodes as a
	// mask. remote is where the suite's own HTTP server is, such as
	// "http://127.0.0.1:41873"; a sink that talks to a service has to be pointed there.
	// nil is none: no delivery is made, because nobody said where to.
	Settings func(remote string) any
	// Offline says why the sink talks to no HTTP server that its settings name. The
	// checks that need one are skipped with this reason. "" = it does.
	Offline string
	// Remote plays the service while all is well; nil answers 200 and {}. The faults
	// that the suite plays come before it.
	Remote http.Handler
	// Untouched are requests that no fault befalls and nothing counts, such as those
	// for an access token; nil = none.
	Untouched func(*http.Request) bool
	// Faults are answers of the service that this sink takes otherwise than most, and
	// further ones that the suite does not know, by name. See [Fault].
	Faults map[string]Fault
	// Bad are settings that the schema cannot refuse and the sink has to.
	Bad []BadSettings
	// Secrets are values that must not be seen in any log, message or error, besides
	// those of the settings that the schema marks with writeOnly.
	Secrets []string
	// Adapt changes a delivery before it is made, for a sink that carries only certain
	// data; nil leaves them as they are. Its id, and what a check is about, must stay.
	Adapt func(d *sinks.Delivery)
	// Arrived says what is wrong with how a delivery reached the service; got are the
	// requests that the suite's server has had since the delivery began, in order. nil
	// looks only for numbers and texts that were changed on the way. See [Verbatim].
	Arrived func(d *sinks.Delivery, got []Request) error
	// Effects counts what a delivery has brought about at the service, for a sink that
	// is Idempotent: 1 however often it was sent. nil counts requests: those that carry
	// the delivery's id, or are PUT or DELETE and the same, are one effect together.
	Effects func(d *sinks.Delivery) (int, error)
	// Panic changes a delivery so that the sink panics over it; nil = not known how.
	Panic func(d *sinks.Delivery)
	// Skip are checks that do not apply, by name, and why not.
	Skip map[string]string
	// Only runs the checks whose names match; nil = all.
	Only *regexp.Regexp
	// Patience is added to every time limit, for slow machines; 0 = 4 s.
	Patience time.Duration
	// Logs is all that the sink has logged so far, for [Check]; nil = not known. [Run]
	// and [RunBinary] see to it themselves.
	Logs func() string
}

// Fault is an answer of the service that is not a success. The suite knows these names:
// 400, 401, 403, 404, 408, 410, 429, 500, 502, 503, 504; redirect (307); garbage (an
// answer that is not HTTP), closed (the connection ends without an answer) and refused
// (nothing listens).
type Fault struct {
	Status int         // of the answer; 0 = that of the suite's own fault of this name
	Header http.Header // added to the answer
	Body   string      // "" = a short JSON object
	// Want are the right outcomes, any of them; nil = the suite's own expectation.
	Want []sinks.Outcome
	// Pause is the retry_after that the sink has to answer; 0 = any.
	Pause time.Duration
}

// BadSettings are settings with one mistake.
type BadSettings struct {
	Name string // what is wrong, for the report
	// Settings, as in [Options].
	Settings func(remote string) any
	// Path is where a diagnostic has to point, a JSON Pointer; "" = anywhere.
	Path string
}

// Request is one request as the suite's server got it.
type Request struct {
	Method string
	Path   string // with the query
	Header http.Header
	Body   []byte
}

// Status is how a check ended.
type Status int

const (
	Passed Status = iota + 1
	Failed
	Skipped
)

func (s Status) String() string {
	switch s {
	case Passed:
		return "pass"
	case Failed:
		return "fail"
	case Skipped:
		return "skip"
	}
	return "unknown"
}

// Result is what came of one check.
type Result struct {
	Check  string // its name
	Why    string // what it is about, and what goes wrong in the relay without it
	Status Status
	// Details are what is wrong, or the one reason why it was skipped.
	Details []string
	Took    time.Duration
}

// Info describes a check.
type Info struct {
	Name, Why string
	Binary    bool // of a program only, not in process
}

// Checks lists all checks, in the order in which they run. The faults that Options add
// are not among them.
func Checks() []Info {
	s := &suite{binary: &binary{}}
	var list []Info
	for _, c := range s.checks() {
		list = append(list, Info{c.name, c.why, c.binary})
	}
	return list
}

// Check runs the suite against a sink that runs already, behind a connection to its gRPC
// server, and reports each check when it has ended. The sink is drained at the end: it
// cannot be used afterwards. The connection has to let messages of 32 MiB through, and
// answers of 4 MiB; the caller closes it.
//
// [Run] and [RunBinary] are what tests call. Check returns when all checks have been
// reported, or ctx has ended.
func Check(ctx context.Context, conn grpc.ClientConnInterface, o Options, report func(Result)) error {
	s, err := newSuite(o)
	if err != nil {
		return err
	}
	defer s.close()
	s.client = sinkpb.NewSinkClient(conn)
	return s.all(ctx, report)
}

// CheckBinary runs the suite against a program, which it starts as the relay does, with
// all that only a process can do wrong. See [Check].
func CheckBinary(ctx context.Context, path string, o Options, report func(Result)) error {
	s, err := newSuite(o)
	if err != nil {
		return err
	}
	defer s.close()
	if s.binary, err = newBinary(path, s.patience()); err != nil {
		return err
	}
	return s.all(ctx, report)
}

func (s *suite) all(ctx context.Context, report func(Result)) error {
	for _, c := range s.checks() {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if s.o.Only == nil || s.o.Only.MatchString(c.name) {
			report(s.run(ctx, c))
		}
	}
	return nil
}
