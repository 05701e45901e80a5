package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/config"
	"github.com/peanutsapp/peanuts-relay/internal/testhost"
)

// numberedSecret signs in configuration n.
func numberedSecret(n int) string { return fmt.Sprintf("secret-of-configuration-%06d", n) }

// checker is the receiver of the reload tests. Every configuration has a number,
// which is in the path and in a header of each request, and in the secret that signs
// it: a request made with half of one configuration and half of another shows.
// Some requests take longer than several reloads; some fail at first.
type checker struct {
	*httptest.Server
	cuts     bool       // whoever sends is killed in the middle now and then
	mu       sync.Mutex // guards the rest
	accepted map[string]int
	bodies   map[string][32]byte
	refused  map[int]bool // configurations that must never run
	latest   int          // of those that exist
	wrong    []string
	requests int
	slow     int
}

func newChecker(t *testing.T) *checker {
	c := &checker{accepted: map[string]int{}, bodies: map[string][32]byte{}, refused: map[int]bool{}}
	c.Server = httptest.NewServer(c)
	t.Cleanup(c.Close)
	return c
}

// offer says that configuration n exists from now on; a bad one must not run.
func (c *checker) offer(n int, bad bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.latest, c.refused[n] = max(c.latest, n), bad
}

func (c *checker) complain(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wrong = append(c.wrong, fmt.Sprintf(format, args...))
}

func (c *checker) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	id, attempt := req.Header.Get("X-Peanuts-Delivery"), req.Header.Get("X-Peanuts-Attempt")
	body, err := io.ReadAll(req.Body)
	if err != nil {
		c.cutOff(id, attempt)
		return
	}
	c.judge(req, id, body)
	sum := crc32.ChecksumIEEE([]byte(id))
	if sum%8 == 0 {
		select {
		case <-time.After(time.Duration(sum/8%300) * time.Millisecond):
		case <-req.Context().Done():
			c.cutOff(id, attempt)
			return
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests++
	if sum%8 == 0 {
		c.slow++
	}
	if sum%5 == 0 && attempt == "1" {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	c.accepted[id]++
}

// cutOff notes an attempt that its sender gave up.
func (c *checker) cutOff(id, attempt string) {
	if !c.cuts {
		c.complain("delivery %s: attempt %s was cancelled", id, attempt)
	}
}

// judge compares the parts of a request with each other.
func (c *checker) judge(req *http.Request, id string, body []byte) {
	parts := strings.Split(strings.TrimPrefix(req.URL.Path, "/"), "/")
	if len(parts) != 2 {
		c.complain("delivery %s: path %q", id, req.URL.Path)
		return
	}
	n, err := strconv.Atoi(parts[1])
	if err != nil || req.Header.Get("X-Config") != parts[1] {
		c.complain("delivery %s: path %q and header %q are of two configurations", id, req.URL.Path, req.Header.Get("X-Config"))
		return
	}
	mac := hmac.New(sha256.New, []byte(numberedSecret(n)))
	mac.Write(body)
	signed := req.Header.Get("X-Peanuts-Signature") == "sha256="+hex.EncodeToString(mac.Sum(nil))
	hash := sha256.Sum256(body)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !signed {
		c.wrong = append(c.wrong, fmt.Sprintf("delivery %s: path %q is not signed with the secret of its configuration", id, req.URL.Path))
	}
	if c.refused[n] || n > c.latest {
		c.wrong = append(c.wrong, fmt.Sprintf("delivery %s: configuration %d must not run", id, n))
	}
	if before, ok := c.bodies[id]; ok && before != hash {
		c.wrong = append(c.wrong, fmt.Sprintf("delivery %s came with two payloads", id))
	}
	c.bodies[id] = hash
}

// reloads is a daemon's directory whose configuration changes all the time.
type reloads struct {
	*site
	c     *checker
	rng   *rand.Rand
	n     int // number of the newest configuration
	hooks map[string]bool
}

// newReloads writes a first configuration.
func newReloads(t *testing.T) *reloads {
	w := &reloads{site: newSite(t, "", ""), c: newChecker(t), rng: testhost.Chance(t), hooks: map[string]bool{"a": true, "b": true, "c": true}}
	if err := os.Mkdir(filepath.Join(w.dir, "conf.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	w.save(w.config(), w.text(w.hooks))
	return w
}

// hook is one webhook of configuration n; extra are further keys.
func (w *reloads) hook(name string, n int, extra string) string {
	return fmt.Sprintf(`%s: {url: "%s/%s/%d", headers: {X-Config: "%d"}, secret: %s%s}`, name, w.c.URL, name, n, n, numberedSecret(n), extra)
}

// text is the next configuration, with these webhooks.
func (w *reloads) text(hooks map[string]bool) string {
	w.n++
	w.c.offer(w.n, false)
	var b strings.Builder
	fmt.Fprintf(&b, "listen: {events: %[1]s/events.sock, admin: %[1]s/admin.sock}\nqueue: {dir: %[2]s, min_free: 128MiB}\n", w.dir, w.data)
	fmt.Fprintf(&b, "retry: {timeout: 30s, schedule: [%dms, 1s, 5s]}\nhelpers:\n  crash:\n    name: Crash\n    webhooks:\n", 20+w.rng.IntN(100))
	names := make([]string, 0, len(hooks))
	for name := range hooks {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Fprintf(&b, "      %s\n", w.hook(name, w.n, fmt.Sprintf(", concurrency: %d", 1+w.rng.IntN(12))))
	}
	return b.String()
}

// save replaces a file in one of the ways in which it is done.
func (w *reloads) save(path, text string) {
	w.t.Helper()
	var err error
	if w.rng.IntN(2) == 0 {
		err = os.WriteFile(path, []byte(text), 0o600)
	} else if err = os.WriteFile(path+"~", []byte(text), 0o600); err == nil {
		err = os.Rename(path+"~", path)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *reloads) dropIn(name string) string { return filepath.Join(w.dir, "conf.d", name) }

// without is w.hooks but for one.
func (w *reloads) without(name string) map[string]bool {
	out := map[string]bool{}
	for h := range w.hooks {
		if h != name {
			out[h] = true
		}
	}
	return out
}

// edit changes the files in some way.
func (w *reloads) edit() {
	w.t.Helper()
	switch w.rng.IntN(14) {
	case 0, 1, 2, 3: // url, header, secret, retries, concurrency of every webhook
		w.save(w.config(), w.text(w.hooks))
	case 4: // a webhook leaves
		w.save(w.config(), w.text(w.without("b")))
	case 5: // a webhook is disabled
		w.save(w.config(), strings.Replace(w.text(w.hooks), "concurrency", "enabled: false, concurrency", 1))
	case 6: // fewer events
		w.save(w.config(), strings.Replace(w.text(w.hooks), "concurrency", "events: delete, concurrency", 1))
	case 7: // the helper leaves
		w.save(w.config(), strings.Replace(w.text(w.hooks), "  crash:", "  other:", 1))
	case 8: // a drop-in comes, or is another one
		w.n++
		w.c.offer(w.n, false)
		w.save(w.dropIn("50-d.yaml"), fmt.Sprintf("helpers:\n  crash:\n    webhooks:\n      %s\n", w.hook("d", w.n, "")))
		w.hooks["d"] = true // of every full configuration from now on
	case 9: // or goes
		os.Remove(w.dropIn("50-d.yaml"))
	case 10: // only a comment
		w.append("# nothing\n")
	case 11: // not YAML any more
		w.bad(w.text(w.hooks) + "helpers: [\n")
	case 12: // an unknown key, or a reference to nothing
		w.bad(w.text(w.hooks) + []string{"nonsense: 1\n", "secret: \"${file:/nonexistent/secret}\"\n"}[w.rng.IntN(2)])
	case 13: // an empty file
		w.save(w.config(), "")
	}
}

// bad saves a configuration that is to be refused.
func (w *reloads) bad(text string) {
	w.t.Helper()
	w.c.offer(w.n, true)
	w.save(w.config(), text)
}

func (w *reloads) append(text string) {
	w.t.Helper()
	now, err := os.ReadFile(w.config())
	if err != nil {
		w.t.Fatal(err)
	}
	w.save(w.config(), string(now)+text)
}

// files is what the files say now: their digest, and whether they are valid.
func (w *reloads) files() (digest string, valid bool) {
	_, report := config.Load(config.Options{Path: w.config()})
	return report.Digest, report.Err() == nil
}

// caughtUp waits until the daemon has seen the files as they are.
func (w *reloads) caughtUp() {
	w.t.Helper()
	digest, valid := w.files()
	until(w.t, "the daemon to see the files", func() bool {
		c := w.status().Config
		if c.FileDigest != digest {
			return false
		}
		if valid && c.Digest != digest || valid != (c.State == "current") {
			w.t.Fatalf("the files have digest %s, valid %v; the daemon says %+v", digest, valid, c)
		}
		return true
	})
}
