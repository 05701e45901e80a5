package main

import (
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/peanutsapp/peanuts-relay/internal/cli/clitest"
	"github.com/peanutsapp/peanuts-relay/internal/testhost"
	"github.com/peanutsapp/peanuts-relay/internal/zoo"
)

// TestMain makes the test binary the program itself, so that a session runs
// real daemons and clients, each in a process of its own. Under the name of an animal
// it is that plugin.
func TestMain(m *testing.M) {
	zoo.Main()
	testscript.Main(m, map[string]func(){"peanuts-relay": func() {
		if name, value, _ := strings.Cut(loopbackNames, "="); os.Getenv(name) == value {
			net.DefaultResolver = testhost.Resolver(func(string, bool) netip.Addr { return netip.MustParseAddr("127.0.0.1") })
		}
		os.Exit(run())
	}})
}

// TestSessions runs testdata/sessions/*.txt: what a user does with the program, from
// start to stop. Package clitest describes the commands they may use.
func TestSessions(t *testing.T) {
	testscript.Run(t, clitest.Params("testdata/sessions"))
}
