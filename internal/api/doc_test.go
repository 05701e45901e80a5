package api

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// manual is the chapter on the admin API.
func manual(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "api.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, chapter, ok := strings.Cut(string(text), "# The admin API")
	if !ok {
		t.Fatal("docs/api.md has no chapter “The admin API”")
	}
	return chapter
}

// Every example names the recorded document that it is.
func TestTheExamplesOfTheManualAreRecordedDocuments(t *testing.T) {
	example := regexp.MustCompile("(?s)<!-- recorded: ([a-z_]+) -->\n```json\n(.*?)\n```\n")
	found := example.FindAllStringSubmatch(manual(t), -1)
	if len(found) < 7 {
		t.Errorf("only %d examples", len(found))
	}
	for _, match := range found {
		want, err := os.ReadFile(filepath.Join("testdata", "golden", match[1]+".json"))
		if err != nil {
			t.Fatal(err)
		}
		if strings.TrimSpace(string(want)) != match[2] {
			t.Errorf("example %s is not the recorded document", match[1])
		}
	}
	var detail struct{ Curl string }
	recorded, err := os.ReadFile(filepath.Join("testdata", "golden", "delivery_retried.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(recorded, &detail); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(manual(t), "```sh\n"+detail.Curl+"```\n") {
		t.Error("the example of the curl line is not the recorded one")
	}
}

func TestTheManualNamesEveryRouteCodeAndMetric(t *testing.T) {
	w, _ := storyWorld(t)
	w.start(t)
	text := manual(t)
	for _, e := range w.endpoints() {
		if !strings.Contains(text, "`"+e.method+" "+e.path+"`") {
			t.Errorf("the manual lacks %s %s", e.method, e.path)
		}
	}
	source, err := os.ReadFile(filepath.Join("..", "rest", "status.go"))
	if err != nil {
		t.Fatal(err)
	}
	codes := regexp.MustCompile(`\tCode[A-Za-z]+ += "([a-z_]+)" +// (\d+):`).FindAllSubmatch(source, -1)
	if len(codes) < 10 {
		t.Errorf("only %d codes", len(codes))
	}
	for _, code := range codes {
		if !strings.Contains(text, "| "+string(code[2])+" | `"+string(code[1])+"` |") {
			t.Errorf("the manual lacks %s %s", code[2], code[1])
		}
	}
	for line := range strings.Lines(scrape(t, w)) {
		if fields := strings.Fields(line); len(fields) == 4 && fields[1] == "TYPE" && strings.HasPrefix(fields[2], "peanuts_relay_") &&
			!strings.Contains(text, "| `"+fields[2]+"` | "+fields[3]+" |") {
			t.Errorf("the manual lacks %s of type %s", fields[2], fields[3])
		}
	}
}
