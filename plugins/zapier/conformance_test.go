package main

import (
	"bytes"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/plugins/zapier/zapiertest"
	"github.com/peanutsapp/peanuts-relay/sinks"
	"github.com/peanutsapp/peanuts-relay/sinks/sinktest"
)

// conformance are the options of the suite.
func conformance() sinktest.Options {
	var ticks atomic.Int64 // a second for each request, so that none is too fast
	settings := func(url string) func(string) any {
		return func(remote string) any { return map[string]any{"url": url, "base_url": remote} }
	}
	misconfigured := sinktest.Fault{Want: []sinks.Outcome{sinks.OutcomeMisconfigured}}
	return sinktest.Options{
		Settings: settings(hookURL),
		Remote:   zapiertest.New(func() time.Time { return time.Unix(0, ticks.Add(int64(time.Second))) }),
		Faults: map[string]sinktest.Fault{
			"404": misconfigured, "410": misconfigured,
			"413": {Status: 413, Want: []sinks.Outcome{sinks.OutcomeRejected}},
		},
		Bad: []sinktest.BadSettings{
			{Name: "the URL of something else", Settings: settings("https://hooks.zapier.com/app/zaps"), Path: "/url"},
		},
		Secrets: []string{"s3cr3thook"},
		Arrived: func(d *sinks.Delivery, got []sinktest.Request) error {
			if len(got) != 1 || !bytes.HasPrefix(got[0].Body, d.Payload[:len(d.Payload)-1]) {
				return fmt.Errorf("the request does not begin with the payload: %+v", got)
			}
			return nil
		},
	}
}

// TestItIsASink runs the suite that every sink has to pass.
func TestItIsASink(t *testing.T) { sinktest.Run(t, New().Server, conformance()) }

// TestTheProgramIsASink runs it against the program.
func TestTheProgramIsASink(t *testing.T) { sinktest.RunBinary(t, installed(t), conformance()) }
