package config

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

func TestInstalledSinksAreFoundWhateverElseIsWrong(t *testing.T) {
	dir := t.TempDir()
	plugins := filepath.Join(dir, "plugins")
	if err := os.Mkdir(plugins, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"peanuts-sink-slack", "peanuts-sink-acme", "README"} {
		if err := os.WriteFile(filepath.Join(plugins, name), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "config.yaml")
	text := `
plugins: {dir: ` + plugins + `}
sinks:
  acme: {sha256: "0000000000000000000000000000000000000000000000000000000000000000"}
  pager: {path: /opt/pager/peanuts-sink-pager}
helpers:
  expenses:
    secret: ${file:/does/not/exist}
    webhooks:
      b: {sink: slack, settings: {token: "${env:NOT_SET_AT_ALL}"}}
      a: {sink: slack}
      c: {url: "https://example.com/"}
      d: {sink: nowhere}
      broken: 17
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := InstalledSinks(file)
	if err != nil {
		t.Fatal(err)
	}
	want := Installed{Dir: plugins,
		Files: []SinkFile{
			{ID: "acme", Path: filepath.Join(plugins, "peanuts-sink-acme"), SHA256: "0000000000000000000000000000000000000000000000000000000000000000"},
			{ID: "pager", Path: "/opt/pager/peanuts-sink-pager"},
			{ID: "slack", Path: filepath.Join(plugins, "peanuts-sink-slack")},
		},
		Uses: map[string][]string{
			"slack": {"expenses.a", "expenses.b"}, "http": {"expenses.c"}, "nowhere": {"expenses.d"},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
	for _, bad := range []string{"plugins: 17", "sinks: {acme: {sha256: short}}", "{"} {
		if err := os.WriteFile(file, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := InstalledSinks(file); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}

func TestSettingsFilesAreMaps(t *testing.T) {
	for text, ok := range map[string]bool{"": true, "a: 1\nb: [x]": true, `{"a": {"b": "c"}}`: true, "[1]": false, "a: b: c": false, "text": false} {
		if _, err := SettingsFile([]byte(text)); (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
	}
}
