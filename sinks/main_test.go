package sinks_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/peanutsapp/peanuts-relay/sinks"
)

// TestMain lets the test binary be the plugin too: Serve is tried in a process of its
// own.
func TestMain(m *testing.M) {
	switch os.Getenv(play) {
	case "good":
		sinks.Serve(played("played"))
	case "bad":
		sinks.Serve(played("Not A Name"))
	}
	goleak.VerifyTestMain(m)
}
