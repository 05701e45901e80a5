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
	if os.Getenv("SINKS_TEST_PLAY") != "" {
		sinks.Serve(played)
	}
	goleak.VerifyTestMain(m)
}
