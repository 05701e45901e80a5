package httpsink

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/secret"
	"github.com/peanutsapp/peanuts-relay/sinks"
)

// Settings are those of the http sink as a plugin would have them: what the file says
// at a webhook itself. Signatures come with each delivery.
type Settings struct {
	URL     sinks.URL               `json:"url" description:"where to POST the payload" required:"true"`
	Headers map[string]sinks.Secret `json:"headers" description:"headers that every request gets"`
}

// Plugin is the http sink behind the interface that plugins have. The daemon calls [Sink]
// without the detour; the suite that plugins have to pass is run on this.
func Plugin() sinks.Plugin[Settings] {
	return sinks.Plugin[Settings]{
		Name:     "http",
		Version:  "built-in",
		Summary:  "posts the payload to an HTTP endpoint",
		Homepage: "https://github.com/peanutsapp/peanuts-relay",
		Open:     open,
	}
}

func open(_ context.Context, _ sinks.Env, s Settings) (sinks.Sink, error) {
	o := Options{URL: secret.New(s.URL.Reveal().String())}
	for _, name := range slices.Sorted(maps.Keys(s.Headers)) {
		o.Headers = append(o.Headers, Header{name, secret.New(s.Headers[name].Reveal())})
	}
	sink, err := New(o)
	if err != nil {
		return nil, err
	}
	return adapter{sink}, nil
}

type adapter struct{ sink *Sink }

// Close implements io.Closer.
func (p adapter) Close() error {
	p.sink.Close()
	return nil
}

// Deliver implements [sinks.Sink].
func (p adapter) Deliver(ctx context.Context, d *sinks.Delivery) (sinks.Receipt, error) {
	o := delivery.Outbound{DeliveryID: d.ID, EventID: d.EventID, EventType: d.Event, EntryID: d.Entry.ID, Webhook: d.Webhook,
		Attempt: d.Attempt, Test: d.Test, Payload: d.Payload, Sequence: d.Sequence}
	var a delivery.Attempt
	for _, name := range slices.Sorted(maps.Keys(d.Headers)) {
		a.Signatures = append(a.Signatures, delivery.Header{Name: name, Value: d.Headers[name]})
	}
	p.sink.Deliver(ctx, &o, &a)
	receipt := sinks.Receipt{Status: a.Status}
	err := errors.New(a.Error)
	switch a.Outcome {
	case delivery.Delivered:
		return receipt, nil
	case delivery.Rejected:
		return receipt, sinks.Reject(string(a.Code), err)
	case delivery.Interrupted:
		return receipt, errors.Join(err, ctx.Err())
	}
	return receipt, sinks.Retry(string(a.Code), a.RetryAfter, err)
}
