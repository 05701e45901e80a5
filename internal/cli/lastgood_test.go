package cli

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/peanutsapp/peanuts-relay/internal/config"
	"github.com/peanutsapp/peanuts-relay/internal/config/history"
)

// site is a machine with a configuration that may have run before.
type site struct {
	t                *testing.T
	path, queue, ref string
	served           *ServeOptions
	cfg              *config.Config
	env              []string
	duringStart      func()             // called when the environment is asked
	whileRunning     func(ServeOptions) // called by the daemon
}

func newSite(t *testing.T) *site {
	t.Helper()
	dir := t.TempDir()
	s := &site{t: t, path: filepath.Join(dir, "etc", "config.yaml"), queue: filepath.Join(dir, "queue"), ref: filepath.Join(dir, "secret"),
		env: []string{"STATE_DIRECTORY=" + filepath.Join(dir, "state")}}
	if err := os.MkdirAll(filepath.Join(dir, "etc", "conf.d"), 0o700); err != nil {
		t.Fatal(err)
	}
	s.write(s.ref, "0123456789abcdef01234567")
	s.write(s.path, s.good())
	return s
}

func (s *site) write(path, text string) {
	s.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) good() string {
	return fmt.Sprintf("queue: {dir: %s}\nhelpers: {h: {secret: \"${file:%s}\", webhooks: {w: {url: 'http://127.0.0.1:9000/'}}}}\n", s.queue, s.ref)
}

func (s *site) dropIn() string { return filepath.Join(filepath.Dir(s.path), "conf.d", "10-more.yaml") }

// ran notes that the files as they are were applied as a generation.
func (s *site) ran(generation uint64) {
	s.t.Helper()
	_, report := config.Load(config.Options{Path: s.path, LookupEnv: environment(s.env...)})
	if err := report.Err(); err != nil {
		s.t.Fatal(err)
	}
	l, err := history.Open(filepath.Join(s.queue, "config"), s.path)
	if err != nil {
		s.t.Fatal(err)
	}
	e := history.Entry{Generation: generation, At: time.Date(2025, 1, 15, 14, 32, 0, 0, time.UTC), Trigger: "start", Result: history.Applied, Digest: report.Digest}
	if err := errors.Join(l.Append(e, report.Sources), l.Close()); err != nil {
		s.t.Fatal(err)
	}
}

// serve starts a daemon that ends at once.
func (s *site) serve(args ...string) (code int, stderr string) {
	s.t.Helper()
	s.served = nil
	deps := Deps{Serve: func(_ context.Context, cfg *config.Config, o ServeOptions) error {
		s.served, s.cfg = &o, cfg
		if s.whileRunning != nil {
			s.whileRunning(o)
		}
		return nil
	}}
	env := environment(s.env...)
	lookup := func(name string) (string, bool) {
		if s.duringStart != nil {
			s.duringStart()
		}
		return env(name)
	}
	var errs bytes.Buffer
	code = Main(s.t.Context(), append([]string{"serve", "-c", s.path}, args...), Streams{Out: &errs, Err: &errs, Env: lookup}, deps)
	return code, errs.String()
}

// contain fails unless each text is in the output, in this order.
func contain(t *testing.T, output string, texts ...string) {
	t.Helper()
	rest := output
	for _, text := range texts {
		_, after, ok := strings.Cut(rest, text)
		if !ok {
			t.Errorf("%q is not there, or not in its place:\n%s", text, output)
			return
		}
		rest = after
	}
}

func TestFilesThatAreFineRun(t *testing.T) {
	s := newSite(t)
	s.ran(7)
	code, stderr := s.serve()
	if code != ExitOK || s.served == nil {
		t.Fatalf("exit status %d: %s", code, stderr)
	}
	o := s.served
	if o.Rejected != nil || o.LastKnownGood != 0 || len(o.Report.Sources) != 1 || string(o.Report.Sources[0].Data) != s.good() {
		t.Errorf("options %+v", o)
	}
	if o.Hangup == nil || o.SetLog == nil || o.Notify == nil {
		t.Errorf("options %+v lack something", o)
	}
	o.SetLog(config.Log{Level: "error"})
	if o.Logger.Enabled(t.Context(), 0) {
		t.Error("the level did not change")
	}
}

func TestABrokenFileStartsTheLastKnownGood(t *testing.T) {
	s := newSite(t)
	s.ran(6)
	s.write(s.dropIn(), "helpers: {h: {webhooks: {w: {format: event}}}}\n")
	s.ran(7)
	was := s.good()
	for name, text := range map[string]string{
		"an unknown key":    s.good() + "secrt: hunter2-hunter2\n",
		"no YAML at all":    "queue: {dir: " + s.queue + "}\nhelpers: {{{\n",
		"an empty file":     "",
		"another queue.dir": "queue: {dir: " + s.queue + "/../elsewhere}\nhelpers: 5\n",
	} {
		t.Run(name, func(t *testing.T) {
			s.t = t
			s.write(s.path, text)
			if !strings.Contains(text, s.queue+"}") {
				// Nothing in the file says where the history is: the default does.
				s.env = []string{"STATE_DIRECTORY=" + s.queue}
			}
			code, stderr := s.serve()
			if code != ExitOK || s.served == nil {
				t.Fatalf("exit status %d: %s", code, stderr)
			}
			o := s.served
			if o.Rejected.Err() == nil || o.LastKnownGood != 7 || s.cfg.Helpers[0].Webhooks[0].Format != "event" {
				t.Errorf("options %+v", o)
			}
			sources, files := o.Report.Sources, o.Report.Files
			if len(sources) != 2 || string(sources[0].Data) != was || sources[1].Path != s.dropIn() || !reflect.DeepEqual(files, []string{s.path, s.dropIn()}) {
				t.Errorf("sources %v, files %v", sources, files)
			}
			contain(t, stderr, "error: ", "--> "+s.path, "error: "+s.path+" is not valid: ", "; starting with the last known good configuration instead",
				"generation 7, applied 20", ", kept in "+s.queue+"/config", "correct "+s.path, "--strict",
				"level=ERROR msg=\"configuration is not valid: the last known good one runs instead\"", "file="+s.path, "generation=7", "remedy=")
			if n := strings.Count(stderr, "level=ERROR"); n != 1 {
				t.Errorf("%d error lines in the log", n)
			}
			if strings.Contains(stderr, "hunter2") {
				t.Error("a secret was shown")
			}
		})
	}
}

func TestABrokenDropInIsNamed(t *testing.T) {
	s := newSite(t)
	s.ran(1)
	s.write(s.dropIn(), "helpers: {h: {webhooks: {w: {format: nonsense}}}}\n")
	code, stderr := s.serve()
	if code != ExitOK || s.served == nil || s.served.LastKnownGood != 1 {
		t.Fatalf("exit status %d: %s", code, stderr)
	}
	contain(t, stderr, "correct "+s.dropIn(), "file="+s.dropIn())
}

func TestAFileThatIsGoneIsABrokenOne(t *testing.T) {
	s := newSite(t)
	s.ran(3)
	s.env = []string{"STATE_DIRECTORY=" + s.queue}
	if err := os.Remove(s.path); err != nil {
		t.Fatal(err)
	}
	if code, stderr := s.serve(); code != ExitOK || s.served == nil || s.served.LastKnownGood != 3 {
		t.Errorf("exit status %d: %s", code, stderr)
	}
}

func TestTheDefaultFileThatIsGoneIsABrokenOneWhenItRan(t *testing.T) {
	if _, err := os.Lstat(config.DefaultPath); !errors.Is(err, fs.ErrNotExist) {
		t.Skipf("%s is there: %v", config.DefaultPath, err)
	}
	s := newSite(t)
	good := s.path
	s.path = config.DefaultPath
	l, err := history.Open(filepath.Join(s.queue, "config"), s.path)
	if err != nil {
		t.Fatal(err)
	}
	e := history.Entry{Generation: 4, At: time.Now(), Result: history.Applied}
	text, err := os.ReadFile(good)
	if err := errors.Join(err, l.Append(e, []config.File{{Path: s.path, Data: text, Mode: 0o600}}), l.Close()); err != nil {
		t.Fatal(err)
	}
	s.path = "" // as without --config
	if code, stderr := s.serve(); code != ExitConfig || s.served != nil || !strings.Contains(stderr, "no configuration file") {
		t.Errorf("where nothing ran: exit status %d: %s", code, stderr)
	}
	s.env = []string{"STATE_DIRECTORY=" + s.queue}
	if code, stderr := s.serve("--strict"); code != ExitConfig || s.served != nil || !strings.Contains(stderr, "no configuration file") {
		t.Errorf("strict: exit status %d: %s", code, stderr)
	}
	if code, stderr := s.serve(); code != ExitOK || s.served == nil || s.served.LastKnownGood != 4 || s.served.Path != config.DefaultPath {
		t.Errorf("exit status %d: %s", code, stderr)
	}
}

func TestStrictStartsNothingElse(t *testing.T) {
	s := newSite(t)
	s.ran(7)
	s.write(s.path, s.good()+"secrt: x\n")
	code, stderr := s.serve("--strict")
	if code != ExitConfig || s.served != nil {
		t.Errorf("exit status %d", code)
	}
	contain(t, stderr, `unknown key "secrt"`, "error: "+s.path+" is not valid: 1 error\n")
	if strings.Contains(stderr, "last known good") {
		t.Error(stderr)
	}
}

func TestWithoutALastKnownGoodItSaysWhereItLooked(t *testing.T) {
	s := newSite(t)
	s.write(s.path, s.good()+"secrt: x\n")
	code, stderr := s.serve()
	if code != ExitConfig || s.served != nil {
		t.Errorf("exit status %d", code)
	}
	contain(t, stderr, `unknown key "secrt"`, "error: "+s.path+" is not valid: 1 error; no last known good configuration was found\n", "correct "+s.path,
		"in "+s.queue+"/config: there is none", "and in ", "state/config: there is none")
}

func TestADamagedLastKnownGoodIsNamed(t *testing.T) {
	s := newSite(t)
	s.ran(7)
	kept, err := filepath.Glob(filepath.Join(s.queue, "config", "*", "file-*"))
	if err != nil || len(kept) != 1 {
		t.Fatal(kept, err)
	}
	if err := os.Truncate(kept[0], 5); err != nil {
		t.Fatal(err)
	}
	s.write(s.path, s.good()+"secrt: x\n")
	code, stderr := s.serve()
	if code != ExitConfig || s.served != nil {
		t.Errorf("exit status %d", code)
	}
	contain(t, stderr, "no last known good configuration was found", s.queue+"/config: ", "generation 7 cannot be used", "SHA-256")
}

func TestALastKnownGoodWhoseReferenceIsGoneIsNoneAndBothAreReported(t *testing.T) {
	s := newSite(t)
	s.ran(7)
	s.write(s.path, s.good()+"secrt: x\n")
	if err := os.Remove(s.ref); err != nil {
		t.Fatal(err)
	}
	code, stderr := s.serve()
	if code != ExitConfig || s.served != nil {
		t.Errorf("exit status %d", code)
	}
	contain(t, stderr, `unknown key "secrt"`, "the last known good configuration, generation 7 in "+s.queue+"/config, cannot be used either", s.ref,
		"error: "+s.path+" is not valid: 2 errors; the last known good configuration, generation 7, cannot be used either: 1 error", "correct "+s.path)
}

func TestAPluginThatIsGoneDoesNotStopAStartOfWhatRan(t *testing.T) {
	s := newSite(t)
	dir := filepath.Join(filepath.Dir(s.queue), "sinks")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"gone", "changed", "loose", "fine"} {
		s.write(filepath.Join(dir, "peanuts-sink-"+name), "#!/bin/sh\n")
		if err := os.Chmod(filepath.Join(dir, "peanuts-sink-"+name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	sum := fmt.Sprintf("%x", sha256.Sum256([]byte("#!/bin/sh\n")))
	s.write(s.dropIn(), "plugins: {dir: "+dir+"}\nsinks: {changed: {sha256: "+sum+"}}\nhelpers: {h: {webhooks: {a: {sink: gone, settings: {x: 1}}, b: {sink: changed}, c: {sink: loose}, d: {sink: fine}}}}\n")
	s.ran(7)
	if err := errors.Join(os.Remove(filepath.Join(dir, "peanuts-sink-gone")), os.Chmod(filepath.Join(dir, "peanuts-sink-loose"), 0o777)); err != nil {
		t.Fatal(err)
	}
	s.write(filepath.Join(dir, "peanuts-sink-changed"), "#!/bin/bash\n")
	code, stderr := s.serve()
	if code != ExitOK || s.served == nil || s.served.LastKnownGood != 7 || s.served.Rejected == nil {
		t.Fatalf("exit status %d: %s", code, stderr)
	}
	contain(t, stderr, `error: there is no sink "gone"`, "starting with the last known good configuration instead")
	contain(t, stderr, "peanuts-sink-changed is another one")
	contain(t, stderr, "others can change the plugin")
	if got := len(s.cfg.Webhooks()); got != 5 {
		t.Errorf("%d webhooks run", got)
	}
	for _, sink := range []string{"gone", "changed", "loose", "fine"} {
		if f, ok := s.cfg.PluginFile(sink); !ok || f.Path != filepath.Join(dir, "peanuts-sink-"+sink) {
			t.Errorf("%s is to be found at %q", sink, f.Path)
		}
	}
	if code, _ := s.serve("--strict"); code != ExitConfig {
		t.Errorf("exit status %d with --strict", code)
	}
	s.write(s.dropIn(), "plugins: {dir: "+dir+"}\nhelpers: {h: {webhooks: {a: {sink: nowhere}}}}\n")
	if code, stderr := s.serve(); code != ExitOK || s.served.LastKnownGood != 7 {
		t.Errorf("exit status %d: %s", code, stderr)
	}
}

func TestARotatedSecretIsReadAgainWithTheLastKnownGood(t *testing.T) {
	s := newSite(t)
	s.ran(7)
	s.write(s.path, "")
	s.env = []string{"STATE_DIRECTORY=" + s.queue}
	s.write(s.ref, "another-secret-0123456789")
	if code, stderr := s.serve(); code != ExitOK || s.served == nil {
		t.Fatalf("exit status %d: %s", code, stderr)
	}
	if got := s.cfg.Helpers[0].Secret.Reveal(); got != "another-secret-0123456789" {
		t.Errorf("secret %q", got)
	}
}

func TestAHangupDuringTheStartIsNotMissed(t *testing.T) {
	s := newSite(t)
	hung, heard := false, false
	s.duringStart = func() {
		if hung {
			return
		}
		hung = true
		for range 3 {
			if err := unix.Kill(os.Getpid(), unix.SIGHUP); err != nil {
				t.Error(err)
			}
		}
	}
	s.whileRunning = func(o ServeOptions) {
		select {
		case <-o.Hangup:
			heard = true
		case <-time.After(30 * time.Second):
		}
	}
	if code, stderr := s.serve(); code != ExitOK || !hung || !heard {
		t.Fatalf("exit status %d, sent %v, heard %v: %s", code, hung, heard, stderr)
	}
}

func TestHangupsThatNobodyLooksAtAreOne(t *testing.T) {
	hangup, stop := untilHangup()
	for range 2 { // also after the first was taken
		for range 100 {
			if err := unix.Kill(os.Getpid(), unix.SIGHUP); err != nil {
				t.Fatal(err)
			}
		}
		select {
		case <-hangup:
		case <-time.After(30 * time.Second):
			t.Fatal("no hangup arrived")
		}
	}
	stop()
	if len(hangup) > 1 {
		t.Errorf("%d hangups wait", len(hangup))
	}
	// One that comes too late is nothing, not the end of the process.
	if err := unix.Kill(os.Getpid(), unix.SIGHUP); err != nil {
		t.Fatal(err)
	}
}
