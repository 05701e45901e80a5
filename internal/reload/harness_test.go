package reload

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/peanutsapp/peanuts-relay/internal/config"
	"github.com/peanutsapp/peanuts-relay/internal/config/history"
	"github.com/peanutsapp/peanuts-relay/internal/config/watch"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds every wait of the tests.
const patience = 30 * time.Second

// site is a configuration on disk and a reloader for it.
type site struct {
	t        *testing.T
	dir      string
	history  *history.Log
	watcher  *fakeWatcher
	hangup   chan struct{}
	log      syncBuffer
	notes    []string // to the service manager
	outlooks map[string]Outlook

	mu        sync.Mutex
	committed []*config.Config
	prepared  int
	refuse    error
	gate      chan struct{} // when set, Prepare waits for an element
	finding   string        // what a plugin says of the settings of crm.main; "" = nothing
	later     bool          // it might say something else later
	outdated  []string
	asked     atomic.Int32

	*Reloader
	boot *config.Config
}

// syncBuffer is a buffer for concurrent writers.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// fakeWatcher tells of changes when the test says so.
type fakeWatcher struct {
	changed chan struct{}
	mu      sync.Mutex
	paths   watch.Paths
}

func (w *fakeWatcher) Set(p watch.Paths) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.paths = p
}
func (w *fakeWatcher) Changed() <-chan struct{} { return w.changed }
func (w *fakeWatcher) Mode() string             { return "events" }

func newSite(t *testing.T, main string) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir(), outlooks: map[string]Outlook{}}
	s.write("config.yaml", main)
	s.open()
	t.Cleanup(func() { s.history.Close() })
	return s
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

func (s *site) write(name, text string) {
	s.t.Helper()
	if err := os.MkdirAll(filepath.Dir(s.path(name)), 0o755); err != nil {
		s.t.Fatal(err)
	}
	whole := s.path(name) + ".new" // a reload must not see half of it
	if err := os.WriteFile(whole, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(whole, s.path(name)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) load(files []config.File) (*config.Config, *config.Report) {
	return config.Load(config.Options{Path: s.path("config.yaml"), Files: files})
}

// open makes the reloader anew, as a restart of the daemon does.
func (s *site) open() {
	s.t.Helper()
	var err error
	if s.history != nil {
		if err := s.history.Close(); err != nil {
			s.t.Fatal(err)
		}
	}
	if s.history, err = history.Open(s.path("history"), s.path("config.yaml")); err != nil {
		s.t.Fatal(err)
	}
	boot, report := s.load(nil)
	var rejected *config.Report
	var good history.Entry
	if boot == nil {
		var files []config.File
		good, files, err = s.history.Last()
		if err != nil {
			s.t.Fatal(err, report.Text())
		}
		rejected = report
		if boot, report = s.load(files); boot == nil {
			s.t.Fatal(report.Text())
		}
	}
	s.boot = boot
	s.watcher, s.hangup = &fakeWatcher{changed: make(chan struct{}, 1)}, make(chan struct{}, 1)
	s.Reloader = New(Options{Load: s.load, Path: s.path("config.yaml"), Boot: boot, BootReport: report, Rejected: rejected, LastKnownGood: good.Generation,
		Prepare: s.prepare, Outlook: func(w *config.Webhook) Outlook { return s.outlooks[w.ID] }, History: s.history, Watcher: s.watcher,
		Plugins: s.plugins, Outdated: s.replaced, Asked: func() { s.asked.Add(1) },
		Hangup: s.hangup, Notify: s.notify, Logger: slog.New(slog.NewTextHandler(&s.log, nil))})
}

func (s *site) notify(state string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notes = append(s.notes, state)
}

func (s *site) told(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Contains(strings.Join(s.notes, "\n"), text)
}

// run starts the reloader until the end of the test. What changes from here on is
// not found by its first look at the files.
func (s *site) run() {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { s.Run(ctx) })
	s.t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	s.reload() // the first comparison is over, whatever it found
}

func (s *site) plugins(_ context.Context, _ *config.Config, report *config.Report) (later bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.finding != "" {
		report.Add(config.Finding{Severity: config.SeverityError, Code: "bad_setting", Message: s.finding}, "helpers", "crm", "webhooks", "main", "url")
	}
	return s.later
}

func (s *site) replaced() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.outdated
}

func (s *site) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

type change struct {
	s   *site
	cfg *config.Config
}

func (s *site) prepare(ctx context.Context, cfg *config.Config) (Prepared, error) {
	s.mu.Lock()
	s.prepared++
	gate, refuse := s.gate, s.refuse
	s.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if refuse != nil {
		return nil, refuse
	}
	return &change{s, cfg}, nil
}

func (c *change) Commit(uint64) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.s.committed = append(c.s.committed, c.cfg)
}

func (s *site) commits() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.committed)
}

func (s *site) reload() rest.ReloadResult {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	result, err := s.Reload(ctx, Cause{Trigger: rest.TriggerReload})
	if err != nil {
		s.t.Fatal(err)
	}
	return result
}

func (s *site) until(what string, cond func() bool) {
	s.t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline:
			s.t.Fatalf("no %s; log:\n%s", what, s.log.String())
		}
	}
}

var errNoPort = errors.New("no port is free")
