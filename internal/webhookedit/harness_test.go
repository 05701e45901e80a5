package webhookedit_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/config"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
	"github.com/peanutsapp/peanuts-relay/internal/webhookedit"
)

const mainFile = `# the operator's
helpers:
  expenses:
    secret: 0123456789abcdef0123456789abcdef
    webhooks:
      backend: {url: "https://example.com/a", headers: {X-Env: prod}}
`

// daemon stands for what runs: it takes over what the files say unless they are
// invalid or refuse says so.
type daemon struct {
	mu      sync.Mutex
	main    string
	running *config.Config
	refuse  func(attempt int) error // of a reload, from 1; nil refuses none
	reloads int
}

func (d *daemon) load(files []config.File) (*config.Config, *config.Report) {
	return config.Load(config.Options{Path: d.main, Files: files, Getuid: func() int { return 0 }, LookupEnv: func(name string) (string, bool) {
		if name == "PLANTED" {
			return "hunter2", true
		}
		return "", false
	}})
}

func (d *daemon) reload(context.Context, *uint32) (rest.ReloadResult, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reloads++
	cfg, report := d.load(nil)
	if err := report.Err(); err != nil {
		return rest.ReloadResult{Result: rest.ReloadRejected}, nil
	}
	if d.refuse != nil {
		if err := d.refuse(d.reloads); err != nil {
			if errors.Is(err, errRefused) {
				return rest.ReloadResult{Result: rest.ReloadRejected, Findings: []rest.Finding{{Severity: "error", Message: "a test does not hold"}}}, nil
			}
			return rest.ReloadResult{}, err
		}
	}
	d.running = cfg
	return rest.ReloadResult{Result: rest.ReloadApplied}, nil
}

var errRefused = errors.New("refused")

func (d *daemon) get() *config.Config {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.running
}

// world is a directory with a configuration, a daemon that runs it and an
// editor.
type world struct {
	*daemon
	dir    string
	editor *webhookedit.Editor
}

func newWorld(t testing.TB, files map[string]string) *world {
	t.Helper()
	dir := t.TempDir()
	if files["config.yaml"] == "" {
		write(t, filepath.Join(dir, "config.yaml"), mainFile)
	}
	for name, content := range files {
		write(t, filepath.Join(dir, name), content)
	}
	w := &world{daemon: &daemon{main: filepath.Join(dir, "config.yaml")}, dir: dir}
	w.editor = w.newEditor()
	if r, err := w.reload(t.Context(), nil); err != nil || r.Result != rest.ReloadApplied {
		_, report := w.load(nil)
		t.Fatalf("the files are refused: %v", report.Err())
	}
	w.reloads = 0
	return w
}

func (w *world) newEditor() *webhookedit.Editor {
	return webhookedit.New(webhookedit.Options{MainFile: w.main, Load: w.load, Reload: w.reload, Running: w.get})
}

func write(t testing.TB, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// own is the content of the editor's file; "" when it is not there.
func (w *world) own(t testing.TB) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(w.dir, "conf.d", webhookedit.FileName))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(data)
}

// keys is own without the comment that begins a new file.
func (w *world) keys(t testing.TB) string {
	t.Helper()
	var lines []string
	for line := range strings.Lines(w.own(t)) {
		if !strings.HasPrefix(line, "#") && strings.TrimSpace(line) != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

// webhook is what runs under this id; nil when nothing does.
func (w *world) webhook(id string) *config.Webhook {
	for _, x := range w.get().Webhooks() {
		if x.ID == id {
			return &x
		}
	}
	return nil
}

func (w *world) change(t testing.TB, id string, in rest.WebhookChange) rest.WebhookChanged {
	t.Helper()
	out, err := w.editor.Change(t.Context(), nil, id, in)
	if err != nil {
		t.Fatalf("change %s: %v", id, err)
	}
	return out
}

func (w *world) create(t testing.TB, in rest.WebhookChange) rest.WebhookChanged {
	t.Helper()
	out, err := w.editor.Create(t.Context(), nil, in)
	if err != nil {
		t.Fatalf("create: %v", err)
	}
	return out
}

// refused asserts that err is a refusal with this status whose message has all
// these words.
func refused(t testing.TB, err error, status int, words ...string) *webhookedit.Refusal {
	t.Helper()
	r, ok := errors.AsType[*webhookedit.Refusal](err)
	if !ok || r.Status != status {
		t.Fatalf("error %v (%+v), want a refusal with the status %d", err, r, status)
	}
	for _, word := range words {
		if !strings.Contains(r.Message, word) {
			t.Errorf("the message %q does not say %q", r.Message, word)
		}
	}
	return r
}
