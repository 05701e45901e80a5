package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"

	"github.com/peanutsapp/peanuts-relay/internal/cli/clitest"
	"github.com/peanutsapp/peanuts-relay/internal/config"
	"github.com/peanutsapp/peanuts-relay/sinks"
)

// TestMain makes the test binary the command as well, so that sessions run the
// whole of it in a process of its own.
func TestMain(m *testing.M) {
	testscript.Main(withoutLeaks{m}, map[string]func(){
		"peanuts-relay":      func() { os.Exit(sessionMain()) },
		"peanuts-sink-demo":  func() { sinks.Serve(demoSink()) },
		"peanuts-sink-other": func() { sinks.Serve(demoSink()) },
	})
}

type withoutLeaks struct{ m *testing.M }

func (w withoutLeaks) Run() int {
	time.Local = time.UTC // tables show local time
	code := w.m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// sessionMain is the program with what a session cannot bring about otherwise:
// a terminal (TEST_WIDTH columns) and a daemon that ends as TEST_SERVE says.
func sessionMain() int {
	streams := Standard()
	if width, err := strconv.Atoi(os.Getenv("TEST_WIDTH")); err == nil {
		streams.OutTerm = Terminal{Width: width, Colour: true}
		streams.ErrTerm = streams.OutTerm
	}
	return Main(context.Background(), os.Args[1:], streams, Deps{Version: "1.2.3-test", Serve: sessionServe})
}

func sessionServe(ctx context.Context, cfg *config.Config, opts ServeOptions) error {
	opts.Logger.Info("serving", "events", cfg.Listen.Events, "version", opts.Version)
	for _, f := range opts.Report.Findings {
		opts.Logger.Warn(f.Message)
	}
	switch os.Getenv("TEST_SERVE") {
	case "storage":
		return WithExit(ExitStorage, errors.New("queue stopped: input/output error"), "the supervisor restarts the daemon")
	case "format":
		return WithExit(ExitStoreFormat, errors.New("FORMAT: version 9 is newer than 1"), "install the newer release")
	case "fail":
		return errors.New("no luck")
	case "stuck":
		select {}
	}
	<-ctx.Done()
	opts.Logger.Info("stopped")
	return nil
}

func TestSessions(t *testing.T) {
	p := clitest.Params("testdata/sessions")
	p.Cmds["eventsd"] = eventsd
	testscript.Run(t, p)
}
