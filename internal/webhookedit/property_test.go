package webhookedit_test

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/peanutsapp/peanuts-relay/internal/config"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
	"github.com/peanutsapp/peanuts-relay/internal/webhookedit"
)

// intended is what a webhook should be after the edits so far.
type intended struct {
	url, secret string
	enabled     bool
	headers     map[string]string
	operators   bool // another file defines it
}

// operatorsFiles are never to be written.
func operatorsFiles() map[string]string {
	return map[string]string{
		"config.yaml": "# the operator's\nhelpers:\n  h:\n    secret: 0123456789abcdef0123456789abcdef\n    webhooks:\n" +
			"      a: {url: 'https://example.com/a', headers: {X-A: a}} # on\n      b: {url: 'https://example.com/b', enabled: false}\n  i: {secret: 0123456789abcdef0123456789abcdef}\n",
		"conf.d/50-more.yaml": "helpers: {h: {webhooks: {a: {headers: {X-B: b}}}}}\n",
		"conf.d/95-late.yaml": "# nothing of a webhook\nlog: {level: debug}\n",
	}
}

func start() map[string]*intended {
	return map[string]*intended{
		"h.a": {url: "https://example.com/a", secret: "0123456789abcdef0123456789abcdef", enabled: true, headers: map[string]string{"X-A": "a", "X-B": "b"}, operators: true},
		"h.b": {url: "https://example.com/b", secret: "0123456789abcdef0123456789abcdef", headers: map[string]string{}, operators: true},
	}
}

// model checks every step of a sequence of edits.
type model struct {
	*world
	want map[string]*intended
}

func (m *model) value(t *rapid.T) string {
	return rapid.OneOf(rapid.SampledFrom([]string{"prod", "a", "b", "$", "${env:PLANTED}", "true", "~", "", "#x", "{a: b}", "0x1"}), rapid.StringMatching(`[ -~]{0,20}`)).
		Filter(func(s string) bool { return strings.TrimSpace(s) == s }).Draw(t, "value")
}

func (m *model) request(t *rapid.T, w *intended, create bool) rest.WebhookChange {
	var in rest.WebhookChange
	if create || rapid.Bool().Draw(t, "url") {
		w.url = "https://example.com/" + rapid.SampledFrom([]string{"a", "b", "c?x=$1", "${env:PLANTED}"}).Draw(t, "path")
		in.URL = &w.url
	}
	if create || rapid.IntRange(0, 4).Draw(t, "secret") == 0 {
		w.secret = "0123456789abcdef01234567" + m.value(t)
		in.Secret = &w.secret
	}
	if create || rapid.Bool().Draw(t, "active") {
		w.enabled = rapid.Bool().Draw(t, "enabled")
		in.Active = &w.enabled
	}
	for _, name := range []string{"X-A", "X-B", "X-C"} {
		if rapid.IntRange(0, 2).Draw(t, name) == 0 {
			if in.Headers == nil {
				in.Headers = map[string]*string{}
			}
			value := m.value(t)
			in.Headers[name], w.headers[name] = &value, value
		}
	}
	return in
}

func (m *model) create(t *rapid.T) {
	id := rapid.SampledFrom([]string{"a", "c", "d"}).Draw(t, "id")
	helper := rapid.SampledFrom([]string{"h", "i"}).Draw(t, "helper")
	w := &intended{headers: map[string]string{}}
	in := m.request(t, w, true)
	in.Helper, in.ID = &helper, &id
	_, err := m.editor.Create(context.Background(), nil, in)
	if m.want[helper+"."+id] != nil {
		m.expect(t, err, 409)
		return
	}
	m.expect(t, err, 0)
	m.want[helper+"."+id] = w
}

func (m *model) change(t *rapid.T) {
	id := m.pick(t)
	w := *m.want[id]
	w.headers = maps.Clone(w.headers)
	_, err := m.editor.Change(context.Background(), nil, id, m.request(t, &w, false))
	m.expect(t, err, 0)
	m.want[id] = &w
}

func (m *model) drop(t *rapid.T) {
	id := m.pick(t)
	err := m.editor.Delete(context.Background(), nil, id)
	if m.want[id].operators {
		m.expect(t, err, 409)
		return
	}
	m.expect(t, err, 0)
	delete(m.want, id)
}

func (m *model) pick(t *rapid.T) string {
	return rapid.SampledFrom(slices.Sorted(maps.Keys(m.want))).Draw(t, "webhook")
}

func (m *model) expect(t *rapid.T, err error, status int) {
	r, _ := errors.AsType[*webhookedit.Refusal](err)
	if status == 0 && err != nil || status != 0 && (r == nil || r.Status != status) {
		t.Fatalf("error %v (%+v), want the status %d", err, r, status)
	}
}

// check compares what the files say with what was intended.
func (m *model) check(t *rapid.T) {
	for name, content := range operatorsFiles() {
		if data, err := os.ReadFile(filepath.Join(m.dir, name)); err != nil || string(data) != content {
			t.Fatalf("%s was written: %v\n%s", name, err, data)
		}
	}
	cfg, report := m.load(nil)
	if cfg == nil {
		t.Fatalf("the files are invalid: %v", report.Err())
	}
	if d := config.Diff(m.get(), cfg); len(d) > 0 {
		t.Fatalf("what runs is not what the files say: %v", d)
	}
	webhooks := cfg.Webhooks()
	if len(webhooks) != len(m.want) || len(report.References) > 0 || len(cfg.Helpers) != 2 {
		t.Fatalf("%d webhooks, want %d; references %v; %d helpers", len(webhooks), len(m.want), report.References, len(cfg.Helpers))
	}
	for _, got := range webhooks {
		want := m.want[got.ID]
		if want == nil || got.URL.Reveal() != want.url || got.Enabled != want.enabled || got.Secrets[0].Reveal() != want.secret || len(got.Headers) != len(want.headers) {
			t.Fatalf("%s is %+v with the url %q, want %+v", got.ID, got, got.URL.Reveal(), want)
		}
		for _, h := range got.Headers {
			if h.Value.Reveal() != want.headers[h.Name] {
				t.Fatalf("the header %s of %s is %q, want %q", h.Name, got.ID, h.Value.Reveal(), want.headers[h.Name])
			}
		}
	}
}

func TestAnySequenceOfEditsGivesWhatWasAskedFor(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := &model{world: newWorld(t, operatorsFiles()), want: start()}
		rt.Repeat(map[string]func(*rapid.T){"create": m.create, "change": m.change, "delete": m.drop, "": m.check})
	})
}

// FuzzExistingFile edits files that somebody else wrote.
func FuzzExistingFile(f *testing.F) {
	for _, seed := range []string{
		"helpers: {}\n", "# only\nlog: {level: info}\n", "helpers:\n  expenses:\n    webhooks:\n", "{helpers: {expenses: {webhooks: {backend: {enabled: false}}}}}",
		"\xef\xbb\xbfhelpers:\r\n  expenses: # c\r\n    name: x\r\n", "x: &x {}\nhelpers: *x\n", "helpers: {expenses: &e {webhooks: {z: {url: 'https://example.com/z'}}}}\n",
		"%YAML 1.2\n---\n? helpers\n: expenses:\n    name: |\n      text\n...\n", "helpers: {expenses: {webhooks: {new: {enabled: true}}}}\n",
	} {
		f.Add([]byte(seed))
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, file []byte) {
		if len(file) > 1<<14 {
			t.Skip("larger inputs only cost time")
		}
		w := &world{daemon: &daemon{main: filepath.Join(dir, "config.yaml")}, dir: dir}
		w.editor = w.newEditor()
		write(t, w.main, mainFile)
		write(t, filepath.Join(dir, "conf.d/90-api.yaml"), string(file))
		before, _ := w.load(nil)
		_, err := w.editor.Create(t.Context(), nil, rest.WebhookChange{ID: new("new"), Helper: new("expenses"), URL: new("https://example.com/new")})
		if before == nil {
			refused(t, err, 422)
		}
		if err != nil {
			if _, ok := errors.AsType[*webhookedit.Refusal](err); !ok {
				t.Fatalf("error %v", err)
			}
			if w.own(t) != string(file) {
				t.Fatalf("a refused edit wrote\n%s", w.own(t))
			}
			return
		}
		if err := w.editor.Delete(t.Context(), nil, "expenses.new"); err != nil {
			t.Fatal(err)
		}
		after, report := w.load(nil)
		if after == nil {
			t.Fatal(report.Err())
		}
		if d := config.Diff(before, after); len(d) > 0 {
			t.Fatalf("a webhook that came and went changed %v:\n%s", d, w.own(t))
		}
	})
}
