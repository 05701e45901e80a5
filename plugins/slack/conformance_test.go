package main

import (
	"maps"
	"net/http"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/plugins/slack/slacktest"
	"github.com/peanutsapp/peanuts-relay/sinks"
	"github.com/peanutsapp/peanuts-relay/sinks/sinktest"
)

// conformance are the options of the suite for one mode. The pause that its service asks
// for is short, because every later check has to wait for it: they all post to the same
// channel.
func conformance(mode string) sinktest.Options {
	with := func(changed map[string]any) func(string) any {
		return func(remote string) any {
			all := map[string]any{"base_url": remote}
			if mode == "token" {
				all["token"], all["channel"] = botToken, "#general"
			} else {
				all["webhook_url"] = hookURL
			}
			maps.Copy(all, changed)
			return all
		}
	}
	misconfigured := sinktest.Fault{Want: []sinks.Outcome{sinks.OutcomeMisconfigured}}
	o := sinktest.Options{
		Settings: with(nil),
		Remote:   workspace(slacktest.Options{NoRateLimit: true}),
		Faults: map[string]sinktest.Fault{
			"404": misconfigured, "410": misconfigured,
			"429": {Header: http.Header{"Retry-After": {"2"}}, Want: []sinks.Outcome{sinks.OutcomeRateLimited}, Pause: 2 * time.Second},
		},
		Bad: []sinktest.BadSettings{
			{Name: "a template that is none", Settings: with(map[string]any{"template": "{{"}), Path: "/template"},
		},
		Secrets: []string{"s3cr3tpart", botToken},
		Skip:    map[string]string{"descriptors": "hundreds of messages take minutes; TestConnectionsAreUsedAgain looks at that"},
	}
	if mode != "token" {
		o.Skip["state"] = "an incoming webhook does not say which message it posted"
	}
	return o
}

// TestItIsASink runs the suite that every sink has to pass, in both modes.
func TestItIsASink(t *testing.T) {
	for _, mode := range []string{"token", "webhook"} {
		t.Run(mode, func(t *testing.T) {
			sinktest.Run(t, newPlugin(newPacer(0), time.Now).Server, conformance(mode))
		})
	}
}

// TestTheProgramIsASink runs it against the program, which sends one message a second:
// most of the time it waits.
func TestTheProgramIsASink(t *testing.T) {
	for _, mode := range []string{"token", "webhook"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			sinktest.RunBinary(t, installed(t), conformance(mode))
		})
	}
}
