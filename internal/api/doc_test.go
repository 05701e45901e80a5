package api

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/rest"
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

func TestTheManualNamesEveryRouteAndCode(t *testing.T) {
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
}

// metric is one row of the manual's table, and one family of a scrape.
type metric struct{ name, kind, labels, help string }

// documented are the rows of the manual's table of metrics.
func documented(t *testing.T) (rows []metric) {
	t.Helper()
	row := regexp.MustCompile("(?m)^\\| `(peanuts_relay_[a-z_]+)` \\| (\\w+) \\| ([`a-z_ ]*) \\| (.*) \\|$")
	for _, r := range row.FindAllStringSubmatch(manual(t), -1) {
		labels := strings.Fields(strings.ReplaceAll(r[3], "`", ""))
		slices.Sort(labels)
		rows = append(rows, metric{r[1], r[2], strings.Join(labels, " "), r[4]})
	}
	return rows
}

// served are the families of a scrape.
func served(t *testing.T, w *world) (all []metric) {
	t.Helper()
	families, err := w.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "peanuts_relay_") {
			continue
		}
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		slices.Sort(labels)
		all = append(all, metric{f.GetName(), strings.ToLower(f.GetType().String()), strings.Join(labels, " "), strings.TrimSuffix(f.GetHelp(), ".")})
	}
	return all
}

func TestTheManualHasEveryMetricAndNoOther(t *testing.T) {
	w, _ := storyWorld(t)
	status := w.Status
	w.Status = func() rest.Status {
		s := status()
		s.Config.RestartRequired = []string{"listen.events"}
		return s
	}
	there, listed := served(t, w), documented(t)
	if len(there) < 30 {
		t.Fatalf("only %d metrics", len(there))
	}
	for _, m := range there {
		if !slices.Contains(listed, m) {
			t.Errorf("the manual lacks, or says otherwise: %+v", m)
		}
	}
	for _, m := range listed {
		if !slices.Contains(there, m) {
			t.Errorf("the manual has what is not there, or twice: %+v", m)
		}
	}
	if len(listed) != len(there) {
		t.Errorf("%d rows for %d metrics", len(listed), len(there))
	}
}
