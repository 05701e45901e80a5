// Package configtest runs the tests that a configuration file has: it makes of
// each test's event what the daemon would make of it, and compares that with
// what the test expects.
//
// Guarantee: a test passes exactly when the daemon, running this configuration,
// would refuse the event as the test expects, or would make the deliveries and
// requests that it expects. The code that reads, matches, encodes and signs is
// that of the daemon. Nothing is sent, stored or asked of the network, and
// nothing depends on the clock: the same configuration has always the same
// result. What is found names the test and stands at the line of the
// expectation; it never contains the value of a webhook's header, nor anything
// that a reference such as ${env:NAME} stood for.
package configtest

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/config"
	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/event"
)

const (
	// Code is that of all findings of this package.
	Code = "test_failed"
	// EventID is the id of an event that brings none.
	EventID = "evt_test"
	// DeliveryID is the id of every delivery, and so the webhook-id of the scheme
	// standard.
	DeliveryID = "del_test"
)

// Time is when all tests take place: events without a timestamp have it, and
// signatures of the scheme standard.
func Time() time.Time { return time.Date(2025, time.January, 1, 0, 0, 0, 0, time.UTC) }

// Run runs the tests of cfg and returns how many do not hold. It adds, with the
// given severity, what it finds to the report that [config.Load] gave out with
// cfg.
func Run(cfg *config.Config, report *config.Report, severity string) (failed int) {
	r := newRunner(cfg)
	for i := range cfg.Tests {
		r.failures = r.failures[:0]
		r.run(&cfg.Tests[i])
		if len(r.failures) > 0 {
			failed++
		}
		for _, f := range r.failures {
			message := fmt.Sprintf("the test %s does not hold: %s", quote(cfg.Tests[i].Name), f.message)
			report.Add(config.Finding{Severity: severity, Code: Code, Message: message, Suggestion: f.suggestion}, f.path...)
		}
	}
	return failed
}

// runner has the configuration as tests need it. Its run is the test under way.
type runner struct {
	cfg      *config.Config
	helpers  map[string]*helper
	failures []failure
}

type helper struct {
	event.Helper
	webhooks []*webhook
}

type webhook struct {
	config.Webhook
	takes map[string]bool
}

// failure is one expectation that was not met.
type failure struct {
	path                []string
	message, suggestion string
}

func newRunner(cfg *config.Config) *runner {
	r := &runner{cfg: cfg, helpers: make(map[string]*helper, len(cfg.Helpers))}
	for i := range cfg.Helpers {
		h := &cfg.Helpers[i]
		r.helpers[h.ID] = &helper{Helper: h.ForEvents()}
	}
	for _, w := range cfg.Webhooks() {
		h := r.helpers[w.Helper.ID]
		h.webhooks = append(h.webhooks, &webhook{w, w.Takes()})
	}
	return r
}

// Helper implements [event.Helpers].
func (r *runner) Helper(id string) *event.Helper {
	if h := r.helpers[id]; h != nil {
		return &h.Helper
	}
	return nil
}

// HelperIDs implements [event.Helpers].
func (r *runner) HelperIDs() []string {
	ids := make([]string, 0, len(r.helpers))
	for id := range r.helpers {
		ids = append(ids, id)
	}
	return ids
}

func (r *runner) fail(path []string, suggestion, format string, args ...any) {
	r.failures = append(r.failures, failure{path, fmt.Sprintf(format, args...), suggestion})
}

func (r *runner) run(t *config.Test) {
	in, err := event.Read([]byte(t.Event), Time(), r)
	if err != nil {
		r.refused(t, err)
		return
	}
	rejected := []string{"tests", t.Name, "expect", "rejected"}
	if t.Expect.Rejected != "" && t.Expect.Rejected != "false" {
		r.fail(rejected, "", "the event is taken")
		return
	}
	h := r.helpers[in.HelperID]
	if t.Expect.Webhooks != nil {
		r.compareWebhooks(t, in, h)
	}
	for i := range t.Expect.Deliveries {
		d := &t.Expect.Deliveries[i]
		path := []string{"tests", t.Name, "expect", "deliveries", d.Webhook}
		if why := r.absent(d.Webhook, in, h); why != "" {
			r.fail(path, "", "%s gets no delivery: %s", d.Webhook, why)
			continue
		}
		at := slices.IndexFunc(h.webhooks, func(w *webhook) bool { return w.ID == d.Webhook })
		r.compareRequest(t, d, in, h, h.webhooks[at], path)
	}
}

// refused compares the refusal of an event with what the test expects.
func (r *runner) refused(t *config.Test, err error) {
	e, ok := errors.AsType[*event.Error](err)
	if !ok {
		e = &event.Error{Code: event.CodeInvalidJSON, Message: err.Error(), Offset: -1}
	}
	message := e.Message
	if e.Offset >= 0 { // in JSON that nobody wrote
		message = strings.Replace(message, " (byte "+strconv.FormatInt(e.Offset, 10)+")", "", 1)
	}
	if r.cfg.Refers("tests", t.Name, "event") {
		message = e.Code
	}
	message = printable(message)
	switch expected := t.Expect.Rejected; expected {
	case "true", e.Code:
	case "", "false":
		r.fail(eventPath(t.Name, e.Field), "if that is right: expect: {rejected: "+e.Code+"}", "the event is refused: %s", message)
	default:
		r.fail([]string{"tests", t.Name, "expect", "rejected"}, "", "the event is refused with the code %s: %s", e.Code, message)
	}
}

// eventPath is where the file has a field of an event. What is below the data
// is one name, dots included.
func eventPath(test, field string) []string {
	path := []string{"tests", test, "event"}
	if name, ok := strings.CutPrefix(field, "entry.data."); ok {
		return append(path, "entry", "data", name)
	}
	if field == "" {
		return path
	}
	return append(path, strings.Split(field, ".")...)
}

// absent says why a webhook gets no delivery of an event; "" = it gets one.
func (r *runner) absent(id string, in *event.Input, h *helper) string {
	for _, w := range h.webhooks {
		if w.ID != id {
			continue
		}
		switch delivery.Skip(w.Enabled, w.takes, in.Type) {
		case 0:
			return ""
		case delivery.SkipDisabled:
			return "it is disabled"
		}
		return "its events do not include this one"
	}
	owner, _, _ := strings.Cut(id, ".")
	if owner != h.ID && r.has(id) {
		return "the event is one of the helper " + h.ID
	}
	var known []string
	for _, h := range r.helpers {
		for _, w := range h.webhooks {
			known = append(known, w.ID)
		}
	}
	slices.Sort(known)
	if meant := event.Suggest(id, known); meant != "" {
		return "there is no such webhook, did you mean " + meant + "?"
	}
	return "there is no such webhook"
}

func (r *runner) has(id string) bool {
	owner, _, _ := strings.Cut(id, ".")
	h := r.helpers[owner]
	return h != nil && slices.ContainsFunc(h.webhooks, func(w *webhook) bool { return w.ID == id })
}

// compareWebhooks compares who gets the event with who should.
func (r *runner) compareWebhooks(t *config.Test, in *event.Input, h *helper) {
	path := []string{"tests", t.Name, "expect", "webhooks"}
	for i, id := range t.Expect.Webhooks {
		if why := r.absent(id, in, h); why != "" {
			r.fail(append(path[:4:4], strconv.Itoa(i)), "", "%s gets no delivery: %s", printable(id), why)
		}
	}
	var more []string
	for _, w := range h.webhooks {
		if delivery.Skip(w.Enabled, w.takes, in.Type) == 0 && !slices.Contains(t.Expect.Webhooks, w.ID) {
			more = append(more, w.ID)
		}
	}
	if len(more) > 0 {
		r.fail(path, "", "the event goes to %s as well", strings.Join(more, ", "))
	}
}
