package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/peanutsapp/peanuts-relay/internal/config"
)

func TestTheFirstSignalStopsGracefullyAndTheSecondAtOnce(t *testing.T) {
	var messages lockedBuffer
	aborted := make(chan int, 1)
	a := &app{Streams: Streams{Err: &messages}, abort: func(code int) { aborted <- code }}
	ctx, stop := a.untilSignal(t.Context())
	defer stop()
	if err := unix.Kill(os.Getpid(), unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-ctx.Done()
	select {
	case <-aborted:
		t.Fatal("the first signal ended the process")
	default:
	}
	if err := unix.Kill(os.Getpid(), unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := <-aborted; code != 128+15 {
		t.Errorf("exit status %d, want that of SIGTERM", code)
	}
	if got := messages.String(); !strings.Contains(got, "terminated: stopping") || !strings.Contains(got, "terminated: stopped at once") {
		t.Errorf("messages %q", got)
	}
}

func TestServingEndsWithoutASignal(t *testing.T) {
	a := &app{Streams: Streams{Err: &bytes.Buffer{}}}
	ctx, stop := a.untilSignal(t.Context())
	stop()
	if ctx.Err() == nil {
		t.Error("the context outlives the command")
	}
}

func TestTheLogHasTheConfiguredFormatAndLevel(t *testing.T) {
	for format, want := range map[string]string{
		"text":    `level=WARN msg=slow webhook=expenses.backend group.n=1` + "\n",
		"auto":    `level=WARN msg=slow webhook=expenses.backend group.n=1` + "\n",
		"journal": `<4>msg=slow webhook=expenses.backend group.n=1` + "\n",
	} {
		var out bytes.Buffer
		a := &app{Streams: Streams{Err: &out, Env: environment()}}
		logger := a.newLog(config.Log{Level: "warn", Format: format}).Logger()
		logger.Info("not shown")
		logger.With("webhook", "expenses.backend").WithGroup("group").Warn("slow", "n", 1)
		got := out.String()
		if format != "journal" {
			_, got, _ = strings.Cut(got, " ") // the time
		}
		if got != want {
			t.Errorf("%s: %q, want %q", format, got, want)
		}
	}
	var out bytes.Buffer
	a := &app{Streams: Streams{Err: &out, Env: environment()}}
	a.newLog(config.Log{Level: "debug", Format: "json"}).Logger().Debug("small")
	var line map[string]any
	if err := json.Unmarshal(out.Bytes(), &line); err != nil || line["msg"] != "small" {
		t.Errorf("json: %v: %s", err, out.String())
	}
}

func TestPrioritiesOfTheJournal(t *testing.T) {
	var out bytes.Buffer
	logger := slog.New(newJournalHandler(&out, slog.LevelDebug))
	for _, level := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
		logger.Log(t.Context(), level, "m")
	}
	if got := out.String(); got != "<7>msg=m\n<6>msg=m\n<4>msg=m\n<3>msg=m\n" {
		t.Errorf("got %q", got)
	}
}

func TestTheJournalIsToldByTheStreamItself(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	for stream, want := range map[string]bool{fmt.Sprintf("%d:%d", st.Dev, st.Ino): true, "1:2": false, "": false} {
		a := &app{Streams: Streams{Err: f, Env: environment("JOURNAL_STREAM=" + stream)}}
		if got := a.isJournal(); got != want {
			t.Errorf("JOURNAL_STREAM=%q: %v, want %v", stream, got, want)
		}
	}
}

func TestWithoutADaemonServeSaysSo(t *testing.T) {
	code, _, stderr := runMain(t, Streams{}, "serve")
	if code != ExitFailure || !strings.Contains(stderr, "built without the daemon") {
		t.Errorf("exit status %d, %s", code, stderr)
	}
}

func TestACancelledContextIsAGracefulEnd(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "config.yaml")
	text := fmt.Sprintf("queue: {dir: %s}\nhelpers: {h: {secret: 0123456789abcdef01234567, webhooks: {w: {url: 'http://127.0.0.1:9000/'}}}}\n", dir)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var got ServeOptions
	deps := Deps{Serve: func(ctx context.Context, _ *config.Config, opts ServeOptions) error {
		got = opts
		cancel()
		<-ctx.Done()
		return ctx.Err()
	}}
	var errs bytes.Buffer
	if code := Main(ctx, []string{"serve", "-c", path}, Streams{Out: &errs, Err: &errs, Env: environment()}, deps); code != ExitOK {
		t.Errorf("exit status %d: %s", code, errs.String())
	}
	if got.Path != path || len(got.Report.Files) != 1 || got.Report.Digest == "" || got.Logger == nil || got.Version == "" {
		t.Errorf("options %+v", got)
	}
}

func TestADaemonThatEndsAtOnceUnderASocketUnitTakesItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		time.Sleep(time.Second / 2)
		if outlast(t.Context(), began); time.Since(began) != shortestLife {
			t.Errorf("it lived for %v", time.Since(began))
		}
		time.Sleep(time.Second)
		if outlast(t.Context(), began); time.Since(began) != shortestLife+time.Second {
			t.Errorf("it waited although it had lived long enough: %v", time.Since(began))
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		again := time.Now()
		if outlast(ctx, again); time.Since(again) != 0 {
			t.Errorf("it waited for %v after it was told to end", time.Since(again))
		}
	})
	for env, want := range map[string]bool{"LISTEN_PID=" + strconv.Itoa(os.Getpid()): true, "LISTEN_PID=1": false, "OTHER=1": false} {
		a := &app{Streams: Streams{Env: environment(env)}}
		if got := a.activated(); got != want {
			t.Errorf("%s: %v", env, got)
		}
	}
}
