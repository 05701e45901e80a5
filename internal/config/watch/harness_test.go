package watch

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must come. It is a bound for machines
// that are slow, not a measure.
const patience = 30 * time.Second

// never is a period whose end no test sees.
const never = time.Hour

// site is the files of a daemon in a directory of their own:
// etc/config.yaml, etc/conf.d/10-a.yaml and secrets/token, which the first refers to.
type site struct {
	t     testing.TB
	root  string
	paths Paths
}

func newSite(t testing.TB) *site {
	t.Helper()
	// Without links, so that a test can say which directories are watched.
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, root: root}
	s.paths = Paths{
		Main:       s.at("etc/config.yaml"),
		DropIns:    s.at("etc/conf.d"),
		References: []string{s.at("secrets/token")},
	}
	s.sh(`mkdir -p etc/conf.d secrets
		echo "v: 1" >etc/config.yaml
		echo "d: 1" >etc/conf.d/10-a.yaml
		echo "secret 1" >secrets/token`)
	return s
}

func (s *site) at(path string) string { return filepath.Join(s.root, path) }

// sh runs a script in the site's root. "." is its home, where no settings of
// the user are found.
func (s *site) sh(script string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	c := exec.CommandContext(ctx, "sh", "-euc", script)
	c.Dir = s.root
	c.Env = append(os.Environ(), "HOME="+s.root, "TERM=dumb", "GIT_CONFIG_NOSYSTEM=1")
	if out, err := c.CombinedOutput(); err != nil {
		s.t.Fatalf("%v: %s\n%s", err, script, out)
	}
}

// add puts a line at the end of a file, in one write: nobody sees half of it.
func (s *site) add(path, line string) {
	s.t.Helper()
	f, err := os.OpenFile(s.at(path), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	_, err = f.WriteString(line + "\n")
	if err := errors.Join(err, f.Close()); err != nil {
		s.t.Fatal(err)
	}
}

// digest is what a daemon compares: the content of all files, and which cannot
// be read.
func (p Paths) digest() string {
	files := append([]string{p.Main}, p.References...)
	entries, err := os.ReadDir(p.DropIns)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		files = append(files, p.DropIns) // cannot be read as a file either
	}
	for _, e := range entries {
		if DropIn(e.Name()) {
			files = append(files, filepath.Join(p.DropIns, e.Name()))
		}
	}
	h := sha256.New()
	for _, file := range files {
		data, err := os.ReadFile(file)
		fmt.Fprintf(h, "%q %t %q\n", file, err != nil, data)
	}
	return string(h.Sum(nil))
}

// reloader does with the signals what a daemon does: it compares, and reloads
// when the content is another than at the last reload.
type reloader struct {
	t     testing.TB
	w     *Watcher
	paths Paths

	mu       sync.Mutex
	digest   string
	compared int
	reloads  int
	last     time.Time // of the last reload
}

// reload watches the site until the end of the test. The first signal, which
// every Set causes, has been dealt with when it returns.
func (s *site) reload(o Options) *reloader {
	s.t.Helper()
	r := &reloader{t: s.t, w: New(o), paths: s.paths, digest: s.paths.digest()}
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-r.w.Changed():
				r.compare()
			}
		}
	})
	s.t.Cleanup(func() {
		close(stop)
		wg.Wait()
		if err := r.w.Close(); err != nil {
			s.t.Error(err)
		}
	})
	r.w.Set(s.paths)
	r.await("the signal that follows Set", func() bool { return r.compared > 0 })
	if reloads, _ := r.count(); reloads != 0 {
		s.t.Fatal("reloaded before anything changed")
	}
	return r
}

func (r *reloader) compare() {
	digest := r.paths.digest()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.compared++
	if digest != r.digest {
		r.digest = digest
		r.reloads++
		r.last = time.Now()
	}
}

// await waits for a condition over the reloader, which is locked meanwhile.
func (r *reloader) await(what string, holds func() bool) {
	r.t.Helper()
	if !r.holds(holds) {
		r.t.Fatalf("%s did not come within %v", what, patience)
	}
}

func (r *reloader) holds(condition func() bool) bool {
	ask := time.NewTicker(2 * time.Millisecond)
	defer ask.Stop()
	for end := time.Now().Add(patience); time.Now().Before(end); <-ask.C {
		r.mu.Lock()
		ok := condition()
		r.mu.Unlock()
		if ok {
			return true
		}
	}
	return false
}

// noticed waits until what is on the disk now is what was loaded last.
func (r *reloader) noticed(what string) {
	r.t.Helper()
	digest := r.paths.digest()
	r.await("the reload after "+what, func() bool { return r.digest == digest })
}

func (r *reloader) count() (reloads, compared int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.reloads, r.compared
}

// mode waits until the watcher is in a mode.
func (r *reloader) mode(want string) {
	r.t.Helper()
	r.await("the mode "+want, func() bool { return r.w.Mode() == want })
}

// lines joins the lines of a script.
func lines(l ...string) string { return strings.Join(l, "\n") }
