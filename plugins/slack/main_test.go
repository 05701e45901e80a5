package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/sinks"
)

const (
	program = "peanuts-sink-slack"
	// hasty is the same program with a pace at which a suite of some hundred messages does
	// not take minutes.
	hasty = "peanuts-sink-slack-hasty"
)

// TestMain lets the test binary be the plugin, when it is called so.
func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case program:
		main()
	case hasty:
		sinks.Serve(newPlugin(newPacer(time.Millisecond), time.Now))
	}
	os.Exit(m.Run())
}

// installed is the plugin as a file that a relay would start.
func installed(t *testing.T, name string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, b, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}
