package sinks_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/peanutsapp/peanuts-relay/sinks"
)

// settings of the sink that the test binary plays.
type settings struct {
	Token sinks.Secret `json:"token" description:"what the service gave you" required:"true"`
	Mode  string       `json:"mode" enum:"good,bad" default:"good"`
}

// played is a sink whose behaviour the deliveries choose.
var played = sinks.Plugin[settings]{
	Name: "played", Version: "1.2.3", Summary: "a sink for tests",
	Capabilities: sinks.Capabilities{Idempotent: true, MaxConcurrency: 3},
	Open: func(_ context.Context, env sinks.Env, s settings) (sinks.Sink, error) {
		if s.Mode == "bad" {
			return nil, &sinks.SettingError{Path: "/mode", Err: errors.New("is bad")}
		}
		return &playedSink{env, s}, nil
	},
}

type playedSink struct {
	env sinks.Env
	s   settings
}

func (p *playedSink) Deliver(ctx context.Context, d *sinks.Delivery) (sinks.Receipt, error) {
	switch d.Event {
	case "panic":
		var m map[string]int
		m["a"]++
	case "print":
		fmt.Fprintln(os.Stderr, "plain to stderr")
		fmt.Println("plain to stdout")
		p.env.Log.Info("structured", "token", p.s.Token.Reveal())
		slog.Warn("by default")
	case "wait":
		<-ctx.Done()
		return sinks.Receipt{}, ctx.Err()
	}
	return sinks.Receipt{Message: "did " + d.ID, Status: 200}, nil
}
