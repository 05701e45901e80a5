package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/peanutsapp/peanuts-relay/internal/cli/clitest"
)

// TestMain makes the test binary the daemon as well, so that sessions run it in
// processes of its own.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"peanuts-relay": main})
}

// TestSessions runs what a user would type, against the real daemon.
func TestSessions(t *testing.T) {
	testscript.Run(t, clitest.Params("testdata/sessions"))
}
