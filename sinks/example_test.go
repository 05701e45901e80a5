package sinks_test

import (
	"bytes"
	"context"
	"net/http"

	"github.com/peanutsapp/peanuts-relay/sinks"
)

type Config struct {
	URL   sinks.URL    `json:"url" description:"where to POST" required:"true"`
	Token sinks.Secret `json:"token" description:"API token of the account" required:"true"`
}

type acme struct {
	Config
	env sinks.Env
}

func (a acme) Deliver(ctx context.Context, d *sinks.Delivery) (sinks.Receipt, error) {
	req, err := http.NewRequestWithContext(ctx, "POST", a.URL.Reveal().String(), bytes.NewReader(d.Payload))
	if err != nil {
		return sinks.Receipt{}, err
	}
	req.Header.Set("Authorization", "Bearer "+a.Token.Reveal())
	req.Header.Set("Idempotency-Key", d.ID)
	resp, err := a.env.HTTP().Do(req)
	if err != nil {
		return sinks.Receipt{}, err
	}
	defer resp.Body.Close()
	return sinks.FromResponse(resp)
}

func open(_ context.Context, e sinks.Env, c Config) (sinks.Sink, error) { return acme{c, e}, nil }

// A whole sink: this, and main calling it.
func ExampleServe() {
	sinks.Serve(sinks.Plugin[Config]{Name: "acme", Version: "1.0.0", Open: open})
}
