package api

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/secret"
	"github.com/peanutsapp/peanuts-relay/internal/testhost"
)

// stubCurl stands for curl where it is not installed: it appends every argument
// to a file, each ended by a NUL, and stdin to another.
const stubCurl = `#!/bin/sh
for a in "$@"; do printf '%s\0' "$a" >> "$STUB_OUT.args"; done
for a in "$@"; do if [ "$a" = "@-" ]; then cat > "$STUB_OUT.stdin"; fi; done
`

// awkwardPayloads are bodies that a shell, or curl, could get wrong.
func awkwardPayloads() map[string]string {
	return map[string]string{
		"plain":          `{"event":"entry.created"}`,
		"single quotes":  `{"a":"it's '' \\'x\\' '"}`,
		"shell syntax":   "{\"a\":\"$HOME $(id) `id` ${x} \\\\ ! # ; & | > < * ? [x] ~\"}",
		"newlines":       "{\n\"a\": \"b\"\n}\n\n",
		"carriage":       "{\"a\":\r\n1}\r",
		"percent":        `{"a":"%s %d %n %%"}`,
		"unicode":        "{\"a\":\"é \u2028 😀\"}",
		"starts with @":  `@/etc/hostname`,
		"starts with -":  `--next`,
		"empty":          ``,
		"big":            `{"a":"` + strings.Repeat("it's $x ", 130_000) + `"}`,
		"just an option": maxWord(maxArgument - 2),
		"just too long":  maxWord(maxArgument - 1),
	}
}

func maxWord(n int) string { return strings.Repeat("x", n) }

// sh runs a script in an environment of nothing but PATH and env.
func sh(t *testing.T, script, path string, env ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-eu")
	cmd.Stdin = strings.NewReader(script)
	cmd.Env = append(env, "PATH="+path, "HOME="+t.TempDir())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, cut(string(out)))
	}
}

func curlAttempt(headers ...delivery.Header) (*delivery.Attempt, *delivery.Outbound) {
	a := failedAttempt(3)
	a.Request.URL = "https://api.example.com/" + secret.Mask
	a.Request.Headers = headers
	o := &delivery.Outbound{DeliveryID: "del_x", EventID: "evt_it's ${x}", EventType: "entry.created", EntryID: "e", Webhook: "expenses.backend"}
	return &a, o
}

func TestTheCurlLineGivesCurlTheExactArguments(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "curl"), []byte(stubCurl), 0o755); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	for name, payload := range awkwardPayloads() {
		t.Run(name, func(t *testing.T) {
			a, o := curlAttempt(delivery.Header{Name: "X-Env", Value: "it's 'prod' $HOME"}, delivery.Header{Name: "X-Empty"},
				delivery.Header{Name: "Authorization", Value: "Bearer ${file:/etc/token}"}, delivery.Header{Name: "X-Key", Value: secret.Mask})
			o.Payload = []byte(payload)
			out := filepath.Join(t.TempDir(), "out")
			sh(t, w.curl(a, o), dir+":"+os.Getenv("PATH"), "STUB_OUT="+out, "EXPENSES_BACKEND_URL=https://api.example.com/in?a=[b]&c='d'",
				"EXPENSES_BACKEND_AUTHORIZATION=Bearer s3cr3t $x", "EXPENSES_BACKEND_X_KEY=k'k")
			raw, err := os.ReadFile(out + ".args")
			if err != nil {
				t.Fatal(err)
			}
			args := strings.Split(strings.TrimSuffix(string(raw), "\x00"), "\x00")
			for _, want := range [][2]string{{"--header", "X-Env: it's 'prod' $HOME"}, {"--header", "X-Empty;"}, {"--header", "X-Peanuts-Event-Id: evt_it's ${x}"},
				{"--header", "Authorization: Bearer s3cr3t $x"}, {"--header", "X-Key: k'k"}, {"--header", "X-Peanuts-Signature: sha256=00ff"},
				{"--header", "X-Peanuts-Attempt: 3"}, {"--header", "Content-Type: application/json"}, {"--request", "POST"}} {
				if !hasPair(args, want) {
					t.Errorf("curl did not get %q", want)
				}
			}
			if last := args[len(args)-1]; last != "https://api.example.com/in?a=[b]&c='d'" {
				t.Errorf("the URL came as %q", last)
			}
			got := dataOf(args)
			if got == "@-" {
				stdin, err := os.ReadFile(out + ".stdin")
				if err != nil {
					t.Fatal(err)
				}
				got = string(stdin)
			} else if strings.HasPrefix(payload, "@") {
				t.Error("curl would read a file")
			}
			if got != payload {
				t.Errorf("the body came as %q (%d bytes), want %q (%d bytes)", cut(got), len(got), cut(payload), len(payload))
			}
		})
	}
}

func hasPair(args []string, pair [2]string) bool {
	for i := range len(args) - 1 {
		if args[i] == pair[0] && args[i+1] == pair[1] {
			return true
		}
	}
	return false
}

func dataOf(args []string) string {
	for i := range len(args) - 1 {
		if args[i] == "--data-binary" {
			return args[i+1]
		}
	}
	return ""
}

// With the real curl the receiver gets the bytes, the headers, and no header
// more than the relay would have sent.
func TestTheCurlLineRepeatsTheRequest(t *testing.T) {
	testhost.Program(t, "curl") // the arguments that it gets are also tested with a stub
	type seen struct {
		header http.Header
		body   []byte
	}
	got := make(chan seen, 1)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- seen{r.Header, body}
	}))
	defer receiver.Close()
	w := newWorld(t)
	for name, payload := range awkwardPayloads() {
		t.Run(name, func(t *testing.T) {
			a, o := curlAttempt(delivery.Header{Name: "X-Empty"}, delivery.Header{Name: "Authorization", Value: "Bearer ${file:/etc/token}"})
			o.Payload = []byte(payload)
			sh(t, w.curl(a, o), os.Getenv("PATH"), "EXPENSES_BACKEND_URL="+receiver.URL+"/in", "EXPENSES_BACKEND_AUTHORIZATION=Bearer s3cr3t")
			s := <-got
			if !bytes.Equal(s.body, o.Payload) {
				t.Errorf("the body came as %q (%d bytes), want %q (%d bytes)", cut(string(s.body)), len(s.body), cut(payload), len(payload))
			}
			want := http.Header{}
			for _, h := range w.requestHeaders(a, o) {
				want.Set(h.Name, h.Value)
			}
			want.Set("Authorization", "Bearer s3cr3t")
			want.Set("Content-Length", s.header.Get("Content-Length"))
			for name := range s.header {
				if s.header.Get(name) != want.Get(name) || !has(want, name) {
					t.Errorf("header %s came as %q, want %q", name, s.header.Get(name), want.Get(name))
				}
			}
			for name := range want {
				if !has(s.header, name) {
					t.Errorf("header %s did not come", name)
				}
			}
		})
	}
}

func has(h http.Header, name string) bool { return len(h[http.CanonicalHeaderKey(name)]) > 0 }

func TestTheCurlLineSaysWhereEachVariableComesFrom(t *testing.T) {
	w := newWorld(t)
	a, o := curlAttempt(delivery.Header{Name: "X-Key", Value: secret.Mask}, delivery.Header{Name: "X_Key", Value: "${env:KEY}\nrm -rf /"})
	o.Payload, o.Webhook, o.DeliveryID = []byte(`{}`), "9to5.back-end", "del_x\nid"
	script := w.curl(a, o)
	for _, want := range []string{
		"#   _9TO5_BACK_END_X_KEY: helpers.9to5.webhooks.back-end.headers.X-Key, shown as " + secret.Mask + "\n",
		"#   _9TO5_BACK_END_X_KEY_2: helpers.9to5.webhooks.back-end.headers.X_Key, shown as ${env:KEY} rm -rf /\n",
		"#   _9TO5_BACK_END_URL: helpers.9to5.webhooks.back-end.url, shown as https://api.example.com/" + secret.Mask + "\n",
		"# Attempt 3 of del_x id, made at",
		`"$_9TO5_BACK_END_URL"`,
	} {
		if !strings.Contains(script, want) {
			t.Errorf("the script lacks %q:\n%s", want, script)
		}
	}
	a.Request = nil
	if script := w.curl(a, o); script != "" {
		t.Errorf("an attempt without a request is shown as %q", script)
	}
}
