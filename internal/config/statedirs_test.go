package config

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestTheStateIsFoundHoweverBrokenTheFilesAre(t *testing.T) {
	const dflt = "/home/op/.local/state/peanuts-relay"
	broken := "helpers: [\n"
	for name, c := range map[string]struct {
		main, a, b string // "" = no such file
		want       []string
	}{
		"nothing at all":           {"", "", "", []string{dflt}},
		"the default":              {base(), "", "", []string{dflt}},
		"the main file":            {"queue: {dir: /a}\n", "", "", []string{"/a", dflt}},
		"as it takes effect":       {"queue: {dir: /main}\n", "queue: {dir: /a}\n", "queue: {dir: /b}\n", []string{"/b", "/a", "/main", dflt}},
		"no main file":             {"", "queue: {dir: /a}\n", "", []string{"/a", dflt}},
		"each once":                {"queue: {dir: /a}\n", "queue: {dir: /a/}\n", "queue: {dir: /x/../a}\n", []string{"/a", dflt}},
		"a broken drop-in":         {"queue: {dir: /main}\n", "queue: {dir: /a}\n" + broken, "", []string{"/main", "/a", dflt}},
		"a broken main file":       {"queue:\n  # here\n\n  dir: /main\n  max_bytes: 1GiB\n" + broken, "queue: {max_bytes: 1GiB}\n", "", []string{"/main", dflt}},
		"both broken":              {"queue: {dir: /main}\n" + broken, "queue: {dir: /a}\n" + broken, "", []string{"/a", "/main", dflt}},
		"the block is broken":      {"queue:\n  dir: /main\n  min_free: [\n" + broken, "", "", []string{"/main", dflt}},
		"with a tab":               {"queue:\n  dir: /main\n\tmin_free: auto\n", "", "", []string{"/main", dflt}},
		"twice":                    {"queue: {dir: /1}\nqueue: {dir: /2}\n" + broken, "", "", []string{"/2", "/1", dflt}},
		"windows":                  {"\xef\xbb\xbfqueue:\r\n  dir: /main\r\nhelpers: [\r\n", "", "", []string{"/main", dflt}},
		"not text elsewhere":       {"queue: {dir: /main}\n# \xff\n", "", "", []string{"/main", dflt}},
		"by reference":             {"queue: {dir: \"${env:XDG_STATE_HOME}/x\"}\n" + broken, "", "", []string{"/home/op/.local/state/x", dflt}},
		"by a reference to none":   {"queue: {dir: \"${env:NONE}\"}\n", "", "", []string{dflt}},
		"a second document":        {"queue: {dir: /main}\n---\nqueue: {dir: /second}\n", "", "", []string{"/main", "/second", dflt}},
		"an unknown key beside it": {"queue: {dir: /main, dri: x}\nnonsense: 1\n", "", "", []string{"/main", dflt}},
		"not a path":               {"queue: {dir: relative}\n", "queue: {dir: 7}\n", "queue: {dir: [/a]}\n", []string{dflt}},
		"not a map":                {"queue: /main\n", "queue:\n", "queue: {dir:}\n", []string{dflt}},
		"a line break in it":       {"queue: {dir: \"/a\\nb\"}\n", "", "", []string{dflt}},
		"elsewhere in the file":    {"helpers:\n  queue:\n    dir: /a\n" + broken, "", "", []string{dflt}},
	} {
		files := map[string]string{"README": ""}
		for file, content := range map[string]string{"config.yaml": c.main, "conf.d/a.yaml": c.a, "conf.d/b.yaml": c.b} {
			if content != "" {
				files[file] = content
			}
		}
		o := options(filepath.Join(write(t, files), "config.yaml"))
		if got := StateDirs(o); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestTheStateIsFoundInGivenFilesAndWithoutAnEnvironment(t *testing.T) {
	o := givenFiles(main1("queue: {dir: /main}\nx: ["))
	o.LookupEnv = func(string) (string, bool) { return "", false }
	if got := StateDirs(o); !slices.Equal(got, []string{"/main"}) {
		t.Errorf("got %q", got)
	}
}

func TestOnlySoManyBlocksOfABrokenFileAreTried(t *testing.T) {
	content := strings.Repeat("queue: {dir: /x}\n", 50_000) + "x: ["
	if n := len(blocks([]byte(content), "queue", "dir")); n != mostBlocks {
		t.Errorf("%d blocks", n)
	}
}

func TestTheAdminSocketIsFoundHoweverBrokenTheFilesAre(t *testing.T) {
	run := defaultRuntimeDir(t) + "/admin.sock"
	for name, c := range map[string]struct {
		files map[string]string
		want  []string
	}{
		"no file":               {map[string]string{"README": ""}, []string{run}},
		"the file":              {map[string]string{"config.yaml": "listen: {admin: /a/a.sock}\n"}, []string{"/a/a.sock", run}},
		"broken YAML":           {map[string]string{"config.yaml": "listen:\n  events: /a/e.sock\n  admin: /a/a.sock\nhelpers: [\n"}, []string{"/a/a.sock", run}},
		"the block is broken":   {map[string]string{"config.yaml": "listen:\n  admin: /a/a.sock\n  events: [\n"}, []string{"/a/a.sock", run}},
		"a broken drop-in":      {map[string]string{"config.yaml": "listen: {admin: /a/a.sock}\n", "conf.d/x.yaml": "a: ["}, []string{"/a/a.sock", run}},
		"said in a drop-in too": {map[string]string{"config.yaml": "listen: {admin: /a/a.sock}\n", "conf.d/x.yaml": "listen: {admin: /b/a.sock}\n"}, []string{"/b/a.sock", "/a/a.sock", run}},
	} {
		if got := AdminSockets(filepath.Join(write(t, c.files), "config.yaml")); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
