package config

import (
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/peanutsapp/peanuts-relay/internal/secret"
)

// leaf is one value of a configuration that fill has made.
type leaf struct {
	path    string // as Show would have it: helpers.x.webhooks.x.url, signatures[].scheme
	restart bool
	value   reflect.Value
}

// fill gives every key of v a value, each map one entry with the id x, and returns
// the values. It walks the structs by their tags and knows nothing of the model,
// which Diff is derived from.
func fill(t *testing.T, v reflect.Value, path string, tag reflect.StructTag) []leaf {
	t.Helper()
	one := []leaf{{path, tag.Get("restart") != "", v}}
	switch {
	case v.Type() == reflect.TypeFor[secret.String]():
		v.Set(reflect.ValueOf(secret.FromReference("one", "${env:ONE}")))
		return one
	case v.Type() == reflect.TypeFor[Share]():
		v.Set(reflect.ValueOf(Share{Bytes: 1}))
		return one
	case v.Type() == reflect.TypeFor[Signatures]():
		list := reflect.ValueOf([]Signature{{}})
		v.FieldByName("List").Set(list)
		return append(fill(t, list.Index(0), path+"[]", ""), leaf{path + ".none", false, v.FieldByName("None")})
	case tag.Get("ids") != "":
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		return fill(t, v.Index(0), path+".x", "")
	case v.Kind() == reflect.Struct:
		return fillStruct(t, v, path)
	case v.Type() == reflect.TypeFor[map[string]any]():
		v.Set(reflect.ValueOf(map[string]any{"tab": secret.New("one")}))
		return one
	case v.Kind() == reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(t, v.Index(0), path, "")
		if tag.Get("kind") == "words" {
			v.Index(0).SetString("create")
		}
		return one
	}
	change(t, v)
	return one
}

func fillStruct(t *testing.T, v reflect.Value, path string) []leaf {
	t.Helper()
	var out []leaf
	for f, field := range v.Fields() {
		name, tagged := f.Tag.Lookup("koanf")
		below := strings.TrimPrefix(path+"."+name, ".")
		of, pem := strings.CutSuffix(f.Name, "PEM")
		switch {
		case !f.IsExported() && v.Type() == reflect.TypeFor[Config]():
		case name == "-id":
			field.SetString("x")
		case name == "-value":
			out = append(out, fill(t, field, path, f.Tag)...)
		case name == "-" && pem && v.FieldByName(of).IsValid():
			named, _ := v.Type().FieldByName(of)
			out = append(out, leaf{path + "." + named.Tag.Get("koanf"), false, field})
		case !tagged || strings.HasPrefix(name, "-"):
			t.Errorf("%s.%s has no key in the file, and nothing says what it is", v.Type(), f.Name)
		default:
			out = append(out, fill(t, field, below, f.Tag)...)
		}
	}
	return out
}

// change sets a value to another one of its type.
func change(t *testing.T, v reflect.Value) {
	t.Helper()
	switch x := v.Interface().(type) {
	case secret.String:
		v.Set(reflect.ValueOf(secret.FromReference(x.Reveal()+"2", "${env:ONE}"))) // behind the same reference
		return
	case Share:
		v.Set(reflect.ValueOf(Share{Percent: x.Percent + 1}))
		return
	case map[string]any:
		v.Set(reflect.ValueOf(map[string]any{"tab": secret.New("two")}))
		return
	case []byte:
		v.SetBytes(append(slices.Clone(x), '2'))
		return
	}
	switch v.Kind() {
	case reflect.String:
		if v.SetString(v.String() + "2"); strings.HasPrefix(v.String(), "create") {
			v.SetString("delete")
		}
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Int, reflect.Int64:
		v.SetInt(v.Int() + 1)
	case reflect.Uint32:
		v.SetUint(v.Uint() + 1)
	case reflect.Slice:
		change(t, v.Index(0))
	default:
		t.Fatalf("no other value of %s is known", v.Type())
	}
}

// wanted is the change that Diff shall find for a leaf.
func wanted(l leaf) Change {
	head := func(path string, n int) (string, string) {
		parts := strings.SplitN(path, ".", n+1)
		return strings.Join(parts[:n], "."), parts[n]
	}
	path, _, _ := strings.Cut(strings.TrimSuffix(l.path, ".none"), "[]")
	if strings.HasSuffix(path, ".settings") {
		path += ".tab"
	}
	out := Change{Op: OpChanged}
	switch section, _, _ := strings.Cut(path, "."); {
	case strings.HasPrefix(path, "helpers.x.webhooks.x."):
		_, field := head(path, 4)
		out.Object, out.ID, out.Fields = ObjectWebhook, "x.x", []string{field}
	case section == "helpers" || section == "sinks" || section == "tests":
		_, field := head(path, 2)
		out.Object, out.ID, out.Fields = strings.TrimSuffix(section, "s"), "x", []string{field}
	case section == "notify":
		id, field := head(path, 2)
		out.Object, out.ID, out.Fields = ObjectSetting, id, []string{field}
	default:
		out.Object, out.ID, out.Restart = ObjectSetting, path, l.restart
	}
	return out
}

func filled(t *testing.T) (*Config, []leaf) {
	t.Helper()
	c := &Config{}
	return c, fill(t, reflect.ValueOf(c).Elem(), "", "")
}

// prepare makes room for a leaf to have an effect: of secret and secrets there is
// one, and a webhook without signatures does not use any.
func prepare(c *Config, path string) {
	drop := func(one *secret.String, many *[]secret.String, keepMany bool) {
		if keepMany {
			*one = secret.String{}
		} else {
			*many = nil
		}
	}
	many := strings.HasSuffix(path, ".secrets") || path == "secrets"
	drop(&c.Secret, &c.Secrets, many)
	for i := range c.Helpers {
		h := &c.Helpers[i]
		drop(&h.Secret, &h.Secrets, many)
		for j := range h.Webhooks {
			drop(&h.Webhooks[j].Secret, &h.Webhooks[j].Secrets, many)
		}
	}
	for i := range c.Notify {
		drop(&c.Notify[i].Secret, &c.Notify[i].Secrets, many)
	}
}

func TestDiffFindsAChangeOfEveryKeyUnderItsNameInTheFile(t *testing.T) {
	_, leaves := filled(t)
	if len(leaves) < 80 {
		t.Fatalf("only %d keys", len(leaves))
	}
	for i, l := range leaves {
		running, _ := filled(t)
		candidate, fresh := filled(t)
		prepare(running, l.path)
		prepare(candidate, l.path)
		if got := Diff(running, candidate); len(got) != 0 {
			t.Fatalf("%s: without a change: %+v", l.path, got)
		}
		change(t, fresh[i].value)
		if got, want := Diff(running, candidate), []Change{wanted(l)}; !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n got %+v\nwant %+v", l.path, got, want)
		}
		checkRestart(t, l, running, candidate)
	}
}

func TestDiffFindsManyChangesAtOnceAndNoOthers(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		running, leaves := filled(t)
		candidate, fresh := filled(t)
		prepare(running, "")
		prepare(candidate, "")
		want := map[string]bool{}
		for i, l := range leaves {
			// One of secret and secrets counts, and what is unsigned has none.
			if strings.HasSuffix(l.path, "secrets") || strings.HasSuffix(l.path, ".none") || !rapid.Bool().Draw(rt, l.path) {
				continue
			}
			change(t, fresh[i].value)
			w := wanted(l)
			want[strings.Join(append([]string{w.Object, w.ID}, w.Fields...), " ")] = true
		}
		got := map[string]bool{}
		for _, c := range Diff(running, candidate) {
			for _, field := range c.Fields {
				got[c.Object+" "+c.ID+" "+field] = true
			}
			if c.Object == ObjectSetting && c.Fields == nil {
				got[c.Object+" "+c.ID] = true
			}
			if c.Op != OpChanged || (c.Object != ObjectSetting && c.Fields == nil) || !slices.Equal(c.Fields, slices.Compact(slices.Clone(c.Fields))) {
				rt.Fatalf("%+v", c)
			}
		}
		if !maps.Equal(got, want) {
			rt.Fatalf("got  %v\nwant %v", got, want)
		}
		checkDiff(t, running, candidate)
	})
}

// checkRestart checks a candidate that differs in one key.
func checkRestart(t *testing.T, l leaf, boot, candidate *Config) {
	t.Helper()
	var want []string
	if l.restart {
		want = []string{l.path}
	}
	if got := RestartKeys(boot, candidate); !slices.Equal(got, want) {
		t.Errorf("%s: restart keys %q", l.path, got)
	}
	kept := candidate.KeepRestartKeys(boot)
	if got := Diff(boot, kept); (len(got) == 0) != l.restart {
		t.Errorf("%s: what runs differs from the start in %+v", l.path, got)
	}
	if got := Diff(kept, candidate); (len(got) == 0) == l.restart {
		t.Errorf("%s: what runs differs from the files in %+v", l.path, got)
	}
}

func TestOnlyTheSocketsAndTheDirectoryOfTheQueueNeedARestart(t *testing.T) {
	_, leaves := filled(t)
	for _, l := range leaves {
		if want := strings.HasPrefix(l.path, "listen.") || l.path == "queue.dir"; l.restart != want {
			t.Errorf("%s: restart %v", l.path, l.restart)
		}
	}
}

func TestWhatRunsShowsTheRestartOnlyKeysOfTheStart(t *testing.T) {
	boot := mustLoad(t, base()+"queue: {dir: \"${env:XDG_STATE_HOME}/a\"}\nlog: {level: \"${env:NONE:-warn}\"}\n")
	candidate := mustLoad(t, base()+"queue: {dir: /b, max_bytes: 1GiB}\nlisten: {events: \"${env:XDG_RUNTIME_DIR}/e.sock\", events_mode: \"0600\"}\n")
	kept := candidate.KeepRestartKeys(boot)
	var out strings.Builder
	if err := kept.Show(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"dir: ${env:XDG_STATE_HOME}/a\n", "max_bytes: 1GiB\n", "events: /run/user/1000/peanuts-relay/events.sock\n", "events_mode: \"0660\"\n", "level: info\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing:\n%s", want, out.String())
		}
	}
	if kept.MainFile() != candidate.MainFile() || candidate.Queue.Dir != "/b" || candidate.texts["/listen/events"] == "" {
		t.Error("the candidate was modified, or not copied")
	}
	if got := RestartKeys(boot, candidate); !slices.Equal(got, []string{"listen.events", "listen.events_mode", "queue.dir"}) {
		t.Errorf("restart keys %q", got)
	}
}

// in words, one change a line.
func inWords(changes []Change) string {
	var b strings.Builder
	for _, c := range changes {
		fmt.Fprintln(&b, strings.TrimSpace(fmt.Sprintf("%s %s %s %s", c.Object, c.ID, c.Op, strings.Join(c.Fields, " "))))
	}
	return b.String()
}

func TestDiffSaysWhatAnEditMeans(t *testing.T) {
	hooks := func(w, v string) string {
		return "helpers:\n  h:\n    secret: ${env:SECRET}\n    fields: {a: number, b: string}\n    webhooks:\n      w: {url: https://example.com/w" + w + "}\n      v: {url: https://example.com/v" + v + "}\n"
	}
	plain := hooks("", "")
	edited := func(old, now string) string {
		if !strings.Contains(plain, old) {
			t.Fatalf("%q is not in the file", old)
		}
		return strings.Replace(plain, old, now, 1)
	}
	const own = ", secret: \"${env:SECRET}\""
	for name, c := range map[string]struct{ before, after, want string }{
		"nothing":               {plain, plain, ""},
		"comments and quotes":   {plain, "# hello\n" + strings.ReplaceAll(plain, "a: number", `"a": 'number'`), ""},
		"a default spelled out": {plain, hooks(", concurrency: 8, format: peanuts, signatures: [{scheme: peanuts}], events: all, retry: {timeout: 30s, also_on: []}", ""), ""},
		"other words":           {hooks(", events: [create, entry.deleted]", ""), hooks(", events: [created, delete, delete]", ""), ""},
		"order of headers":      {hooks(", headers: {A: a, B: b}", ""), hooks(", headers: {B: b, A: a}", ""), ""},
		"order of webhooks":     {"helpers: {h: {secret: \"${env:SECRET}\", webhooks: {a: {url: https://a.example}, b: {url: https://b.example}}}}", "helpers: {h: {secret: \"${env:SECRET}\", webhooks: {b: {url: https://b.example}, a: {url: https://a.example}}}}", ""},
		"order of fields":       {plain, edited("{a: number, b: string}", "{b: string, a: number}"), "helper h changed fields\n"},
		"a field between":       {plain, edited("{a: number,", "{a: number, c: list,"), "helper h changed fields.c\n"},
		"a field's type":        {plain, edited("a: number", "a: string"), "helper h changed fields.a\n"},
		"a field less":          {plain, edited("a: number, ", ""), "helper h changed fields.a\n"},
		"a helper's name":       {plain, plain + "    name: H\n", "helper h changed name\n"},
		"its id as its name":    {plain, plain + "    name: h\n", ""},
		"several keys":          {plain, hooks("2, headers: {X-A: a, X-B: b}, enabled: false", ""), "webhook h.w changed url headers.X-A headers.X-B enabled\n"},
		"a header's value":      {hooks(", headers: {X-A: a, X-B: b}", ""), hooks(", headers: {X-B: c}", ""), "webhook h.w changed headers.X-B headers.X-A\n"},
		"narrower events":       {plain, hooks(", events: create", ""), "webhook h.w changed events\n"},
		"no events":             {plain, hooks(", events: []", ""), "webhook h.w changed events\n"},
		"a shared retry":        {hooks("", ", retry: {timeout: 5s}"), hooks("", ", retry: {timeout: 5s}") + "retry: {timeout: 7s}\n", "setting retry.timeout changed\nwebhook h.w changed retry.timeout\n"},
		"inherited or spelled":  {hooks(", retry: {timeout: 7s}", "") + "retry: {timeout: 7s}\n", hooks("", "") + "retry: {timeout: 7s}\n", ""},
		"an empty schedule":     {plain, hooks(", retry: {schedule: []}", ""), "webhook h.w changed retry.schedule\n"},
		"a webhook's secret":    {plain, hooks(", secret: \"${env:SECRET}2\"", ""), "webhook h.w changed secret\n"},
		"the same secret":       {plain, hooks(", secret: \"${env:NONE:-env-hunter2-0123456789abcdef}\"", ""), ""},
		"one in a list":         {plain, hooks(", secrets: [\"${env:SECRET}\"]", ""), ""},
		"a rotation":            {plain, edited("secret: ${env:SECRET}", "secrets: [\"${env:SECRET}\", \"${env:SECRET}2\"]"), "helper h changed secrets\nwebhook h.w changed secrets\nwebhook h.v changed secrets\n"},
		"the end of one":        {hooks(", secrets: [\"${env:SECRET}\", \"${env:SECRET}2\"]", ""), hooks(", secret: \"${env:SECRET}2\"", ""), "webhook h.w changed secret\n"},
		"back to the helper's":  {hooks(", secrets: [\"${env:SECRET}\", \"${env:SECRET}2\"]", ""), plain, "webhook h.w changed secret\n"},
		"unsigned":              {plain, hooks(", signatures: none", ""), "webhook h.w changed signatures\n"},
		"signed again":          {hooks(", signatures: none", ""), plain, "webhook h.w changed signatures\n"},
		"secrets of unsigned":   {hooks(", signatures: none", own), strings.Replace(hooks(", signatures: none", own), "secret: ${env:SECRET}\n", "secret: ${env:SECRET}2\n", 1), "helper h changed secret\n"},
		"come and gone": {plain, "listen: {events: /e.sock}\nlog: {level: warn}\nhelpers:\n  g: {secret: \"${env:SECRET}\", webhooks: {n: {url: https://n.example}}}\n  h: {secret: \"${env:SECRET}\", fields: {a: number, b: string}, webhooks: {u: {url: https://u.example}, v: {url: https://example.com/v}}}\n",
			"setting listen.events changed\nsetting log.level changed\nhelper g added\nwebhook g.n added\nwebhook h.u added\nwebhook h.w removed\n"},
		"a helper gone": {plain, "helpers: {g: {}}\n", "helper g added\nhelper h removed\nwebhook h.w removed\nwebhook h.v removed\n"},
	} {
		if got := inWords(Diff(mustLoad(t, c.before), mustLoad(t, c.after))); got != c.want {
			t.Errorf("%s:\n got:\n%swant:\n%s", name, got, c.want)
		}
	}
}

func TestWhichFileSaysSomethingIsNoChange(t *testing.T) {
	one, _ := Load(givenFiles(main1(base("        concurrency: 9", "        headers: {X-A: a}") + "retry: {timeout: 9s}\n")))
	split, _ := Load(givenFiles(main1(base()), dropIn("a.yaml", "retry: {timeout: 9s}\n"), dropIn("b.yaml", "helpers: {h: {webhooks: {w: {concurrency: 9, headers: {X-A: a}}}}}\n")))
	if one == nil || split == nil {
		t.Fatal("the files were refused")
	}
	if got := Diff(one, split); len(got) != 0 {
		t.Errorf("changes %+v", got)
	}
}

func TestANewContentOfAReferencedFileIsAChange(t *testing.T) {
	cert, key := pair(t)
	other, otherKey := pair(t)
	dir := write(t, map[string]string{"secret": strings.Repeat("s", 32), "ca.pem": cert, "c.pem": cert, "k.pem": key, "same.pem": cert})
	path := filepath.Join(dir, "config.yaml")
	text := strings.ReplaceAll(base("        tls: {ca: ca.pem, cert: c.pem, key: k.pem}"), "${env:SECRET}", "${file:"+dir+"/secret}")
	load := func() *Config {
		c, r := Load(options(path))
		if c == nil {
			t.Fatal(text1(t, r))
		}
		return c
	}
	writeFile(t, path, text, 0o600)
	running := load()
	for _, step := range []struct {
		files map[string]string
		want  string
	}{
		{map[string]string{"ca.pem": other}, "webhook h.w changed tls.ca\n"},
		{map[string]string{"c.pem": other, "k.pem": otherKey}, "webhook h.w changed tls.cert tls.key\n"},
		{map[string]string{"secret": strings.Repeat("t", 32)}, "helper h changed secret\nwebhook h.w changed secret\n"},
		{map[string]string{"secret": strings.Repeat("t", 32) + "\n"}, ""},
		{map[string]string{"config.yaml": strings.Replace(text, "ca: ca.pem", "ca: same.pem", 1)}, "webhook h.w changed tls.ca\n"},
		{map[string]string{"config.yaml": strings.Replace(text, "ca: ca.pem, ", "", 1)}, "webhook h.w changed tls.ca\n"},
	} {
		for name, content := range step.files {
			writeFile(t, filepath.Join(dir, name), content, 0o600)
		}
		candidate := load()
		changes := Diff(running, candidate)
		if got := inWords(changes); got != step.want {
			t.Errorf("%v: got %q, want %q", step.files, got, step.want)
		}
		if out := fmt.Sprintf("%#v", changes); strings.Contains(out, "tttt") || strings.Contains(out, "BEGIN") {
			t.Errorf("a value is shown: %s", out)
		}
		running = candidate
	}
}

func TestSettingsAreComparedKeyByKey(t *testing.T) {
	with := func(settings map[string]any) *Config {
		return &Config{Helpers: []Helper{{ID: "h", Webhooks: []WebhookKeys{{ID: "w", Sink: "sheets", Settings: settings}}}}}
	}
	s := func(v string) any { return secret.New(v) }
	for _, c := range []struct {
		a, b map[string]any
		want []string
	}{
		{nil, map[string]any{}, nil},
		{map[string]any{"a": s("1"), "l": []any{s("1"), int64(2), nil, true}}, map[string]any{"a": secret.FromReference("1", "${env:A}"), "l": []any{s("1"), int64(2), nil, true}}, nil},
		{map[string]any{"a": s("1"), "b": s("1"), "c": nil}, map[string]any{"b": s("2"), "d": nil}, []string{"settings.a", "settings.b", "settings.c", "settings.d"}},
		{map[string]any{"m": map[string]any{"x": s("1"), "y": 1.5}}, map[string]any{"m": map[string]any{"x": s("2"), "y": 1.5}}, []string{"settings.m.x"}},
		{map[string]any{"m": map[string]any{}}, map[string]any{"m": s("x")}, []string{"settings.m"}},
		{map[string]any{"l": []any{map[string]any{"x": s("1")}}}, map[string]any{"l": []any{map[string]any{"x": s("2")}}}, []string{"settings.l"}},
		{map[string]any{"n": int64(1), "f": false}, map[string]any{"n": 1.0, "f": nil}, []string{"settings.f", "settings.n"}},
	} {
		var got []string
		for _, change := range Diff(with(c.a), with(c.b)) {
			got = append(got, change.Fields...)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%v and %v: %q, want %q", c.a, c.b, got, c.want)
		}
	}
}

// Types that keys.go has today; a new one needs a rule in same and change.
func TestEveryTypeOfAKeyCanBeCompared(t *testing.T) {
	for _, v := range []any{true, 1, int64(1), uint32(1), "x", time.Second, fs.FileMode(1), Share{Percent: 1}, []string{"x"}, []byte("x"), secret.New("x")} {
		a, b := reflect.New(reflect.TypeOf(v)).Elem(), reflect.ValueOf(v)
		if same(a, b) || !same(b, b) || !same(a, a) {
			t.Errorf("%T", v)
		}
	}
}
