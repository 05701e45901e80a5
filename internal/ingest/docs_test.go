package ingest

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/testhost"
)

const documentedSocket = "/run/peanuts-relay/events.sock"

// snippet is a code block of docs/api.md that says how it is run:
//
//	<!-- run: python3 send.py: 1 -->
//
// the command, the file's name, and how many events it sends.
var snippet = regexp.MustCompile("(?s)<!-- run: (\\S+)(.*?) (\\S+): (\\d+) -->\\s*```\\w+\n(.*?)```")

func TestSnippetsOfTheDocumentationWork(t *testing.T) {
	doc, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	found := snippet.FindAllStringSubmatch(string(doc), -1)
	if marks := strings.Count(string(doc), "<!-- run:"); len(found) != marks || marks < 7 {
		t.Fatalf("%d of %d snippets are marked as they should be", len(found), marks)
	}
	for _, m := range found {
		command, args, file, want, code := m[1], strings.Fields(m[2]), m[3], m[4], m[5]
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			testhost.Program(t, command)
			if command == "php" && !hasPHPCurl() {
				testhost.Missing(t, "php has no curl extension")
			}
			s := serve(t, Options{})
			dir := t.TempDir()
			if !strings.Contains(code, documentedSocket) {
				t.Fatalf("does not name %s", documentedSocket)
			}
			code := strings.ReplaceAll(code, documentedSocket, s.path)
			path := filepath.Join(dir, file)
			lines := created("a") + "\n" + created("b") + "\n"
			if os.WriteFile(path, []byte(code), 0o600) != nil || os.WriteFile(filepath.Join(dir, "events.ndjson"), []byte(lines), 0o600) != nil ||
				os.WriteFile(filepath.Join(dir, "event.json"), []byte(created("a")), 0o600) != nil {
				t.Fatal("cannot write the snippet")
			}
			cmd := exec.Command(command, append(args, path)...)
			cmd.Dir = dir
			cmd.WaitDelay = time.Second
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			got := s.store.all()
			if len(got) != int(want[0]-'0') || len(want) != 1 {
				t.Errorf("sent %d events, want %s\n%s", len(got), want, out)
			}
			for _, ev := range got {
				if ev.Helper != "expenses" || !bytes.Contains(out, []byte(ev.ID)) {
					t.Errorf("event %s of %s; the snippet printed\n%s", ev.ID, ev.Helper, out)
				}
			}
		})
	}
}

func hasPHPCurl() bool {
	out, err := exec.Command("php", "-m").Output()
	return err == nil && bytes.Contains(out, []byte("\ncurl\n"))
}

// Every code that a refusal can carry is in the documentation's table, and the
// table has no other.
func TestErrorTableIsComplete(t *testing.T) {
	doc, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	events, _, _ := strings.Cut(string(doc), "# The admin API")
	documented := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| (?:line )?\\d{3} \\| `([a-z0-9_]+)` \\|").FindAllStringSubmatch(events, -1) {
		documented[m[1]] = true
	}
	declared := map[string]bool{}
	for _, file := range []string{"failure.go", "../event/error.go"} {
		src, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^\tCode\w+\s+= "([a-z0-9_]+)"`).FindAllSubmatch(src, -1) {
			declared[string(m[1])] = true
		}
	}
	delete(declared, CodeClientGone) // nobody is left to read it
	if len(declared) < 25 {
		t.Fatalf("only %d codes found", len(declared))
	}
	counted := codes()
	if len(counted) != len(declared)+1 {
		t.Errorf("%d codes are counted, %d exist", len(counted), len(declared)+1)
	}
	for code := range declared {
		if !slices.Contains(counted, code) {
			t.Errorf("%s is not counted from the start", code)
		}
		if !documented[code] {
			t.Errorf("%s is not documented", code)
		}
	}
	for code := range documented {
		if !declared[code] {
			t.Errorf("%s is documented but does not exist", code)
		}
	}
}
