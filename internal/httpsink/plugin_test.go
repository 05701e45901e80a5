package httpsink

import (
	"net/http"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/testhost"
	"github.com/peanutsapp/peanuts-relay/sinks"
	"github.com/peanutsapp/peanuts-relay/sinks/sinktest"
)

// conformance are the options of the suite.
func conformance() sinktest.Options {
	final := sinktest.Fault{Want: []sinks.Outcome{sinks.OutcomeRejected}}
	settings := func(header, value string) func(string) any {
		return func(remote string) any {
			return map[string]any{"url": remote + "/hooks/9f8a7c6b5d", "headers": map[string]string{header: value}}
		}
	}
	return sinktest.Options{
		Settings: settings("Authorization", "Bearer 5b1d0e-planted"),
		Bad: []sinktest.BadSettings{
			{Name: "a header that belongs to the connection", Settings: settings("Content-Length", "1")},
			{Name: "a URL without a host", Path: "/url", Settings: func(string) any { return map[string]any{"url": "https:///x"} }},
		},
		Arrived: sinktest.Verbatim,
		// The response table of the http sink: whatever the receiver refuses is final,
		// and a redirect is never followed.
		Faults: map[string]sinktest.Fault{
			"401": final, "403": final, "404": final, "408": final, "410": final, "429": final,
			"redirect": final,
			"503-wait": {Status: http.StatusServiceUnavailable, Header: http.Header{"Retry-After": {"90"}}, Want: []sinks.Outcome{sinks.OutcomeRetry}, Pause: 90 * time.Second},
		},
		Patience: 15 * time.Second,
	}
}

// TestItIsASink holds the built-in sink to what every plugin has to do.
func TestItIsASink(t *testing.T) { sinktest.Run(t, Plugin().Server, conformance()) }

// TestTheProgramIsASink runs it as a program of its own, which the test binary plays.
func TestTheProgramIsASink(t *testing.T) {
	sinktest.RunBinary(t, testhost.Copy(t, programName), conformance())
}
