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
	return Main(context.Background(), os.Args[1:], streams, Deps{Version: "1.2.3-test", Serve: sessionServe, Fsck: sessionFsck})
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

// sessionFsck finds what TEST_FSCK says.
func sessionFsck(_ context.Context, o FsckOptions) (any, error) {
	o.Progress(1<<10, 2<<10)
	report := map[string]any{"dir": o.Dir, "rows": 1234, "events": 5, "pending": 6, "finished": 7, "problems_found": 0}
	switch os.Getenv("TEST_FSCK") {
	case "":
		return nil, WithExit(ExitStoreFormat, fmt.Errorf("%s: is no directory of a queue", o.Dir), "")
	case "locked":
		return nil, WithExit(ExitTryAgain, fmt.Errorf("queue %q is in use by process 17", o.Dir), "stop the daemon first")
	case "panic":
		panic("damaged")
	case "damaged":
		report["problems_found"], report["notes"] = 1, []string{"3 rows were set aside before"}
		report["problems"] = []map[string]string{{"where": "db/000001.sst", "what": "bytes 0 to 10: the checksum of a block does not match", "means": "rows are missing"}}
		report["lost_event_count"], report["lost_delivery_count"] = 2, 1
		if o.Repair {
			report["repaired"], report["quarantine"], report["brought_back"] = true, o.Dir+"/quarantine-T", 4
		}
	}
	return report, nil
}

func TestSessions(t *testing.T) {
	p := clitest.Params("testdata/sessions")
	p.Cmds["eventsd"] = eventsd
	testscript.Run(t, p)
}
