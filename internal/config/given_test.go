package config

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// givenFiles are options for files that the disk does not have.
func givenFiles(files ...File) Options {
	o := options("/nonexistent/config.yaml")
	o.Files = append([]File{}, files...)
	return o
}

func main1(content string) File { return File{Path: "/nonexistent/config.yaml", Data: []byte(content)} }

func dropIn(name, content string) File {
	return File{Path: "/nonexistent/conf.d/" + name, Shown: "their/" + name, Data: []byte(content)}
}

func TestFilesThatAreGivenAreReadInsteadOfThoseOnTheDisk(t *testing.T) {
	disk := write(t, map[string]string{"config.yaml": "not: [yaml", "conf.d/a.yaml": "not: [yaml", "conf.d/b.yml": ""})
	o := options(filepath.Join(disk, "config.yaml"))
	o.Files = []File{
		{Path: o.Path, Data: []byte(base())},
		{Path: filepath.Join(disk, "conf.d/z.yaml"), Shown: "z.yaml", Data: []byte("helpers: {h: {webhooks: {w: {concurrency: 9}}}}\n")},
	}
	c, r := Load(o)
	if c == nil || len(r.Findings) != 0 || c.Webhooks()[0].Concurrency != 9 || c.MainFile() != o.Path {
		t.Fatalf("%+v\n%s", c, outputs(t, r))
	}
	if want := []string{o.Path, "z.yaml"}; !slices.Equal(r.Files, want) {
		t.Errorf("files %q, want %q", r.Files, want)
	}
	for i, f := range r.Sources {
		if f.Path != o.Files[i].Path || !bytes.Equal(f.Data, o.Files[i].Data) {
			t.Errorf("source %d is %s", i, f.Path)
		}
	}
	o.Files[1].Data = []byte("helpers: {h: {webhooks: {w: {concurency: 9}}}}\n")
	_, r = Load(o)
	if len(r.Findings) != 1 || r.Findings[0].File != "z.yaml" || r.Findings[0].Line != 1 || len(r.Sources) != 2 {
		t.Errorf("%d sources\n%s", len(r.Sources), text1(t, r))
	}
}

func TestPathsInGivenFilesStartAtTheMainFileTheyStandFor(t *testing.T) {
	cert, _ := pair(t)
	dir := write(t, map[string]string{"ca.pem": cert})
	o := givenFiles(File{Path: filepath.Join(dir, "config.yaml"), Data: []byte(base("        tls: {ca: ca.pem}"))})
	c, r := Load(o)
	if c == nil {
		t.Fatal(text1(t, r))
	}
	if got := c.Webhooks()[0].TLS; got.CA != filepath.Join(dir, "ca.pem") || string(got.CAPEM) != cert {
		t.Errorf("%q with %d bytes", got.CA, len(got.CAPEM))
	}
}

func TestTheModeOfAGivenFileSaysWhoCanReadItsSecrets(t *testing.T) {
	literal := strings.ReplaceAll(base(), "${env:SECRET}", strings.Repeat("s", 32))
	for mode, want := range map[os.FileMode][]string{0: nil, 0o600: nil, 0o644: {codeLiteralSecret}} {
		_, r := Load(givenFiles(File{Path: "/x/config.yaml", Data: []byte(literal), Mode: mode}))
		if !slices.Equal(codes(r), want) {
			t.Errorf("mode %o: %v", mode, codes(r))
		}
	}
}

func TestGivenFilesAreBounded(t *testing.T) {
	big := make([]byte, MaxFileBytes)
	var many []File
	for range maxDropIns + 5 {
		many = append(many, main1(""))
	}
	for name, c := range map[string]struct {
		files []File
		want  []error // of the last files, those before have none
		read  int
	}{
		"one too large": {[]File{{Data: big}, {Data: make([]byte, MaxFileBytes+1)}, {}}, []error{errTooLarge, nil}, 3},
		"together":      {[]File{{Data: big}, {Data: big}, {Data: big}, {Data: big}, {Data: big}, {Data: big}, {Data: big}}, []error{errTooMuch}, 7},
		"too many":      {many, []error{errTooMany}, maxDropIns + 2},
	} {
		var got []error
		for _, err := range given(c.files) {
			got = append(got, err)
		}
		before := len(got) - len(c.want)
		if len(got) != c.read || slices.ContainsFunc(got[:before], func(err error) bool { return err != nil }) ||
			!slices.EqualFunc(got[before:], c.want, func(err, want error) bool { return errors.Is(err, want) }) {
			t.Errorf("%s: %d files, at the end %v", name, len(got), got[max(0, before-1):])
		}
	}
}

func TestGivenFilesThatCannotBeUsedAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		files []File
		want  []string
	}{
		"none":              {nil, []string{codeUnreadable}},
		"one too large":     {[]File{main1(base()), {Path: "/x", Data: make([]byte, MaxFileBytes+1)}}, []string{codeTooLarge}},
		"without any paths": {[]File{{Data: []byte("log: {level: loud}\n")}}, []string{codeNoHelpers, codeBadValue}},
	} {
		conf, r := Load(givenFiles(c.files...))
		if got := codes(r); conf != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	for err, want := range map[error]string{errTooMuch: codeTooLarge, errTooMany: codeTooMany, errNotRegular: codeNotAFile} {
		if got := unreadable(err); got.Code != want || got.Message == "" {
			t.Errorf("%v: %+v", err, got)
		}
	}
}

func TestAConfigurationKnowsWhichFilesDefineAKey(t *testing.T) {
	c, r := Load(givenFiles(
		main1(base("        headers: {X-A: a}")+"  other:\nlog:\n"),
		dropIn("10.yaml", "helpers: {h: {webhooks: {w: {headers: {X-A: b}}}}}\n"),
		dropIn("20.yaml", "retry: &x {timeout: 9s}\nhelpers: {h: {webhooks: {w: {retry: {<<: *x}}}}}\n"),
	))
	if c == nil {
		t.Fatal(text1(t, r))
	}
	for path, want := range map[string]string{
		"helpers h webhooks w":                   "config.yaml 10.yaml 20.yaml",
		"helpers h webhooks w url":               "config.yaml",
		"helpers h webhooks w headers X-A":       "config.yaml 10.yaml",
		"helpers h webhooks w headers X-A below": "",
		"helpers h webhooks w retry timeout":     "20.yaml",
		"helpers h webhooks v":                   "",
		"helpers other":                          "config.yaml",
		"log":                                    "config.yaml",
		"log level":                              "",
	} {
		var got []string
		for _, file := range c.DefinedIn(strings.Fields(path)...) {
			got = append(got, filepath.Base(file))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	if files := c.DefinedIn("log"); files[0] != "/nonexistent/config.yaml" {
		t.Errorf("path %q", files[0])
	}
}

func TestAFindingCanBeAddedAtAKey(t *testing.T) {
	_, r := Load(givenFiles(main1(base("        headers: {X-A: a, X-B: b}")), dropIn("a.yaml", "\nhelpers: {h: {webhooks: {w: {url: \"https://example.com/hunter2\"}}}}\n")))
	if text := r.Text(); text != "" {
		t.Fatalf("findings:\n%s", text)
	}
	add := func(message string, path ...string) {
		r.Add(Finding{Code: "x", Message: message, Suggestion: "s"}, path...)
	}
	add("about a key that is missing", "helpers", "h", "webhooks", "w", "headers", "X-C")
	add("about nothing at all", "tests", "t")
	add("about a secret", "helpers", "h", "webhooks", "w", "url")
	r.Add(Finding{Severity: SeverityWarning, Code: "y", Message: "about a value"}, "helpers", "h", "webhooks", "w", "headers", "X-B")
	want := `error: about nothing at all
 --> /nonexistent/config.yaml
  = s

error: about a key that is missing
 --> /nonexistent/config.yaml:7:9
  |
7 |         headers: {X-A: ********, X-B: ********}
  |         ^^^^^^^ s

warning: about a value
 --> /nonexistent/config.yaml:7:32
  |
7 |         headers: {X-A: ********, X-B: ********}
  |                                       ^^^^^^^^

error: about a secret
 --> their/a.yaml:2:35
  |
2 | helpers: {h: {webhooks: {w: {url: https://example.com/********}}}}
  |                                   ^^^^^^^^^^^^^^^^^^^^^^^^^^^^ s
`
	if got := r.Text(); got != want {
		t.Errorf("got:\n%q\nwant:\n%q", got, want)
	}
	var plain strings.Builder
	if err := r.WriteText(&plain, false); err != nil || plain.String() != want {
		t.Errorf("Text and WriteText differ, %v", err)
	}
	if f := r.Findings[3]; f.Severity != SeverityError || f.Path != "/helpers/h/webhooks/w/url" || f.File != "their/a.yaml" {
		t.Errorf("finding %+v", f)
	}
	if r.Err() == nil {
		t.Error("errors that were added do not count")
	}
}

func TestAFindingCanBeAddedWithoutAnyFile(t *testing.T) {
	r := &Report{}
	r.Add(Finding{Code: "x", Message: "lost"}, "helpers")
	if len(r.Findings) != 1 || r.Findings[0].Path != "/helpers" || !strings.Contains(r.Text(), "error: lost") {
		t.Errorf("%+v\n%s", r.Findings, r.Text())
	}
}
