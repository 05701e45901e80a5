package sinktest_test

import (
	"bytes"
	"context"
	"net/http"
	"testing"

	"github.com/peanutsapp/peanuts-relay/sinks"
	"github.com/peanutsapp/peanuts-relay/sinks/sinktest"
)

type settings struct {
	URL sinks.URL `json:"url" description:"where to POST" required:"true"`
}

type sink struct {
	settings
	client *http.Client
}

func (s sink) Deliver(ctx context.Context, d *sinks.Delivery) (sinks.Receipt, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL.Reveal().String(), bytes.NewReader(d.Payload))
	if err != nil {
		return sinks.Receipt{}, err
	}
	for name, value := range d.Headers {
		req.Header.Set(name, value)
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return sinks.Receipt{}, err
	}
	defer resp.Body.Close()
	return sinks.FromResponse(resp)
}

var plugin = sinks.Plugin[settings]{
	Name: "acme", Version: "1.0.0", Summary: "forwards payloads",
	Open: func(_ context.Context, env sinks.Env, s settings) (sinks.Sink, error) {
		return sink{s, env.HTTP()}, nil
	},
}

// options are what the suite cannot know of a sink: settings that point to the suite's
// own server, and what has to arrive there.
func options() sinktest.Options {
	return sinktest.Options{
		Settings: func(remote string) any { return map[string]any{"url": remote + "/in"} },
		Arrived:  sinktest.Verbatim,
	}
}

// The test of a sink, in the package of the sink.
func ExampleRun() {
	_ = func(t *testing.T) { sinktest.Run(t, plugin.Server, options()) }
}
