package webhookedit_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/rest"
	"github.com/peanutsapp/peanuts-relay/internal/webhookedit"
)

func TestANewWebhookIsInItsFileAndRuns(t *testing.T) {
	w := newWorld(t, nil)
	made := w.create(t, rest.WebhookChange{ID: new("new"), URL: new("https://example.com/n?a=1&b=$2"), Events: &[]string{"create", "delete"},
		Headers: map[string]*string{"X-A": new("1"), "Authorization": new("Bearer x")}, Secret: new("my-own-secret-of-enough-bytes"), Active: new(false)})
	want := `helpers:
  expenses:
    webhooks:
      new:
        url: https://example.com/n?a=1&b=$$2
        secret: my-own-secret-of-enough-bytes
        events: [create, delete]
        headers:
          Authorization: "Bearer x"
          X-A: "1"
        enabled: false
`
	if got := w.keys(t); got != want {
		t.Errorf("the file is\n%s\nwant\n%s", got, want)
	}
	if !strings.HasPrefix(w.own(t), "# Written by peanuts-relay") {
		t.Error("the file does not say who writes it")
	}
	if made.ID != "expenses.new" || made.Active || made.Secret != "" || made.CreatedAt.IsZero() || made.File == "" || strings.Contains(made.URL, "$2") ||
		strings.Join(made.Events, " ") != "entry.created entry.deleted" {
		t.Errorf("the answer is %+v", made)
	}
	runs := w.webhook("expenses.new")
	if runs == nil || runs.URL.Reveal() != "https://example.com/n?a=1&b=$2" || runs.Enabled || runs.Secrets[0].Reveal() != "my-own-secret-of-enough-bytes" {
		t.Errorf("what runs is %+v", runs)
	}
	for name, mode := range map[string]os.FileMode{"conf.d": os.ModeDir | 0o750, "conf.d/" + webhookedit.FileName: 0o600} {
		if info, err := os.Stat(filepath.Join(w.dir, name)); err != nil || info.Mode()&^0o027 != mode&^0o027 {
			t.Errorf("%s has the mode %v, %v", name, info.Mode(), err)
		}
	}
}

func TestAnIDAndASecretAreMadeWhenThereAreNone(t *testing.T) {
	w := newWorld(t, nil)
	seen := map[string]bool{}
	for range 5 {
		made := w.create(t, rest.WebhookChange{URL: new("https://example.com/" + fmt.Sprint(len(seen)))})
		if !regexp.MustCompile(`^expenses\.wh-[a-z2-7]{6}$`).MatchString(made.ID) || seen[made.ID] || seen[made.Secret] {
			t.Errorf("made %+v", made)
		}
		seen[made.ID], seen[made.Secret] = true, true
		key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(made.Secret, "whsec_"))
		if err != nil || len(key) != 32 || !strings.HasPrefix(made.Secret, "whsec_") {
			t.Errorf("the secret has %d bytes, %v", len(key), err)
		}
		if got := w.webhook(made.ID).Secrets[0].Reveal(); got != made.Secret {
			t.Error("another secret runs")
		}
		if len(made.Events) != 3 || !made.Active {
			t.Errorf("the answer is %+v", made)
		}
	}
}

func TestSwitchingOffAndOnLeavesNoTrace(t *testing.T) {
	w := newWorld(t, nil)
	off := w.change(t, "expenses.backend", rest.WebhookChange{Active: new(false)})
	if got, want := w.keys(t), "helpers:\n  expenses:\n    webhooks:\n      backend:\n        enabled: false\n"; got != want {
		t.Errorf("the file is\n%s", got)
	}
	if off.Active || off.File == "" || w.webhook("expenses.backend").Enabled {
		t.Errorf("the answer is %+v", off)
	}
	again := w.change(t, "expenses.backend", rest.WebhookChange{Active: new(false)})
	if again.File != "" || w.reloads != 1 {
		t.Errorf("switching off again wrote %q, %d reloads", again.File, w.reloads)
	}
	on := w.change(t, "expenses.backend", rest.WebhookChange{Active: new(true)})
	if !on.Active || w.own(t) != "" || !w.webhook("expenses.backend").Enabled {
		t.Errorf("the answer is %+v, the file\n%s", on, w.own(t))
	}
}

func TestWhatTheOperatorsFilesSayAnywayIsNotWritten(t *testing.T) {
	w := newWorld(t, nil)
	w.change(t, "expenses.backend", rest.WebhookChange{URL: new("https://example.com/b"), Headers: map[string]*string{"x-env": new("staging"), "X-New": new("new")}})
	want := "helpers:\n  expenses:\n    webhooks:\n      backend:\n        url: https://example.com/b\n        headers:\n          X-New: new\n          X-Env: staging\n"
	if got := w.keys(t); got != want {
		t.Errorf("the file is\n%s", got)
	}
	w.change(t, "expenses.backend", rest.WebhookChange{URL: new("https://example.com/a"), Headers: map[string]*string{"X-ENV": new("prod")}, Active: new(true)})
	if got, want := w.keys(t), "helpers:\n  expenses:\n    webhooks:\n      backend:\n        headers:\n          X-New: new\n"; got != want {
		t.Errorf("the file is\n%s", got)
	}
	w.change(t, "expenses.backend", rest.WebhookChange{Headers: map[string]*string{"X-New": nil}})
	if w.own(t) != "" {
		t.Errorf("the file is\n%s", w.own(t))
	}
}

func TestCommentsAndOrderOfTheFileStay(t *testing.T) {
	const file = `# kept: top
helpers:
  # kept: helper
  expenses:
    webhooks:
      zebra: # kept: zebra
        # kept: url
        enabled: true # kept: line
        url: https://example.com/z
      # kept: backend
      backend: {enabled: false} # kept: flow
`
	w := newWorld(t, map[string]string{"conf.d/90-api.yaml": file})
	w.create(t, rest.WebhookChange{ID: new("new"), URL: new("https://example.com/n"), Secret: new("0123456789abcdef01234567")})
	w.change(t, "expenses.zebra", rest.WebhookChange{URL: new("https://example.com/zz"), Active: new(false)})
	got := w.own(t)
	if strings.Count(got, "# kept: ") != strings.Count(file, "# kept: ") {
		t.Errorf("comments are lost:\n%s", got)
	}
	for _, words := range []string{"enabled: false # kept: line\n        url: https://example.com/zz\n", "backend: {enabled: false} # kept: flow\n"} {
		if !strings.Contains(got, words) {
			t.Errorf("the file does not have %q:\n%s", words, got)
		}
	}
	if err := w.editor.Delete(t.Context(), nil, "expenses.new"); err != nil {
		t.Fatal(err)
	}
	w.change(t, "expenses.zebra", rest.WebhookChange{URL: new("https://example.com/z")})
	if got := w.own(t); strings.Contains(got, "new") || !strings.Contains(got, "# kept: backend") {
		t.Errorf("after the deletion the file is\n%s", got)
	}
}

func TestTheLastWebhookTakesTheFileWithIt(t *testing.T) {
	w := newWorld(t, nil)
	made := w.create(t, rest.WebhookChange{URL: new("https://example.com/n")})
	if err := w.editor.Delete(t.Context(), nil, made.ID); err != nil {
		t.Fatal(err)
	}
	if w.own(t) != "" || w.webhook(made.ID) != nil {
		t.Errorf("the file is\n%s", w.own(t))
	}
	// A comment of the operator's, or a helper of the file, is more than nothing.
	for _, file := range []string{
		"# mine\n\nhelpers: {expenses: {webhooks: {x: {url: 'https://example.com/x'}}}}\n",
		"helpers: {other: {webhooks: {x: {url: 'https://example.com/x', signatures: none}}}}\n",
	} {
		w := newWorld(t, map[string]string{"conf.d/90-api.yaml": file})
		id := "expenses.x"
		if w.webhook(id) == nil {
			id = "other.x"
		}
		if err := w.editor.Delete(t.Context(), nil, id); err != nil {
			t.Fatal(err)
		}
		if w.own(t) == "" || w.webhook(id) != nil {
			t.Errorf("of %q is left %q", file, w.own(t))
		}
	}
}

func TestAValueFromOutsideNeverBecomesAReference(t *testing.T) {
	w := newWorld(t, nil)
	for _, value := range []string{"${env:PLANTED}", "$${env:PLANTED}", "${file:/etc/passwd}", "$", "$$", "a$b", "${", "$}{", "'\"#: {[&*!|>%@`", "0660", "null", "yes", "2024-01-01", "<<", "~", "- x", "ümläut\u2028"} {
		made := w.create(t, rest.WebhookChange{URL: new("https://example.com/" + fmt.Sprint(w.reloads)), Headers: map[string]*string{"X-V": &value}, Secret: new("0123456789abcdef01234567" + value)})
		runs := w.webhook(made.ID)
		if got := runs.Headers[0].Value.Reveal(); got != value {
			t.Errorf("%q has become %q", value, got)
		}
		if got := runs.Secrets[0].Reveal(); got != "0123456789abcdef01234567"+value {
			t.Errorf("as a secret %q has become %q", value, got)
		}
	}
	_, report := w.load(nil)
	if len(report.References) != 0 {
		t.Errorf("the files refer to %v", report.References)
	}
}

func TestAnOperatorsFileDecides(t *testing.T) {
	later := map[string]string{"conf.d/95-late.yaml": "helpers: {expenses: {webhooks: {backend: {enabled: true, headers: {X-Env: late}}, made: {format: event}}}}\n",
		"conf.d/90-api.yaml": "helpers: {expenses: {webhooks: {made: {url: 'https://example.com/m'}, own: {url: 'https://example.com/o'}}}}\n"}
	change := func(id string, in rest.WebhookChange) func(*world) error {
		return func(w *world) error {
			_, err := w.editor.Change(context.Background(), nil, id, in)
			return err
		}
	}
	for name, c := range map[string]struct {
		edit  func(*world) error
		words []string
	}{
		"off":            {change("expenses.backend", rest.WebhookChange{Active: new(false)}), []string{"95-late.yaml", "wins"}},
		"a header":       {change("expenses.backend", rest.WebhookChange{Headers: map[string]*string{"x-env": new("x")}}), []string{"95-late.yaml"}},
		"no header":      {change("expenses.backend", rest.WebhookChange{Headers: map[string]*string{"X-Env": nil}}), []string{"config.yaml", "95-late.yaml", "remove it there"}},
		"its deletion":   {func(w *world) error { return w.editor.Delete(context.Background(), nil, "expenses.backend") }, []string{"config.yaml", "delete it there"}},
		"a part of it":   {func(w *world) error { return w.editor.Delete(context.Background(), nil, "expenses.made") }, []string{"95-late.yaml"}},
		"the same again": {func(w *world) error { return createNamed(w, "backend") }, []string{"expenses.backend exists", "config.yaml"}},
		"its own again":  {func(w *world) error { return createNamed(w, "own") }, []string{"expenses.own exists", "90-api.yaml"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, later)
			before := w.own(t)
			r := refused(t, c.edit(w), 409, c.words...)
			if r.Code != rest.CodeConflict || w.own(t) != before || w.reloads != 0 {
				t.Errorf("code %s, %d reloads, the file is\n%s", r.Code, w.reloads, w.own(t))
			}
		})
	}
	w := newWorld(t, later)
	if out := w.change(t, "expenses.backend", rest.WebhookChange{Active: new(true), Headers: map[string]*string{"X-Env": new("late")}}); out.File != "" || w.reloads != 0 {
		t.Errorf("what the later file says already was written: %+v", out)
	}
}

func createNamed(w *world, id string) error {
	_, err := w.editor.Create(context.Background(), nil, rest.WebhookChange{ID: &id, URL: new("https://example.com/x")})
	return err
}

func TestAnInvalidEditWritesNothing(t *testing.T) {
	two := "helpers: {second: {}}\n"
	for name, c := range map[string]struct {
		files  map[string]string
		in     rest.WebhookChange
		field  string
		words  []string
		status int
	}{
		"no url":         {nil, rest.WebhookChange{}, "url", []string{"the url is missing"}, 422},
		"a bad url":      {nil, rest.WebhookChange{URL: new("ftp://x")}, "url", []string{"scheme"}, 422},
		"a bad header":   {nil, rest.WebhookChange{URL: new("https://x.example"), Headers: map[string]*string{"a b": new("")}}, "headers", []string{`"a b" cannot be used`}, 422},
		"a bad id":       {nil, rest.WebhookChange{ID: new("a.b"), URL: new("https://x.example")}, "id", []string{"an id has"}, 422},
		"a bad event":    {nil, rest.WebhookChange{URL: new("https://x.example"), Events: &[]string{"crate"}}, "events", []string{"unknown event"}, 422},
		"an empty key":   {nil, rest.WebhookChange{URL: new("https://x.example"), Secret: new("")}, "secret", []string{"the secret is empty"}, 422},
		"a bad sink":     {nil, rest.WebhookChange{URL: new("https://x.example"), Sink: new("fax")}, "sink", []string{"sink"}, 422},
		"settings":       {nil, rest.WebhookChange{URL: new("https://x.example"), Settings: map[string]any{"<<": map[string]any{}, "a": []any{int64(1), 1.5, nil, "x", map[string]any{"b": true}}}}, "settings", []string{"no settings"}, 422},
		"concurrency":    {nil, rest.WebhookChange{URL: new("https://x.example"), Concurrency: new(5000)}, "concurrency", []string{"1024"}, 422},
		"no such helper": {nil, rest.WebhookChange{Helper: new("expens"), URL: new("https://x.example")}, "helper", []string{"there are expenses"}, 422},
		"which helper":   {map[string]string{"conf.d/10.yaml": two}, rest.WebhookChange{URL: new("https://x.example")}, "helper", []string{"expenses, second"}, 422},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, c.files)
			_, err := w.editor.Create(t.Context(), nil, c.in)
			r := refused(t, err, c.status, c.words...)
			if r.Field != c.field || w.own(t) != "" || w.reloads != 0 {
				t.Errorf("field %q, %d reloads, the file is\n%s", r.Field, w.reloads, w.own(t))
			}
		})
	}
}

func TestAnUnknownWebhookIsNotFound(t *testing.T) {
	w := newWorld(t, nil)
	for _, id := range []string{"expenses.none", "none.backend", "expenses", "", "expenses.backend.x"} {
		_, err := w.editor.Change(t.Context(), nil, id, rest.WebhookChange{Active: new(false)})
		refused(t, err, 404)
		refused(t, w.editor.Delete(t.Context(), nil, id), 404)
	}
	_, err := w.editor.Change(t.Context(), nil, "relay.webhook.failing", rest.WebhookChange{Active: new(false)})
	refused(t, err, 409, "under notify")
	_, err = w.editor.Change(t.Context(), nil, "expenses.backend", rest.WebhookChange{ID: new("other")})
	refused(t, err, 422, "cannot be changed")
}

func TestBrokenFilesAreCorrectedFirst(t *testing.T) {
	w := newWorld(t, nil)
	write(t, filepath.Join(w.dir, "conf.d/50.yaml"), "helpers: {expenses: {nmae: x}}\n")
	_, err := w.editor.Create(t.Context(), nil, rest.WebhookChange{URL: new("https://example.com/x")})
	r := refused(t, err, 422, "invalid as it is", `unknown key "nmae"`)
	if r.Code != rest.CodeInvalidConfig || len(r.Findings) == 0 || !strings.HasSuffix(r.Findings[0].File, "50.yaml") || r.Findings[0].Line != 1 {
		t.Errorf("the refusal is %+v", r)
	}
}

func TestWhatTheDaemonRefusesIsPutBack(t *testing.T) {
	const former = "# mine\nhelpers: {expenses: {webhooks: {backend: {enabled: false}}}}\n"
	for name, files := range map[string]map[string]string{"a file": {"conf.d/90-api.yaml": former}, "no file": nil} {
		for _, why := range []error{errRefused, errors.New("the daemon is ending")} {
			t.Run(name+", "+why.Error(), func(t *testing.T) {
				w := newWorld(t, files)
				before := w.own(t)
				if files != nil {
					if err := os.Chmod(filepath.Join(w.dir, "conf.d/90-api.yaml"), 0o640); err != nil {
						t.Fatal(err)
					}
				}
				w.refuse = func(attempt int) error {
					if attempt == 1 {
						return why
					}
					return nil
				}
				_, err := w.editor.Create(t.Context(), nil, rest.WebhookChange{URL: new("https://example.com/x")})
				if why == errRefused {
					r := refused(t, err, 422, "again as it was", "a test does not hold")
					if len(r.Findings) != 1 || w.reloads != 2 {
						t.Errorf("%d findings, %d reloads", len(r.Findings), w.reloads)
					}
				} else if !errors.Is(err, why) {
					t.Errorf("error %v", err)
				}
				if w.own(t) != before {
					t.Errorf("the file is\n%s", w.own(t))
				}
				if info, err := os.Stat(filepath.Join(w.dir, "conf.d/90-api.yaml")); files != nil && (err != nil || info.Mode().Perm() != 0o640) {
					t.Errorf("the mode is %v, %v", info.Mode(), err)
				}
			})
		}
	}
}

func TestAnEditByHandDuringTheReloadIsNotOverwritten(t *testing.T) {
	const byHand = "# by hand\nhelpers: {expenses: {webhooks: {backend: {enabled: false}}}}\n"
	w := newWorld(t, nil)
	w.refuse = func(attempt int) error {
		if attempt > 1 {
			return nil
		}
		write(t, filepath.Join(w.dir, "conf.d/90-api.yaml"), byHand)
		return errRefused
	}
	_, err := w.editor.Create(t.Context(), nil, rest.WebhookChange{URL: new("https://example.com/x")})
	refused(t, err, 422, "somebody else")
	if w.own(t) != byHand {
		t.Errorf("the file is\n%s", w.own(t))
	}
}

func TestAnEditWhoseNameIsNotDurableIsUndone(t *testing.T) {
	failure := errors.New("input/output error")
	for name, former := range map[string]string{"a file": "# mine\nhelpers: {expenses: {webhooks: {backend: {enabled: false}}}}\n", "no file": ""} {
		t.Run(name, func(t *testing.T) {
			files := map[string]string{"conf.d/90-api.yaml": former}
			if former == "" {
				files = map[string]string{"conf.d/10.yaml": "helpers: {}\n"}
			}
			w := newWorld(t, files)
			syncs := 0
			w.editor.FailSync(func() error {
				if syncs++; syncs == 1 {
					return failure
				}
				return nil
			})
			if _, err := w.editor.Create(t.Context(), nil, rest.WebhookChange{URL: new("https://example.com/x")}); !errors.Is(err, failure) {
				t.Errorf("error %v", err)
			}
			if w.own(t) != former || w.reloads != 0 {
				t.Errorf("after %d reloads the file is\n%s", w.reloads, w.own(t))
			}
			w.editor.FailSync(func() error { return failure })
			if _, err := w.editor.Create(t.Context(), nil, rest.WebhookChange{URL: new("https://example.com/x")}); err == nil || !strings.Contains(err.Error(), "could not be put back") {
				t.Errorf("nothing is durable: %v", err)
			}
		})
	}
}

func TestAnEditThatIsThereAlreadyIsMadeToRun(t *testing.T) {
	w := newWorld(t, nil)
	write(t, filepath.Join(w.dir, "conf.d/90-api.yaml"), "helpers: {expenses: {webhooks: {backend: {enabled: false}}}}\n")
	if out := w.change(t, "expenses.backend", rest.WebhookChange{Active: new(false)}); out.File != "" || w.reloads != 1 || w.webhook("expenses.backend").Enabled {
		t.Errorf("the answer is %+v, %d reloads", out, w.reloads)
	}
	w.refuse = func(int) error { return errRefused }
	write(t, filepath.Join(w.dir, "conf.d/90-api.yaml"), "helpers: {expenses: {webhooks: {backend: {enabled: true}}}}\n")
	_, err := w.editor.Change(t.Context(), nil, "expenses.backend", rest.WebhookChange{Active: new(true)})
	refused(t, err, 422, "refused")
}

func TestSharedYAMLIsEditedByHand(t *testing.T) {
	for name, file := range map[string]string{
		"an anchor":  "helpers: {expenses: {webhooks: {x: &x {url: 'https://example.com/x'}, y: *x}}}\n",
		"a merge":    "helpers: {expenses: {webhooks: {x: {<<: {enabled: true}, url: 'https://example.com/x'}}}}\n",
		"an alias":   "helpers: {expenses: {webhooks: {y: &x {url: 'https://example.com/x'}, x: *x}}}\n",
		"an url too": "helpers: {expenses: {webhooks: {y: {url: &u 'https://example.com/x'}, x: &x {url: *u}}}}\n",
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, map[string]string{"conf.d/90-api.yaml": file})
			_, err := w.editor.Change(t.Context(), nil, "expenses.x", rest.WebhookChange{Active: new(false)})
			refused(t, err, 409, "by hand")
			if w.own(t) != file {
				t.Errorf("the file is\n%s", w.own(t))
			}
		})
	}
}

func TestConcurrentEditsAllHappen(t *testing.T) {
	w := newWorld(t, nil)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			id := fmt.Sprintf("w%d", i)
			if _, err := w.editor.Create(context.Background(), nil, rest.WebhookChange{ID: &id, URL: new("https://example.com/" + id)}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := len(w.get().Webhooks()); got != 9 {
		t.Errorf("%d webhooks run", got)
	}
	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.editor.Create(stopped, nil, rest.WebhookChange{ID: new("late"), URL: new("https://example.com/late")}); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}
