package config

import (
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/peanutsapp/peanuts-relay/internal/event"
)

func TestDurations(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"1ms": time.Millisecond, "1.5d": 36 * time.Hour, "1m30s": 90 * time.Second, "7d": 7 * day, "0s": 0, "1d2h3m4s5ms": 26*time.Hour + 3*time.Minute + 4*time.Second + 5*time.Millisecond,
		"99999999999999999999d": math.MaxInt64, "106752d": math.MaxInt64, "106751d106751d": math.MaxInt64,
	} {
		if got, ok := parseDuration(text); !ok || got != want {
			t.Errorf("%q: %v, %v", text, got, ok)
		}
	}
	for _, text := range []string{"", "1", "s", "-1s", "+1s", "1 s", "1S", "1w", "1us", "1h-1m", "1.s", ".5s", "1,5s", "1e3s", "1m 30s", "１s"} {
		if got, ok := parseDuration(text); ok {
			t.Errorf("%q is accepted as %v", text, got)
		}
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]int64{"0B": 0, "1KiB": 1024, "1.5GiB": 3 << 29, "10GiB": 10 << 30, "64TiB": 64 << 40, "9999999999TiB": math.MaxInt64, "99999999999999999999B": math.MaxInt64} {
		if got, ok := parseSize(text); !ok || got != want {
			t.Errorf("%q: %v, %v", text, got, ok)
		}
	}
	for _, text := range []string{"", "1", "1GB", "1G", "1 GiB", "-1GiB", "1gib", "GiB", "1KiBKiB"} {
		if got, ok := parseSize(text); ok {
			t.Errorf("%q is accepted as %v", text, got)
		}
	}
}

func TestFormattedValuesAreReadBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.Int64Range(0, int64(3650*day)/int64(time.Millisecond)).Draw(t, "ms")) * time.Millisecond
		if got, ok := parseDuration(formatDuration(d)); !ok || got != d {
			t.Fatalf("%v is written %q and read as %v", d, formatDuration(d), got)
		}
		n := rapid.Int64Range(0, 64<<40).Draw(t, "bytes")
		if got, ok := parseSize(formatSize(n)); !ok || got != n {
			t.Fatalf("%d is written %q and read as %d", n, formatSize(n), got)
		}
	})
}

func TestShares(t *testing.T) {
	for _, c := range []struct {
		share       Share
		total, want int64
	}{
		{Share{Percent: 50}, 10 << 30, 5 << 30}, {Share{Percent: 100}, math.MaxInt64, math.MaxInt64}, {Share{Percent: 33}, 10, 3}, {Share{Bytes: 5}, 10, 5}, {Share{Bytes: 50}, 10, 10},
	} {
		if got := c.share.Of(c.total); got != c.want {
			t.Errorf("%v of %d: %d, want %d", c.share, c.total, got, c.want)
		}
	}
}

func expanderFor(t *testing.T) *expander {
	dir := write(t, map[string]string{"one": "line\n", "crlf": "line\r\n", "two": "line\n\n", "none": "line", "refer": "${env:WORD}$$", "binary": "a\x00b", "latin1": "\xe9", "big": strings.Repeat("x", maxReferenceBytes+1)})
	return &expander{lookup: environment(map[string]string{"CREDENTIALS_DIRECTORY": dir, "DIR": dir, "REFER": "${env:WORD} $$ }", "LATIN1": "\xe9"})}
}

func TestReferences(t *testing.T) {
	x := expanderFor(t)
	dir, _ := x.lookup("DIR")
	for text, want := range map[string]string{
		"plain": "plain", "": "", "a $ b": "a $ b", "$": "$", "$$": "$", "$$$$": "$$", "$${env:WORD}": "${env:WORD}", "$$${env:WORD}": "$" + planted,
		"${env:WORD}": planted, "<${env:WORD}${env:WORD}>": "<" + planted + planted + ">", "${env:NONE:-dflt}": "dflt", "${env:EMPTY:-dflt}": "dflt", "${env:EMPTY}": "",
		"${env:NONE:-}": "", "${env:WORD:-dflt}": planted, "${env:NONE:-a:-b $ c}": "a:-b $ c",
		"${env:REFER}": "${env:WORD} $$ }", "${cred:refer}": "${env:WORD}$$",
		"${file:" + dir + "/one}": "line", "${file:" + dir + "/crlf}": "line", "${file:" + dir + "/two}": "line\n", "${file:" + dir + "/none}": "line", "${cred:one}": "line",
		"}{env:WORD}": "}{env:WORD}",
	} {
		if got, _, err := x.expand(text); err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", text, got, err, want)
		}
	}
}

func TestReferencesThatCannotBeUsed(t *testing.T) {
	x := expanderFor(t)
	dir, _ := x.lookup("DIR")
	for text, want := range map[string]string{
		"${env:NONE}": "is not set", "${env:LATIN1}": "not UTF-8", "${env:}": "names no variable", "${env:1A}": "names no variable", "${env:A B}": "names no variable",
		"${": "not closed", "${env:WORD": "not closed", "x${}": "names no kind", "${WORD}": "names no kind", "${vault:hunter2}": "unknown kind",
		"${env:NONE:-${env:WORD}}": "inside a reference", "${file:relative}": "absolute path", "${file:}": "absolute path", "${file:" + dir + "}": "a directory",
		"${file:" + dir + "/missing}": "no such file", "${file:" + dir + "/binary}": "not UTF-8", "${file:" + dir + "/latin1}": "not UTF-8", "${file:" + dir + "/big}": "too large",
		"${cred:../one}": "names no credential", "${cred:..}": "names no credential", "${cred:}": "names no credential", "${cred:missing}": "no such file",
	} {
		_, refers, err := x.expand(text)
		if err == nil || !refers || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
			continue
		}
		if strings.Contains(err.Error(), planted) {
			t.Errorf("%q: the error quotes it: %v", text, err)
		}
	}
	if _, _, err := x.expand("${env:NONE} ${env:NO}"); strings.Count(err.Error(), "is not set") != 2 {
		t.Errorf("both references fail, but: %v", err)
	}
	if _, _, err := (&expander{lookup: environment(nil)}).expand("${cred:x}"); err == nil || !strings.Contains(err.Error(), "CREDENTIALS_DIRECTORY") {
		t.Errorf("without systemd: %v", err)
	}
}

func TestAFileIsReadOnceForAllItsUses(t *testing.T) {
	dir := write(t, map[string]string{"s": "first"})
	x := &expander{lookup: environment(nil)}
	text := "${file:" + filepath.Join(dir, "s") + "}"
	first, _, _ := x.expand(text)
	if err := os.WriteFile(filepath.Join(dir, "s"), []byte("second"), 0o600); err != nil {
		t.Fatal(err)
	}
	if second, _, _ := x.expand(text); first != "first" || second != "first" {
		t.Errorf("%q, then %q", first, second)
	}
}

func TestRedaction(t *testing.T) {
	for _, c := range []struct {
		text string
		url  bool
		want string
	}{
		{"hunter2", false, "********"}, {"Bearer", false, "********"}, {"$${env:X}", false, "********"},
		{"${env:X}", false, "${env:X}"}, {"Bearer ${file:/a/b}", false, "Bearer ${file:/a/b}"}, {"hunter2${env:X}", false, "********${env:X}"},
		{"${env:X:-hunter2}", false, "${env:X:-********}"}, {"${hunter2}", false, "${********}"}, {"${env:X", false, "********"}, {"${env:X}}hunter2", false, "${env:X}********"},
		{"https://example.com", true, "https://example.com"}, {"https://example.com:8443/", true, "https://example.com:8443/"}, {"https://example.com/hunter2?x", true, "https://example.com/********"},
		{"https://u:hunter2@example.com/", true, "********"}, {"https://example.com?hunter2", true, "********"}, {"hunter2", true, "********"},
		{"https://example.com/${env:X}", true, "https://example.com/${env:X}"}, {"https://hunter2:${env:X}@example.com/", true, "********${env:X}********"}, {"${env:X}/hunter2", true, "${env:X}********"},
	} {
		if got := redact(c.text, c.url); got != c.want {
			t.Errorf("%q: %q, want %q", c.text, got, c.want)
		}
	}
}

func TestWebhooksResolveWhatTheyInherit(t *testing.T) {
	c := mustLoad(t, `
secret: ${env:SECRET}-file
retry: {schedule: [1s], timeout: 2s, also_on: [408]}
helpers:
  a:
    events: [user.created]
    webhooks:
      file: {url: https://example.com/1}
      own: {url: https://example.com/2, secrets: ["${env:SECRET}-1", "${env:SECRET}-2"], retry: {schedule: [], also_on: []}, events: [created, entry.created, delete, user.created]}
      none: {url: https://example.com/3, signatures: none, events: [create, all], retry: {timeout: 5ms}}
  b:
    secret: ${env:SECRET}-helper
    webhooks:
      helper: {url: https://example.com/4, events: updated, signatures: [{scheme: hex, header: X-S}], format: event, enabled: false}
`)
	hooks := c.Webhooks()
	reveal := func(w Webhook) (out []string) {
		for _, s := range w.Secrets {
			out = append(out, strings.TrimPrefix(s.Reveal(), "env-"+planted+"-0123456789abcdef-"))
		}
		return out
	}
	for i, want := range []struct {
		id                string
		secrets, events   []string
		schedule          []time.Duration
		timeout           time.Duration
		alsoOn            []int
		none              bool
		scheme, header    string
		concurrency, hook int
	}{
		{id: "a.file", secrets: []string{"file"}, schedule: []time.Duration{time.Second}, timeout: 2 * time.Second, alsoOn: []int{408}, scheme: "peanuts"},
		{id: "a.own", secrets: []string{"1", "2"}, events: []string{event.Created, event.Deleted, "user.created"}, schedule: []time.Duration{}, timeout: 2 * time.Second, alsoOn: []int{}, scheme: "peanuts"},
		{id: "a.none", schedule: []time.Duration{time.Second}, timeout: 5 * time.Millisecond, alsoOn: []int{408}, none: true},
		{id: "b.helper", secrets: []string{"helper"}, events: []string{event.Updated}, schedule: []time.Duration{time.Second}, timeout: 2 * time.Second, alsoOn: []int{408}, scheme: "hex", header: "X-S"},
	} {
		w := hooks[i]
		if w.ID != want.id || !slices.Equal(reveal(w), want.secrets) || !slices.Equal(w.Events, want.events) || (w.Events == nil) != (want.events == nil) {
			t.Errorf("%s: secrets %q, events %q", w.ID, reveal(w), w.Events)
		}
		if !slices.Equal(w.Retry.Schedule, want.schedule) || w.Retry.Timeout != want.timeout || !slices.Equal(w.Retry.AlsoOn, want.alsoOn) {
			t.Errorf("%s: retry %+v", w.ID, w.Retry)
		}
		if w.SignaturesNone != want.none || !want.none && (len(w.Signatures) != 1 || w.Signatures[0] != Signature{want.scheme, want.header}) {
			t.Errorf("%s: signatures %v %+v", w.ID, w.SignaturesNone, w.Signatures)
		}
		if w.Concurrency != 8 || w.Ordering != "none" || w.Sink != SinkHTTP || w.Enabled == (w.ID == "b.helper") || w.Helper.ID != w.ID[:1] {
			t.Errorf("%s: %+v", w.ID, w)
		}
	}
}

func TestEmptyEventsStayEmpty(t *testing.T) {
	c := mustLoad(t, base("        events: []"))
	if w := c.Webhooks()[0]; w.Events == nil || len(w.Events) != 0 {
		t.Errorf("events %#v: nil would mean all", w.Events)
	}
}

func TestSettingsAreTreatedAsSecrets(t *testing.T) {
	_, r := loadText(t, "helpers: {h: {webhooks: {w: {sink: slack, settings: {webhook_url: hunter2, n: [1, {x: hunter2}]}}}}}\n")
	if got := codes(r); !slices.Equal(got, []string{codeUnknownSink}) || strings.Contains(outputs(t, r), planted) {
		t.Errorf("%v\n%s", got, outputs(t, r))
	}
}
