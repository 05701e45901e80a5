package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// checkFingerprint compares the digest from the disk with those of a Load and of a
// Load of what that has read.
func checkFingerprint(t *testing.T, path string) string {
	t.Helper()
	_, r := Load(options(path))
	if got := Fingerprint(path, r.References); got != r.Digest {
		t.Errorf("the fingerprint is %s, the digest %s", got, r.Digest)
	}
	if len(r.Sources) < len(r.Files) || listFiles(path).err != nil {
		return r.Digest // not all could be read
	}
	o := options(path)
	o.Files = r.Sources
	if _, again := Load(o); again.Digest != r.Digest {
		t.Errorf("the same files in memory have another digest\n%s", text1(t, r))
	}
	return r.Digest
}

func TestTheFingerprintIsTheDigestOfEveryFileOfTheCorpus(t *testing.T) {
	for _, kind := range []string{"good", "bad"} {
		for _, file := range corpus(t, kind) {
			t.Run(filepath.Base(file), func(t *testing.T) {
				content, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				dir := write(t, map[string]string{"config.yaml": string(content), "conf.d/a.yaml": "log: {level: info}\n"})
				checkFingerprint(t, filepath.Join(dir, "config.yaml"))
			})
		}
	}
}

// Each step changes what is on the disk, and both must see it alike.
func TestTheFingerprintFollowsTheDigestThroughEveryEdit(t *testing.T) {
	cert, key := pair(t)
	other, _ := pair(t)
	dir := write(t, map[string]string{"ca.pem": cert, "c.pem": cert, "k.pem": key, "secret": strings.Repeat("s", 32)})
	at := func(name string) string { return filepath.Join(dir, name) }
	main := strings.ReplaceAll(base("        tls: {ca: ca.pem, cert: c.pem, key: k.pem}"), "${env:SECRET}", "${file:"+at("secret")+"}")
	put := func(name, content string) func() {
		return func() { writeFile(t, at(name), content, 0o600) }
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	seen := map[string]string{}
	for _, step := range []struct {
		what string
		do   func()
	}{
		{"no file", func() {}},
		{"the main file", put("config.yaml", main)},
		{"the main file broken", put("config.yaml", main+"x: [\n")},
		{"a drop-in", put("conf.d/a.yaml", "log: {level: info}\n")},
		{"the main file repaired", put("config.yaml", main)},
		{"a secret", put("secret", strings.Repeat("t", 32))},
		{"a secret too long", put("secret", strings.Repeat("t", maxReferenceBytes+1))},
		{"another secret too long", put("secret", strings.Repeat("u", maxReferenceBytes+1))},
		{"no secret", func() { must(os.Remove(at("secret"))) }},
		{"the secret is a directory", func() { must(os.Mkdir(at("secret"), 0o700)) }},
		{"the secret again", func() { must(os.Remove(at("secret"))); put("secret", strings.Repeat("v", 32))() }},
		{"another authority", put("ca.pem", other)},
		{"no authority", put("ca.pem", "nothing")},
		{"authority removed", func() { must(os.Remove(at("ca.pem"))) }},
		{"authority back", put("ca.pem", cert+"\n")},
		{"another key", put("k.pem", key+"\n")},
		{"an ignored drop-in is no change", func() { put("conf.d/x.yml", "log: {}\n")(); put("conf.d/.x.yaml", "")() }},
		{"a drop-in that is a directory", func() { must(os.Mkdir(at("conf.d/b.yaml"), 0o700)) }},
		{"a drop-in that leads nowhere", func() { must(os.Remove(at("conf.d/b.yaml"))); must(os.Symlink("nowhere", at("conf.d/b.yaml"))) }},
		{"a drop-in that is too large", func() {
			must(os.Remove(at("conf.d/b.yaml")))
			put("conf.d/b.yaml", strings.Repeat("# 34567\n", MaxFileBytes/8)+"#")()
		}},
		{"drop-ins that are a file", func() { must(os.RemoveAll(at("conf.d"))); put("conf.d", "")() }},
		{"no drop-ins", func() { must(os.Remove(at("conf.d"))) }},
	} {
		step.do()
		digest := checkFingerprint(t, at("config.yaml"))
		before, twice := seen[digest]
		if twice != strings.HasSuffix(step.what, "is no change") {
			t.Errorf("%s: the digest is that of %q", step.what, before)
		}
		seen[digest] = step.what
	}
}

func TestTheFingerprintDoesNotDependOnTheOrderOfReferences(t *testing.T) {
	dir := write(t, map[string]string{"config.yaml": base(), "a": "1", "b": "2"})
	a, b, path := filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, "config.yaml")
	if one := Fingerprint(path, []string{a, b}); one != Fingerprint(path, []string{b, a, b}) || one == Fingerprint(path, []string{a}) {
		t.Error("the order counts, or a reference does not")
	}
}

func TestTheModeOfAFileIsNoPartOfTheDigest(t *testing.T) {
	dir := write(t, map[string]string{"config.yaml": base()})
	path := filepath.Join(dir, "config.yaml")
	before := checkFingerprint(t, path)
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if checkFingerprint(t, path) != before {
		t.Error("chmod alone is a change")
	}
}

func TestARelativePathHasTheDigestOfTheAbsoluteOne(t *testing.T) {
	dir := write(t, map[string]string{"config.yaml": base(), "conf.d/a.yaml": "log: {}\n"})
	t.Chdir(dir)
	c, r := Load(options("config.yaml"))
	if c == nil {
		t.Fatal(text1(t, r))
	}
	if c.MainFile() != filepath.Join(dir, "config.yaml") || r.Files[0] != "config.yaml" || r.Sources[1].Path != filepath.Join(dir, "conf.d/a.yaml") || r.Sources[1].Shown != "conf.d/a.yaml" {
		t.Errorf("main file %s, files %v, source %s %s", c.MainFile(), r.Files, r.Sources[1].Path, r.Sources[1].Shown)
	}
	if Fingerprint(c.MainFile(), nil) != r.Digest || Fingerprint("config.yaml", nil) != r.Digest {
		t.Error("the digests differ")
	}
}
