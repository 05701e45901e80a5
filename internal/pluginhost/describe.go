package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/secret"
	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
	"github.com/peanutsapp/peanuts-relay/sinks"
)

// Bounds of what a plugin may say of itself.
const (
	maxBatch       = 1000
	maxBatchBytes  = 3 << 20
	maxConcurrency = 1024
	maxBurst       = 10_000
	maxEvents      = 256
	maxName        = 63
	maxAbout       = 300     // bytes of version, summary and homepage each
	describeSize   = 1 << 20 // bytes of the answer
	linger         = 100 * time.Millisecond
)

// Description is what a plugin says of itself, cleaned and bounded.
type Description struct {
	Name, Version, Summary, Homepage string
	Schema                           []byte // JSON Schema of the settings; empty = it takes none. Not to be modified
	Capabilities                     sinks.Capabilities
}

// about is a description and what follows from it.
type about struct {
	Description
	schema *settingsSchema
	limits delivery.Limits
}

func (b *binary) describe(ctx context.Context, r *run) (*about, error) {
	ctx, cancel := context.WithTimeout(ctx, b.host.times.Describe)
	defer cancel()
	d, err := r.child.Client().Describe(ctx, &sinkpb.DescribeRequest{}, bounded(describeSize, 64)...)
	if err != nil {
		return nil, b.callError(r, "its description", err)
	}
	// Compared as it came: a webhook's secret may contain the name, and would mask it.
	if d.GetName() != b.file.Sink {
		return nil, fmt.Errorf("it calls itself %q, but the file is configured as the plugin of sink %s: use that name, or the right file", b.text(d.GetName(), maxName), b.file.Sink)
	}
	a := &about{Description: Description{
		Name:         b.file.Sink,
		Version:      b.text(d.GetVersion(), maxAbout),
		Summary:      b.text(d.GetSummary(), maxAbout),
		Homepage:     b.text(d.GetHomepage(), maxAbout),
		Schema:       d.GetSettingsSchema(),
		Capabilities: capabilities(d.GetCapabilities()),
	}}
	if a.schema, err = compileSchema(a.Schema); err != nil {
		return nil, fmt.Errorf("the JSON Schema of its settings cannot be used: %s", b.text(err.Error(), maxWords))
	}
	a.limits = limits(a.Capabilities)
	return a, nil
}

// capabilities are what a plugin can do, as far as the host goes along with it.
func capabilities(c *sinkpb.Capabilities) sinks.Capabilities {
	out := sinks.Capabilities{
		MaxBatch:        int(min(max(c.GetMaxBatch(), 1), maxBatch)),
		MaxBatchBytes:   int(min(c.GetMaxBatchBytes(), maxBatchBytes)),
		MaxConcurrency:  int(min(c.GetMaxConcurrency(), maxConcurrency)),
		OrderedPerEntry: c.GetOrderedPerEntry() || c.GetUsesState(),
		Idempotent:      c.GetIdempotent(),
		UsesState:       c.GetUsesState(),
		Burst:           int(min(c.GetBurst(), maxBurst)),
	}
	if rate := c.GetMaxPerSecond(); rate > 0 && !math.IsInf(rate, 1) {
		out.MaxPerSecond = rate
	}
	isType := eventType()
	for _, name := range c.GetEvents() {
		if len(out.Events) < maxEvents && len(name) <= 128 && isType.MatchString(name) && !slices.Contains(out.Events, name) {
			out.Events = append(out.Events, name)
		}
	}
	return out
}

var eventType = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z0-9_]+(\.[a-z0-9_]+)+$`) })

// limits are the capabilities as the dispatcher reads them.
func limits(c sinks.Capabilities) delivery.Limits {
	l := delivery.Limits{
		Concurrency: c.MaxConcurrency,
		Batch:       c.MaxBatch,
		BatchBytes:  c.MaxBatchBytes,
		PerSecond:   c.MaxPerSecond,
		Burst:       c.Burst,
		Ordered:     c.OrderedPerEntry,
		State:       c.UsesState,
	}
	if l.Batch > 1 {
		l.Linger = linger
	}
	return l
}

// Plugin is a plugin that runs, or is about to, for as long as it is not released. It is
// safe for concurrent use.
type Plugin struct {
	b     *binary
	about Description
	once  sync.Once
}

// Description is what the plugin said of itself when it was inspected.
func (p *Plugin) Description() Description { return p.about }

// Validate checks the settings of one webhook, a JSON object with its secrets in clear:
// against the schema, and when that finds no error by asking the plugin. online allows it
// to ask the remote side. secrets are masked in whatever the plugin says from now on.
//
// An error says that the plugin could not be asked.
func (p *Plugin) Validate(ctx context.Context, settings []byte, secrets []secret.String, online bool) ([]Diagnostic, error) {
	r := p.b.serving()
	if r == nil {
		p.b.mu.Lock()
		defer p.b.mu.Unlock()
		return nil, p.b.down()
	}
	p.b.hide(secrets)
	found := r.about.schema.check(settings)
	if hasError(found) {
		return found, nil
	}
	ctx, cancel := context.WithTimeout(ctx, p.b.host.times.Validate)
	defer cancel()
	resp, err := r.child.Client().Validate(ctx, &sinkpb.ValidateRequest{SettingsJson: settings, Online: online}, bounded(diagnosticsSize, maxDiagnostics)...)
	if err != nil {
		if isUnknownCall(err) {
			return found, nil // it has nothing to say
		}
		if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.DeadlineExceeded) {
			return nil, cause
		}
		return nil, fmt.Errorf("sink plugin %s: %w", p.b.file.Sink, p.b.callError(r, "the check of the settings", err))
	}
	return append(found, p.b.diagnostics(resp.GetDiagnostics())...), nil
}

// Release lets go of the plugin. Its process ends soon, unless somebody else has use for
// it.
func (p *Plugin) Release() { p.once.Do(p.b.release) }
