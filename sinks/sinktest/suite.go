package sinktest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
	"github.com/peanutsapp/peanuts-relay/sinks"
)

// checkTimeout ends a check whose sink answers nothing.
const checkTimeout = 2 * time.Minute

// check is one rule of the contract.
type check struct {
	name   string
	why    string
	run    func(*probe)
	binary bool
}

// suite is one run against one sink.
type suite struct {
	o      Options
	remote *remote
	client sinkpb.SinkClient // in process; else binary has it
	binary *binary           // nil in process

	heard    transcript
	samples  int
	sequence uint64
	opened   int

	described *sinkpb.DescribeResponse // nil before the first use
	good      map[string]any           // the settings; nil before the first use
}

func newSuite(o Options) (*suite, error) {
	r, err := newRemote(o)
	if err != nil {
		return nil, err
	}
	return &suite{o: o, remote: r}, nil
}

func (s *suite) close() {
	if s.binary != nil {
		s.binary.close()
	}
	s.remote.close()
}

func (s *suite) patience() time.Duration { return cmp.Or(s.o.Patience, 4*time.Second) }

// probe is one check under way.
type probe struct {
	*suite
	ctx      context.Context
	failures []string
	skipped  string
}

// finished unwinds a check that goes no further.
type finished struct{}

// run runs one check.
func (s *suite) run(ctx context.Context, c check) Result {
	start := time.Now()
	result := Result{Check: c.name, Why: c.why, Status: Passed}
	if why := s.o.Skip[c.name]; why != "" {
		result.Status, result.Details = Skipped, []string{why}
		return result
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout+s.patience())
	defer cancel()
	p := &probe{suite: s, ctx: ctx}
	p.play(c.run)
	p.stillAlive(c)
	result.Took = time.Since(start)
	switch {
	case len(p.failures) > 0:
		result.Status, result.Details = Failed, p.failures
	case p.skipped != "":
		result.Status, result.Details = Skipped, []string{p.skipped}
	}
	return result
}

func (p *probe) play(f func(*probe)) {
	defer p.remote.calm()
	defer func() {
		if v := recover(); v != nil && v != any(finished{}) {
			panic(v)
		}
	}()
	f(p)
}

func (p *probe) failf(format string, args ...any) {
	const most = 20
	if text := fmt.Sprintf(format, args...); len(p.failures) < most && !slices.Contains(p.failures, text) {
		p.failures = append(p.failures, text)
	}
}

// fatalf fails the check and ends it.
func (p *probe) fatalf(format string, args ...any) {
	p.failf(format, args...)
	panic(finished{})
}

// skipf ends the check as one that does not apply.
func (p *probe) skipf(format string, args ...any) {
	p.skipped = fmt.Sprintf(format, args...)
	panic(finished{})
}

// api is the sink's service. A program that has ended is started anew.
func (p *probe) api() sinkpb.SinkClient {
	if p.binary == nil {
		return p.client
	}
	proc, err := p.binary.running()
	p.started(err)
	return proc.client
}

// started ends the check when the program did not start.
func (p *probe) started(err error) {
	switch {
	case errors.Is(err, errNever):
		p.skipf("the sink does not start, see above")
	case err != nil:
		p.fatalf("the sink does not start: %v", err)
	}
}

// stillAlive fails a check in which the sink's process ended.
func (p *probe) stillAlive(c check) {
	if p.binary == nil || c.binary || p.binary.now == nil {
		return
	}
	// A process that dies closes its socket before it can be waited for.
	ctx, cancel := context.WithTimeout(p.ctx, healthWithin+p.patience())
	defer cancel()
	if _, err := p.binary.now.client.Health(ctx, &sinkpb.HealthRequest{}); isRefusal(err, codes.Unavailable) {
		p.binary.now.within(endWithin + p.patience())
	}
	if ended := p.binary.ended(); ended != "" {
		p.failf("the sink's process ended: %s", ended)
	}
}

// describe asks once for all checks.
func (p *probe) describe() *sinkpb.DescribeResponse {
	if p.described != nil {
		return p.described
	}
	d, err := p.api().Describe(p.ctx, &sinkpb.DescribeRequest{})
	if err != nil {
		p.fatalf("Describe: %v", p.told(err))
	}
	p.described = d
	return d
}

func (p *probe) capabilities() *sinkpb.Capabilities {
	if c := p.describe().GetCapabilities(); c != nil {
		return c
	}
	return &sinkpb.Capabilities{}
}

// settings are the good ones, as a copy.
func (p *probe) settings() map[string]any {
	if p.good == nil {
		settings, err := asObject(p.o.Settings, p.remote.url)
		if err != nil {
			p.fatalf("the good settings: %v", err)
		}
		p.good = settings
	}
	return clone(p.good).(map[string]any)
}

// asObject makes a JSON object of what Options have for settings. Numbers stay as they
// are written.
func asObject(settings func(string) any, remote string) (map[string]any, error) {
	if settings == nil {
		return map[string]any{}, nil
	}
	v := settings(remote)
	text, isText := v.([]byte)
	if !isText {
		var err error
		if text, err = json.Marshal(v); err != nil {
			return nil, err
		}
	}
	dec := json.NewDecoder(strings.NewReader(string(text)))
	dec.UseNumber()
	var object map[string]any
	if err := dec.Decode(&object); err != nil {
		return nil, fmt.Errorf("must be a JSON object: %w", err)
	}
	if object == nil {
		return nil, errors.New("must be a JSON object")
	}
	return object, nil
}

func clone(v any) any {
	switch v := v.(type) {
	case map[string]any:
		m := make(map[string]any, len(v))
		for key, value := range v {
			m[key] = clone(value)
		}
		return m
	case []any:
		list := make([]any, len(v))
		for i, value := range v {
			list[i] = clone(value)
		}
		return list
	}
	return v
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("encode settings: %v", err)) // they came out of JSON
	}
	return b
}

// instance is a configured sink.
type instance struct {
	p  *probe
	id string
}

// open configures an instance with the good settings. Close it with close.
func (p *probe) open() *instance { return p.openWith(p.settings()) }

func (p *probe) openWith(settings map[string]any) *instance {
	if p.o.Settings == nil {
		p.skipf("no settings were given, so that nothing is sent anywhere")
	}
	i := p.newInstance()
	diagnostics, err := i.configure(encode(settings))
	switch {
	case err != nil:
		p.fatalf("Configure with the good settings: %v", err)
	case len(diagnostics) > 0:
		p.fatalf("Configure refuses the good settings: %s", list(diagnostics))
	}
	return i
}

func (p *probe) newInstance() *instance {
	p.opened++
	return &instance{p, fmt.Sprintf("instance-%d", p.opened)}
}

// configure returns the errors among the diagnostics.
func (i *instance) configure(settings []byte) ([]*sinkpb.Diagnostic, error) {
	answer, err := i.p.api().Configure(i.p.ctx, &sinkpb.ConfigureRequest{
		Instance: i.id, Webhook: sampleWebhook, SettingsJson: settings, HostVersion: "0.0.0-sinktest",
	})
	return i.p.errorsIn(answer.GetDiagnostics()), i.p.told(err)
}

func (i *instance) close() {
	if _, err := i.p.api().Close(i.p.ctx, &sinkpb.CloseRequest{Instance: i.id}); err != nil {
		i.p.failf("Close: %v", i.p.told(err))
	}
}

// errorsIn leaves warnings out, and remembers all texts.
func (p *probe) errorsIn(diagnostics []*sinkpb.Diagnostic) (wrong []*sinkpb.Diagnostic) {
	for _, d := range diagnostics {
		p.heard.note("a diagnostic", d.GetSummary(), d.GetDetail(), d.GetPath())
		if d.GetSeverity() != sinkpb.Severity_SEVERITY_WARNING {
			wrong = append(wrong, d)
		}
	}
	return wrong
}

func list(diagnostics []*sinkpb.Diagnostic) string {
	var texts []string
	for _, d := range diagnostics {
		texts = append(texts, strings.TrimSpace(fmt.Sprintf("%s %s", d.GetPath(), d.GetSummary())))
	}
	return strings.Join(texts, "; ")
}

// send makes one call of Deliver. A missing result reads as a retry, as in the relay.
func (i *instance) send(ctx context.Context, ds ...*sinks.Delivery) (*sinkpb.DeliverResponse, error) {
	request := &sinkpb.DeliverRequest{Instance: i.id}
	for _, d := range ds {
		request.Deliveries = append(request.Deliveries, wire(d))
	}
	answer, err := i.p.api().Deliver(ctx, request)
	for _, r := range answer.GetResults() {
		i.p.heard.note("the result of a delivery", r.GetMessage(), r.GetCode(), r.GetRemoteUrl())
	}
	return answer, i.p.told(err)
}

// deliver makes one delivery and returns its result. A call that fails counts as a
// retry.
func (i *instance) deliver(ctx context.Context, d *sinks.Delivery) *sinkpb.Result {
	answer, err := i.send(ctx, d)
	if err != nil {
		return &sinkpb.Result{DeliveryId: d.ID, Outcome: sinkpb.Outcome_OUTCOME_RETRY, Message: err.Error()}
	}
	return resultOf(answer, d)
}

func resultOf(answer *sinkpb.DeliverResponse, d *sinks.Delivery) *sinkpb.Result {
	for _, r := range answer.GetResults() {
		if r.GetDeliveryId() == d.ID {
			return r
		}
	}
	return &sinkpb.Result{DeliveryId: d.ID, Outcome: sinkpb.Outcome_OUTCOME_RETRY, Message: "there is no result for the delivery"}
}

// succeed makes one delivery that has to succeed.
func (i *instance) succeed(d *sinks.Delivery) *sinkpb.Result {
	r := i.deliver(i.p.ctx, d)
	if !success(r) {
		i.p.fatalf("the delivery of %s was to succeed: %s", d.Event, say(r))
	}
	return r
}

func success(r *sinkpb.Result) bool {
	return r.GetOutcome() == sinkpb.Outcome_OUTCOME_DELIVERED || r.GetOutcome() == sinkpb.Outcome_OUTCOME_SKIPPED
}

// say is a result for people.
func say(r *sinkpb.Result) string {
	text := "the outcome is " + outcome(r).String()
	if r.GetCode() != "" {
		text += ", code " + r.GetCode()
	}
	if r.GetMessage() != "" {
		text += fmt.Sprintf(", message %q", short(r.GetMessage(), 300))
	}
	return text
}

// outcome is that of a result; no outcome is a retry.
func outcome(r *sinkpb.Result) sinks.Outcome {
	if r.GetOutcome() <= 0 || r.GetOutcome() > sinkpb.Outcome_OUTCOME_MISCONFIGURED {
		return sinks.OutcomeRetry
	}
	return sinks.Outcome(r.GetOutcome())
}

func short(s string, most int) string {
	if runes := []rune(s); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return s
}

// told remembers the text of an error and returns it.
func (p *probe) told(err error) error {
	if err != nil {
		p.heard.note("the error of a call", err.Error())
	}
	return err
}

// isRefusal reports whether err is that of a call which the sink itself refused.
func isRefusal(err error, allowed ...codes.Code) bool {
	return slices.Contains(allowed, status.Code(err))
}

// transcript is every text that the sink gave out, by where it stood. It is safe for
// concurrent use.
type transcript struct {
	mu    sync.Mutex
	texts map[string][]string // guarded by mu
}

func (t *transcript) note(where string, texts ...string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.texts == nil {
		t.texts = map[string][]string{}
	}
	t.texts[where] = append(t.texts[where], texts...)
}

func (t *transcript) all() map[string][]string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.texts)
}
