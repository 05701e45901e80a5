package config

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/testhost"
)

func TestDropInsAreMergedInTheOrderOfTheirNames(t *testing.T) {
	dir := write(t, map[string]string{
		"config.yaml": `
retry: {schedule: [1m, 5m], timeout: 30s}
helpers:
  b:
    secret: ${env:SECRET}
    webhooks:
      w: {url: https://example.com/1, headers: {X-A: "1", X-B: "2"}}
  a: {fields: {z: number, y: string}}
`,
		"conf.d/20-second.yaml":  "retry: {schedule: [9s]}\nhelpers: {b: {webhooks: {w: {enabled: false, headers: {X-C: \"3\"}}}}}\n",
		"conf.d/10-first.yaml":   "retry: {schedule: [7s, 8s, 9s], timeout: 10s}\nhelpers: {c: {}, b: {webhooks: {w: {headers: {X-A: changed}}}}, a: {fields: {x: list}}}\n",
		"conf.d/.20-x.yaml.swp":  "not: [yaml",
		"conf.d/.#20-x.yaml":     "not: [yaml",
		"conf.d/#20-x.yaml#":     "not: [yaml",
		"conf.d/20-second.yaml~": "not: [yaml",
		"conf.d/4913":            "not: [yaml",
		"conf.d/README":          "not: [yaml",
	})
	c, r := Load(options(filepath.Join(dir, "config.yaml")))
	if c == nil || len(r.Findings) != 0 {
		t.Fatalf("findings:\n%s", text1(t, r))
	}
	wantFiles := []string{"config.yaml", "conf.d/10-first.yaml", "conf.d/20-second.yaml"}
	for i, f := range wantFiles {
		wantFiles[i] = filepath.Join(dir, f)
	}
	if !slices.Equal(r.Files, wantFiles) {
		t.Errorf("files %v", r.Files)
	}
	if want := []time.Duration{9 * time.Second}; !slices.Equal(c.Retry.Schedule, want) || c.Retry.Timeout != 10*time.Second {
		t.Errorf("a list is replaced, the rest stays: %+v", c.Retry)
	}
	var ids []string
	for _, h := range c.Helpers {
		ids = append(ids, h.ID)
	}
	if !slices.Equal(ids, []string{"b", "a", "c"}) {
		t.Errorf("helpers in the order of the files: %v", ids)
	}
	if want := []Field{{"z", "number"}, {"y", "string"}, {"x", "list"}}; !slices.Equal(c.Helpers[1].Fields, want) {
		t.Errorf("fields %v", c.Helpers[1].Fields)
	}
	w := c.Webhooks()[0]
	var headers []string
	for _, h := range w.Headers {
		headers = append(headers, h.Name+"="+h.Value.Reveal())
	}
	if want := []string{"X-A=changed", "X-B=2", "X-C=3"}; w.Enabled || !slices.Equal(headers, want) {
		t.Errorf("enabled %v, headers %v", w.Enabled, headers)
	}
}

func TestAFindingNamesTheFileThatHasTheValue(t *testing.T) {
	dir := write(t, map[string]string{
		"config.yaml":      base("        concurrency: 8"),
		"conf.d/a.yaml":    "\n\nhelpers: {h: {webhooks: {w: {concurrency: 5000}}}}\n",
		"conf.d/b.yaml":    "helpers: {h: {webhooks: {w: {concurency: 7}}}}\n",
		"conf.d/c.yml":     "log: {level: nonsense}\n",
		"conf.d/null.yaml": "helpers:\nretry:\n",
	})
	_, r := Load(options(filepath.Join(dir, "config.yaml")))
	type at struct {
		code, file string
		line, col  int
	}
	var got []at
	for _, f := range r.Findings {
		rel, _ := filepath.Rel(dir, f.File)
		got = append(got, at{f.Code, rel, f.Line, f.Column})
	}
	slices.SortFunc(got, func(a, b at) int { return strings.Compare(a.file, b.file) })
	want := []at{{codeOutOfRange, "conf.d/a.yaml", 3, 43}, {codeUnknownKey, "conf.d/b.yaml", 1, 30}, {codeIgnoredFile, "conf.d/c.yml", 0, 0}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

// What one file says is lost with it, so nothing may be concluded from that.
func TestABrokenFileIsTheOnlyErrorOfWhatItHides(t *testing.T) {
	dir := write(t, map[string]string{
		"config.yaml":   base() + "broken: [\n",
		"conf.d/a.yaml": "helpers: {h: {webhooks: {w: {enabled: false}}}}\n",
	})
	_, r := Load(options(filepath.Join(dir, "config.yaml")))
	if got := codes(r); !slices.Equal(got, []string{codeSyntax}) {
		t.Errorf("findings %v\n%s", got, text1(t, r))
	}
}

func TestFilesThatCannotBeRead(t *testing.T) {
	dir := write(t, map[string]string{"ok.yaml": base(), "sub/config.yaml/x": "", "huge.yaml": "# " + strings.Repeat("x", MaxFileBytes)})
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe.yaml"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, code := range map[string]string{
		filepath.Join(dir, "none.yaml"):       codeUnreadable,
		filepath.Join(dir, "ok.yaml", "x"):    codeUnreadable,
		filepath.Join(dir, "sub/config.yaml"): codeNotAFile,
		filepath.Join(dir, "pipe.yaml"):       codeNotAFile,
		filepath.Join(dir, "huge.yaml"):       codeTooLarge,
		"/dev/null":                           codeNotAFile,
	} {
		c, r := Load(options(path))
		if c != nil || len(r.Findings) == 0 || r.Findings[0].Code != code {
			t.Errorf("%s: %v, want %s", path, codes(r), code)
		}
	}
}

func TestAFileWithoutPermissionIsNamed(t *testing.T) {
	if testhost.AsUser(t) {
		return // root may read everything
	}
	dir := write(t, map[string]string{"config.yaml": base()})
	path := filepath.Join(dir, "config.yaml")
	if err := os.Chmod(path, 0); err != nil {
		t.Fatal(err)
	}
	_, r := Load(options(path))
	if text := text1(t, r); !strings.Contains(text, "permission denied") || strings.Count(text, path) != 1 {
		t.Errorf("got:\n%s", text)
	}
}

func TestDropInsThatCannotBeRead(t *testing.T) {
	dir := write(t, map[string]string{"config.yaml": base(), "conf.d/dir.yaml/x": ""})
	if err := os.Symlink("nowhere", filepath.Join(dir, "conf.d/dangling.yaml")); err != nil {
		t.Fatal(err)
	}
	_, r := Load(options(filepath.Join(dir, "config.yaml")))
	if got := codes(r); !slices.Equal(got, []string{codeUnreadable, codeNotAFile}) {
		t.Errorf("findings %v", got)
	}
	dir = write(t, map[string]string{"config.yaml": base(), "conf.d": "a file"})
	if _, r = Load(options(filepath.Join(dir, "config.yaml"))); r.Err() == nil {
		t.Error("a conf.d that is no directory is silently ignored")
	}
}

func TestTheDigestChangesWithEveryByteAndFile(t *testing.T) {
	secretFile := filepath.Join(t.TempDir(), "secret")
	writeFile(t, secretFile, strings.Repeat("a", 32), 0o600)
	main := strings.ReplaceAll(base(), "${env:SECRET}", "${file:"+secretFile+"}")
	dir := write(t, map[string]string{"config.yaml": main, "conf.d/a.yaml": "log: {level: info}\n"})
	digest := func() string {
		c, r := Load(options(filepath.Join(dir, "config.yaml")))
		if c == nil {
			t.Fatal(text1(t, r))
		}
		if !slices.Equal(r.References, []string{secretFile}) {
			t.Errorf("references %v", r.References)
		}
		return r.Digest
	}
	seen := map[string]string{digest(): "the first"}
	if len(seen) != 1 || seen[digest()] == "" {
		t.Fatal("the digest is not stable")
	}
	for _, step := range []struct{ what, path, content string }{
		{"the main file", "config.yaml", main + "\n"},
		{"a drop-in", "conf.d/a.yaml", "log: {level: warn}\n"},
		{"one more drop-in", "conf.d/b.yaml", "log: {}\n"},
		{"a secret's file", secretFile, strings.Repeat("b", 32)},
	} {
		path := step.path
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		writeFile(t, path, step.content, 0o600)
		d := digest()
		if seen[d] != "" {
			t.Errorf("changing %s leaves the digest of %s", step.what, seen[d])
		}
		seen[d] = step.what
	}
}

func TestFindFollowsTheSearchOrder(t *testing.T) {
	env := environment(map[string]string{PathVariable: "/from/env"})
	if got, err := Find("/from/flag", env); got != "/from/flag" || err != nil {
		t.Errorf("flag: %q, %v", got, err)
	}
	if got, err := Find("", env); got != "/from/env" || err != nil {
		t.Errorf("environment: %q, %v", got, err)
	}
	got, err := Find("", environment(nil))
	if _, statErr := os.Stat(DefaultPath); statErr == nil {
		if got != DefaultPath || err != nil {
			t.Errorf("default: %q, %v", got, err)
		}
	} else if !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), DefaultPath) {
		t.Errorf("default: %q, %v", got, err)
	}
}

func TestPathsDependOnTheEnvironment(t *testing.T) {
	for name, test := range map[string]struct {
		uid                  int
		env                  map[string]string
		events, admin, queue string
		failing              []string
	}{
		"systemd": {0, map[string]string{"RUNTIME_DIRECTORY": "/run/x:/run/y", "STATE_DIRECTORY": "/var/lib/x"}, "/run/x/events.sock", "/run/x/admin.sock", "/var/lib/x", nil},
		"root":    {0, nil, "/run/peanuts-relay/events.sock", "/run/peanuts-relay/admin.sock", "/var/lib/peanuts-relay", nil},
		"user":    {7, nil, "/run/user/1000/peanuts-relay/events.sock", "/run/user/1000/peanuts-relay/admin.sock", "/home/op/.local/state/peanuts-relay", nil},
		"relative XDG": {7, map[string]string{"XDG_RUNTIME_DIR": "x", "XDG_STATE_HOME": "y", "HOME": "/home/me"},
			"/run/user/7/peanuts-relay/events.sock", "/run/user/7/peanuts-relay/admin.sock", "/home/me/.local/state/peanuts-relay", nil},
		"nothing": {7, map[string]string{"XDG_STATE_HOME": ""}, "", "", "", []string{codeMissingKey}},
	} {
		dir := write(t, map[string]string{"config.yaml": base()})
		c, r := Load(Options{Path: filepath.Join(dir, "config.yaml"), LookupEnv: environment(test.env), Getuid: func() int { return test.uid }})
		if !slices.Equal(codes(r), test.failing) {
			t.Errorf("%s: findings %v", name, codes(r))
		}
		if c != nil && (c.Listen.Events != test.events || c.Listen.Admin != test.admin || c.Queue.Dir != test.queue) {
			t.Errorf("%s: %q %q %q", name, c.Listen.Events, c.Listen.Admin, c.Queue.Dir)
		}
	}
}

func TestManyDropInsAndWebhooksLoadInTime(t *testing.T) {
	files := map[string]string{"config.yaml": base()}
	for i := range 500 {
		files[fmt.Sprintf("conf.d/%03d.yaml", i)] = fmt.Sprintf("helpers: {h: {webhooks: {w%d: {url: \"https://example.com/%d\"}}}}\n", i, i)
	}
	start := time.Now()
	c, r := Load(options(filepath.Join(write(t, files), "config.yaml")))
	if c == nil || len(c.Webhooks()) != 501 {
		t.Fatal(text1(t, r))
	}
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("500 drop-ins took %v", took)
	}
}

func TestTooManyWebhooksOfOneHelper(t *testing.T) {
	var b strings.Builder
	b.WriteString(base())
	for i := range 4096 {
		fmt.Fprintf(&b, "      w%d: {url: https://example.com/%d}\n", i, i)
	}
	if _, r := loadText(t, b.String()); !slices.Equal(codes(r), []string{codeTooMany}) {
		t.Errorf("findings %v", codes(r))
	}
}

func TestTheTextShowsTwentyAndPrefersErrors(t *testing.T) {
	r := &Report{}
	for i := range 30 {
		r.Findings = append(r.Findings, Finding{Severity: SeverityWarning, Message: "w", File: "f", Line: i + 1})
	}
	for i := range 15 {
		r.Findings = append(r.Findings, Finding{Severity: SeverityError, Message: "e", File: "f", Line: i + 100})
	}
	text := text1(t, r)
	if e, w := strings.Count(text, "error: "), strings.Count(text, "warning: "); e != 15 || w != 5 || !strings.HasSuffix(text, "\nand 25 more warnings\n") {
		t.Errorf("%d errors, %d warnings:\n%s", e, w, text)
	}
	invalid, ok := errors.AsType[*InvalidError](r.Err())
	if !ok || invalid.Errors != 15 || invalid.First.Line != 100 || invalid.Error() != "invalid configuration: f:100: e (and 14 more)" {
		t.Errorf("error %v", r.Err())
	}
}

func TestAReportWithoutFindingsIsAnEmptyArray(t *testing.T) {
	var b bytes.Buffer
	if err := (&Report{}).WriteJSON(&b); err != nil || b.String() != "[]\n" {
		t.Errorf("%q, %v", b.String(), err)
	}
}

func TestTheConversionCannotDropAKeySilently(t *testing.T) {
	for name, tree := range map[string]map[string]any{
		"unknown key":    {"lisen": map[string]any{}},
		"other case":     {"Listen": map[string]any{}},
		"number as text": {"helpers": []any{map[string]any{"-id": "h", "webhooks": []any{map[string]any{"-id": "w", "concurrency": "8"}}}}},
	} {
		if err := assign(&Config{}, tree); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

// Every leaf that koanf merged has a place, and the other way round.
func TestPlacesMirrorWhatKoanfMerges(t *testing.T) {
	a, b := place{children: map[string]*place{}}, place{children: map[string]*place{}}
	leaf := func() *place { return &place{} }
	a.add("keep", leaf())
	sub := &place{children: map[string]*place{}}
	sub.add("x", leaf())
	a.add("map", sub)
	a.add("scalar", leaf())
	b.add("map", leaf())
	other := &place{children: map[string]*place{}}
	other.add("y", leaf())
	b.add("scalar", other)
	m := a.merge(&b)
	if m.children["map"].isMap() || !m.children["scalar"].isMap() || !slices.Equal(m.order, []string{"keep", "map", "scalar"}) {
		t.Errorf("merged %+v", m)
	}
}

func TestWhatADropInLeavesOfARemovedWebhookIsExplained(t *testing.T) {
	files := map[string]string{"config.yaml": "helpers: {crm: {webhooks: {}}}\n", "conf.d/90-api.yaml": "helpers: {crm: {webhooks: {old: {enabled: false}}}}\n"}
	_, report := Load(Options{Path: filepath.Join(write(t, files), "config.yaml")})
	if text := report.Text(); !strings.Contains(text, "conf.d/90-api.yaml:1:") || !strings.Contains(text, "if another file had the webhook and it is to be gone, remove it here too") {
		t.Error(text)
	}
}

// Each drop-in costs what it costs alone: what is allocated grows with the number
// of files, not with its square.
func TestManyDropInsAreMergedInOneGo(t *testing.T) {
	allocated := func(n int) uint64 {
		files := []File{{Path: "/c/config.yaml", Data: []byte("helpers: {}\n")}}
		for i := range n {
			files = append(files, File{Path: fmt.Sprintf("/c/conf.d/%04d.yaml", i), Data: fmt.Appendf(nil, "helpers: {h%d: {command: /x}}\n", i)})
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		cfg, report := Load(Options{Files: files})
		runtime.ReadMemStats(&after)
		if report.Err() != nil || len(cfg.Helpers) != n {
			t.Fatal(report.Text())
		}
		return after.TotalAlloc - before.TotalAlloc
	}
	few, many := allocated(250), allocated(2000)
	if many > 16*few { // 8 times the files
		t.Errorf("250 files allocate %d bytes, 2000 allocate %d", few, many)
	}
}
