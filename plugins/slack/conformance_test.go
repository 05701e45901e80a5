package main

import (
	"maps"
	"net/http"
	"regexp"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/plugins/slack/slacktest"
	"github.com/peanutsapp/peanuts-relay/sinks"
	"github.com/peanutsapp/peanuts-relay/sinks/sinktest"
)

// conformance are the options of the suite for one mode, in front of a service. The pause
// that it asks for is short, because every later check has to wait for it: they all post
// to the same channel.
func conformance(mode string, service *slacktest.Service) sinktest.Options {
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
		Remote:   service,
		Faults: map[string]sinktest.Fault{
			"404": misconfigured, "410": misconfigured,
			"429": {Header: http.Header{"Retry-After": {"1"}}, Want: []sinks.Outcome{sinks.OutcomeRateLimited}, Pause: time.Second},
		},
		Bad: []sinktest.BadSettings{
			{Name: "a template that is none", Settings: with(map[string]any{"template": "{{"}), Path: "/template"},
		},
		Secrets: []string{"s3cr3tpart", botToken},
	}
	if mode != "token" {
		o.Skip = map[string]string{"state": "an incoming webhook does not say which message it posted"}
	}
	return o
}

// TestItIsASink runs the suite that every sink has to pass, in both modes.
func TestItIsASink(t *testing.T) {
	for _, mode := range []string{"token", "webhook"} {
		t.Run(mode, func(t *testing.T) {
			sinktest.Run(t, newPlugin(newPacer(0), time.Now).Server, conformance(mode, workspace(slacktest.Options{NoRateLimit: true})))
		})
	}
}

// TestTheProgramIsASink runs it against the program, at a pace of its own: what the
// shipped one adds is shown by TestTheProgramSendsOneMessageASecond.
func TestTheProgramIsASink(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"token", "webhook"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			sinktest.RunBinary(t, installed(t, hasty), conformance(mode, workspace(slacktest.Options{NoRateLimit: true})))
		})
	}
}

// TestTheProgramSendsOneMessageASecond runs the shipped program against a service that
// takes no more than that on average: what leaves a second apart may arrive a little
// closer together.
func TestTheProgramSendsOneMessageASecond(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"token", "webhook"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			service := workspace(slacktest.Options{Burst: 2})
			o := conformance(mode, service)
			o.Only = regexp.MustCompile(`^(launch|results)$`)
			sinktest.RunBinary(t, installed(t, program), o)
			for _, c := range service.Calls() {
				if c.Status == http.StatusTooManyRequests {
					t.Errorf("%s: the program was too fast", c.Method)
				}
			}
			if n := len(service.Messages(general)); n < 4 {
				t.Errorf("%d messages show no pace", n)
			}
		})
	}
}
