package config

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/secret"
)

// mainWithSecrets has a secret in each place where a file may spell one out.
const mainWithSecrets = `
secret: hunter2-hunter2-hunter2-hunter2
helpers:
  h:
    secrets: [hunter2, "hunter2-2"] # hunter2
    fields: {amount: number}
    webhooks:
      w:
        url: https://example.com/hunter2
        secret: |
          hunter2
          hunter2
        headers: {Authorization: Bearer hunter2, X-A: 'hunter2'}
      v: {url: "https://example.com/?hunter2", secrets: ["hunter2
          hunter2"], headers: {X-B: "hunter2"}, signatures: [{scheme: hex}]}
`

// nextFile separates the files of a fuzzed input.
const nextFile = "\n# next file\n"

// manyFiles are the parts of an input as files in memory, after those given.
func manyFiles(input []byte, files ...File) []File {
	for i, part := range bytes.SplitN(input, []byte(nextFile), 8) {
		files = append(files, dropIn(fmt.Sprintf("%02d.yaml", i), string(part)))
	}
	return files
}

// FuzzLoad loads the input in several ways: as the main file, where secrets come in
// through references; as a drop-in over a file that spells secrets out, so that it
// cannot change what those are, but can make every line of it a finding; and both
// again as several files in memory.
func FuzzLoad(f *testing.F) {
	for _, kind := range []string{"good", "bad"} {
		for _, file := range corpus(f, kind) {
			content, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			// Words of the input itself may be printed.
			f.Add(bytes.ReplaceAll(content, []byte(planted), []byte("${env:WORD}")))
		}
	}
	f.Add([]byte(base() + nextFile + "helpers: {h: {webhooks: {w: {enabled: false}}}}" + nextFile + "queue: {dir: /a}\nhelpers: ["))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, input []byte) {
		if len(input) > 1<<16 {
			return // larger ones only cost time
		}
		if bytes.Contains(bytes.ToLower(input), []byte(planted)) || bytes.Contains(input, []byte("file:")) {
			return // what is spelled out at a public place may be printed; files are not the subject
		}
		main, over := filepath.Join(dir, "main", "config.yaml"), filepath.Join(dir, "over", "config.yaml")
		writeFile(t, main, string(input), 0o644)
		writeFile(t, over, mainWithSecrets, 0o644)
		writeFile(t, filepath.Join(dir, "over", "conf.d", "a.yaml"), string(input), 0o644)
		for _, o := range []Options{options(main), options(over), givenFiles(manyFiles(input)...), givenFiles(manyFiles(input, main1(mainWithSecrets))...)} {
			checkLoad(t, o)
		}
	})
}

// checkLoad checks what holds of every load.
func checkLoad(t *testing.T, o Options) {
	t.Helper()
	c, r := Load(o)
	r.Add(Finding{Severity: SeverityWarning, Code: "x", Message: "m"}, "helpers", "h", "webhooks", "w", "secret")
	out := outputs(t, r)
	if (c == nil) != (r.Err() != nil) {
		t.Fatalf("config %v, error %v", c != nil, r.Err())
	}
	if c != nil {
		var b strings.Builder
		if err := c.Show(&b); err != nil {
			t.Fatal(err)
		}
		out += b.String() + fmt.Sprintf("%#v", Diff(&Config{}, c))
		if changes := Diff(c, c); len(changes) != 0 {
			t.Fatalf("it differs from itself: %+v", changes)
		}
	}
	if strings.Contains(out, planted) {
		t.Fatalf("a secret is printed:\n%s", out)
	}
	for _, f := range r.Findings {
		if f.Message == "" || f.Code == codeInternal || f.Line < 0 || f.Column < 0 || f.File == "" {
			t.Fatalf("finding %+v", f)
		}
	}
	for i, f := range o.Files {
		if i < len(r.Sources) && !bytes.Equal(f.Data, r.Sources[i].Data) || len(r.Sources) != len(o.Files) {
			t.Fatalf("source %d of %d is not what was given", i, len(r.Sources))
		}
	}
	if o.Files == nil && Fingerprint(o.Path, r.References) != r.Digest {
		t.Fatal("the fingerprint is not the digest")
	}
	if o.Files == nil {
		return
	}
	for _, state := range StateDirs(o) {
		if !filepath.IsAbs(state) {
			t.Fatalf("state in %q", state)
		}
	}
}

// effect is all that a configuration does, spelled out from what the other packages
// are given: the settings, the helpers, and the webhooks as they are resolved.
func effect(c *Config) string {
	settings := *c
	settings.Helpers, settings.texts, settings.defined, settings.main = nil, nil, nil, ""
	var parts []string
	for _, h := range c.Helpers {
		h.Webhooks = nil
		parts = append(parts, "helper "+spell(reflect.ValueOf(h)))
	}
	for _, w := range c.Webhooks() {
		w.Helper = nil
		w.Headers = slices.SortedFunc(slices.Values(w.Headers), func(a, b Header) int { return strings.Compare(a.Name, b.Name) })
		parts = append(parts, "webhook "+spell(reflect.ValueOf(w)))
	}
	for _, s := range settings.Sinks {
		parts = append(parts, "sink "+spell(reflect.ValueOf(s)))
	}
	settings.Sinks = nil
	slices.Sort(parts)
	return spell(reflect.ValueOf(settings)) + "\n" + strings.Join(parts, "\n")
}

// spell writes a value with its secrets.
func spell(v reflect.Value) string {
	if s, ok := v.Interface().(secret.String); ok {
		return strconv.Quote(s.Reveal())
	}
	var parts []string
	switch v.Kind() {
	case reflect.Struct:
		var secrets secretsOf
		for f, field := range v.Fields() {
			switch {
			case !f.IsExported():
			case f.Name == "Secret":
				secrets.one = field.Interface().(secret.String)
			case f.Name == "Secrets":
				secrets.many = field.Interface().([]secret.String)
			default:
				parts = append(parts, f.Name+"="+spell(field))
			}
		}
		for _, s := range secrets.list() {
			parts = append(parts, strconv.Quote(s.Reveal()))
		}
	case reflect.Slice:
		if v.IsNil() && v.Type() == reflect.TypeFor[[]string]() {
			return "all"
		}
		for i := range v.Len() {
			parts = append(parts, spell(v.Index(i)))
		}
	case reflect.Map:
		for _, name := range slices.Sorted(maps.Keys(v.Interface().(map[string]any))) {
			parts = append(parts, name+"="+spell(v.MapIndex(reflect.ValueOf(name))))
		}
	case reflect.Interface:
		if v.IsNil() {
			return "nothing"
		}
		return spell(v.Elem())
	default:
		return fmt.Sprintf("%#v", v.Interface())
	}
	return "{" + strings.Join(parts, " ") + "}"
}

// FuzzDiff compares an input with another one, and with the other one as a drop-in
// over it, when they are valid: there are changes exactly when the effect is another
// one.
func FuzzDiff(f *testing.F) {
	var all []string
	for _, file := range corpus(f, "good") {
		content, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		all = append(all, string(content))
	}
	patches := []string{
		"helpers: {h: {webhooks: {w: {enabled: false, headers: {X-B: b, X-A: a}, retry: {schedule: []}}}}}",
		"helpers: {h: {webhooks: {w: {secrets: [a, b], events: [create, entry.created], signatures: none}}}}",
		"helpers: {h: {fields: {b: number, a: list}, name: h, secret: s, webhooks: {n: {url: https://n.example}}}}\nlisten: {events: /e}",
		"retry: {timeout: 7s, schedule: [1s], also_on: [404]}\nsecret: s\nqueue: {dir: /q, max_bytes_per_helper: 1GiB}",
	}
	for i, content := range all {
		f.Add(content, all[(i+1)%len(all)])
		f.Add(content, patches[i%len(patches)])
	}
	for _, patch := range patches {
		f.Add(base("        headers: {X-A: a, X-B: b}", "        secret: t")+"    fields: {a: number, b: string}\n", patch)
	}
	f.Fuzz(func(t *testing.T, before, after string) {
		if len(before)+len(after) > 1<<16 || strings.Contains(before+after, "file:") {
			return // larger ones only cost time; files are not the subject
		}
		running, _ := Load(givenFiles(main1(before)))
		alone, _ := Load(givenFiles(main1(after)))
		over, _ := Load(givenFiles(main1(before), dropIn("a.yaml", after)))
		for _, candidate := range []*Config{alone, over} {
			if running != nil && candidate != nil {
				checkDiff(t, running, candidate)
			}
		}
	})
}

// checkDiff checks what holds of every two configurations.
func checkDiff(t *testing.T, running, candidate *Config) {
	t.Helper()
	changes, back := Diff(running, candidate), Diff(candidate, running)
	if same := effect(running) == effect(candidate); same != (len(changes) == 0) || same != (len(back) == 0) {
		t.Fatalf("same effect: %v\nchanges %+v\nback %+v\n%s\n%s", same, changes, back, effect(running), effect(candidate))
	}
	if len(changes) != len(back) {
		t.Fatalf("%d changes one way, %d the other:\n%+v\n%+v", len(changes), len(back), changes, back)
	}
	if left := Diff(candidate.KeepRestartKeys(running), candidate); len(left) != len(RestartKeys(running, candidate)) {
		t.Fatalf("besides the keys that need a restart there are %+v", left)
	}
}
