package config

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// pair makes a certificate and its key in PEM form.
func pair(t *testing.T) (cert, key string) {
	t.Helper()
	_, cert, key = (&issuer{}).issue(t, nil)
	return cert, key
}

func TestTLSFilesAreLoadedAndTheirPathsMadeAbsolute(t *testing.T) {
	cert, key := pair(t)
	_, otherKey := pair(t)
	dir := write(t, map[string]string{"c.pem": cert, "k.pem": key, "other.pem": otherKey, "text.pem": "hunter2"})
	path := filepath.Join(dir, "config.yaml")
	for settings, want := range map[string][]string{
		"{ca: c.pem, cert: c.pem, key: k.pem}": nil,
		"{ca: " + dir + "/c.pem}":              nil,
		"{cert: c.pem, key: other.pem}":        {codeBadTLS},
		"{ca: text.pem}":                       {codeBadTLS},
		"{cert: c.pem}":                        {codeMissingKey},
		"{key: missing.pem}":                   {codeMissingKey, codeBadTLS},
	} {
		writeFile(t, path, base("        tls: "+settings), 0o600)
		c, r := Load(options(path))
		if !slices.Equal(codes(r), want) || strings.Contains(outputs(t, r), planted) {
			t.Errorf("%s: %v\n%s", settings, codes(r), text1(t, r))
		}
		if want == nil && (c.Webhooks()[0].TLS.CA != filepath.Join(dir, "c.pem") || !slices.Contains(r.References, filepath.Join(dir, "c.pem"))) {
			t.Errorf("%s: %+v, references %v", settings, c.Webhooks()[0].TLS, r.References)
		}
	}
}

func TestPluginsAreTrustedOnlyWhenNobodyElseCanChangeThem(t *testing.T) {
	const program = "#!/bin/sh\n"
	sum := sha256.Sum256([]byte(program))
	dir := write(t, nil)
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{"good": 0o755, "plain": 0o644, "group": 0o775, "others": 0o757, "open/good": 0o755, "open/inner/good": 0o755, "huge": 0o755,
		"setuid": 0o755 | os.ModeSetuid, "peanuts-sink-mine": 0o755} {
		writeFile(t, filepath.Join(dir, name), program, mode)
	}
	if err := os.Truncate(filepath.Join(dir, "huge"), 2<<30); err != nil { // sparse
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "open"), 0o777); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "config.yaml")
	load := func(uid int, text string) *Report {
		writeFile(t, config, base()+text, 0o600)
		_, r := Load(Options{Path: config, LookupEnv: environment(nil), Getuid: func() int { return uid }})
		return r
	}
	for _, c := range []struct {
		text, want string
	}{
		{"sinks: {x: {path: DIR/good}}", ""},
		{"sinks: {x: {path: DIR/good, sha256: " + strings.ToUpper(hex.EncodeToString(sum[:])) + "}}\nplugins: {require_checksums: true}", ""},
		{"sinks: {mine: {}}\nplugins: {dir: DIR}", ""},
		{"sinks: {x: {path: DIR/good, sha256: " + strings.Repeat("a", 64) + "}}", "checksum of the plugin DIR/good is another one: " + hex.EncodeToString(sum[:])},
		{"sinks: {x: {path: '${env:NOWHERE:-/no/where}'}}", "the plugin cannot be opened"},
		{"sinks: {x: {path: DIR/good}}\nplugins: {require_checksums: true}", "has no sha256"},
		{"sinks: {x: {path: DIR/plain}}", "not executable"},
		{"sinks: {x: {path: DIR/group}}", "others can change the plugin DIR/group: its mode is 0775"},
		{"sinks: {x: {path: DIR/others}}", "others can change the plugin"},
		{"sinks: {x: {path: DIR/open/good}}", "change the directory"},
		{"sinks: {x: {path: DIR/missing}}", "the plugin DIR/missing cannot be opened: no such file"},
		{"sinks: {x: {path: DIR/open/inner/good}}", "others can change the directory DIR/open"},
		{"sinks: {x: {path: '${env:NOWHERE:-DIR/open/inner/good}'}}", "the plugin is refused: it, or a directory or link on the way to it, can be changed by others"},
		{"sinks: {x: {path: DIR/setuid}}", "set-user-ID"},
		{"sinks: {x: {path: DIR/huge, sha256: " + strings.Repeat("a", 64) + "}}", "at most 1 GiB"},
		{"sinks: {x: {path: DIR}}", "not a regular file"},
		{"sinks: {x: {path: good}}", "not absolute"},
		{"sinks: {other: {}}\nplugins: {dir: DIR}", "the plugin DIR/peanuts-sink-other cannot be opened: no such file"},
		{webhookWith("sink: mine", "DIR"), ""},
		{webhookWith("sink: mine, signatures: [{scheme: hex}]", "DIR"), ""},
		{webhookWith("sink: mine, settings: {a: 1}", "DIR"), ""},
		{webhookWith("sink: mien", "DIR"), `there is no sink "mien"`},
		{webhookWith("sink: ../mine", "DIR"), "there is no sink"},
		{webhookWith("sink: mine, url: https://example.com/", "DIR"), "url is for the http sink"},
		{webhookWith("sink: mine, headers: {A: b}", "DIR"), "headers is for the http sink"},
		{webhookWith("sink: mine, tls: {ca: x.pem}", "DIR"), "tls is for the http sink"},
		{webhookWith("sink: mine, format: event", "DIR"), "the format event is for the http sink"},
		{webhookWith("sink: mine, settings: {a: 0x10}", "DIR"), "a number must be written as in JSON"},
		{webhookWith("sink: mine", "DIR") + "\n  require_checksums: true", "has no sha256"},
		{webhookWith("sink: mine", "DIR/open"), "there is no sink"},
	} {
		r := load(os.Getuid(), strings.ReplaceAll(c.text, "DIR", dir)+"\n")
		switch {
		case c.want == "" && len(r.Findings) != 0, c.want != "" && (len(r.Findings) != 1 || !strings.Contains(r.Findings[0].Message, strings.ReplaceAll(c.want, "DIR", dir))):
			t.Errorf("%s: want %q, got:\n%s", c.text, c.want, text1(t, r))
		}
	}
	if os.Getuid() == 0 {
		if err := os.Chown(filepath.Join(dir, "good"), 12345, -1); err != nil {
			t.Fatal(err)
		}
		if r := load(0, "sinks: {x: {path: "+dir+"/good}}\n"); !slices.Equal(codes(r), []string{codeBadPlugin}) {
			t.Errorf("another user's plugin: %v", codes(r))
		}
	}
}

// webhookWith is a second helper with one webhook, and the plugins of a directory.
func webhookWith(keys, dir string) string {
	return "  other: {secret: 0123456789abcdef01234567, webhooks: {w: {" + keys + "}}}\nplugins:\n  dir: " + dir
}

func TestSettingsReachThePluginAsTheFileHasThem(t *testing.T) {
	dir := write(t, map[string]string{"peanuts-sink-mine": "#!/bin/sh\n", "config.yaml": `plugins: {dir: ` + "DIR" + `}
helpers:
  h:
    webhooks:
      w:
        sink: mine
        settings: {z: 12345678901234567890, a: "007", token: "${env:TOKEN}", n: [1.50, null, {y: true, b: "<&>"}]}
      plain: {sink: mine}
      signed: {sink: mine, secret: 0123456789abcdef01234567}
`})
	for name, mode := range map[string]os.FileMode{"": 0o755, "peanuts-sink-mine": 0o755} {
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	config := filepath.Join(dir, "config.yaml")
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, config, strings.ReplaceAll(string(text), "DIR", dir), 0o600)
	c, r := Load(Options{Path: config, LookupEnv: environment(map[string]string{"TOKEN": planted})})
	if c == nil {
		t.Fatal(text1(t, r))
	}
	all := c.Webhooks()
	const want = `{"z":12345678901234567890,"a":"007","token":"` + planted + `","n":[1.50,null,{"y":true,"b":"\u003c\u0026\u003e"}]}`
	if got := all[0].SettingsJSON.Reveal(); got != want {
		t.Errorf("settings\n%s, want\n%s", got, want)
	}
	if got := all[1].SettingsJSON.Reveal(); got != "{}" {
		t.Errorf("no settings are %q", got)
	}
	for i, signed := range []bool{false, false, true} {
		if s, err := all[i].Signer(); (s != nil) != signed || err != nil {
			t.Errorf("%s: signer %v, %v", all[i].ID, s, err)
		}
	}
	if f, ok := c.PluginFile("mine"); !ok || f.Path != filepath.Join(dir, "peanuts-sink-mine") {
		t.Errorf("plugin %+v, %v", f, ok)
	}
	if shown := fmt.Sprintf("%v %+v %#v", all, all, all); strings.Contains(shown, planted) {
		t.Error("a setting is printed")
	}
}

func TestCredentialsComeFromTheDirectoryOfSystemd(t *testing.T) {
	dir := write(t, map[string]string{"config.yaml": strings.ReplaceAll(base(), "${env:SECRET}", "${cred:key}"), "creds/key": strings.Repeat("k", 40) + "\n"})
	c, r := Load(Options{Path: filepath.Join(dir, "config.yaml"), LookupEnv: environment(map[string]string{"CREDENTIALS_DIRECTORY": filepath.Join(dir, "creds")})})
	if c == nil {
		t.Fatal(text1(t, r))
	}
	s := c.Webhooks()[0].Secrets[0]
	if s.Reveal() != strings.Repeat("k", 40) || fmt.Sprint(s) != "${cred:key}" || s.IsLiteral() {
		t.Errorf("secret %v of %d bytes", s, s.Len())
	}
}
