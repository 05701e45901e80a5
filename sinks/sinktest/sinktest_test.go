package sinktest

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if mistake, isModel := strings.CutPrefix(filepath.Base(os.Args[0]), modelProgram); isModel {
		playModel(strings.TrimPrefix(mistake, "-"))
	}
	goleak.VerifyTestMain(m)
}

// outcomes runs the whole suite against a model and sorts the checks.
func outcomes(t *testing.T, m *model, o Options) map[Status][]Result {
	t.Helper()
	heard := &kept{}
	o.Logs = heard.String
	m.log = logTo(heard)
	sorted := map[Status][]Result{}
	client, end, err := inProcess(m.server())
	if err != nil {
		t.Error(err) // not on the goroutine of the test
		return sorted
	}
	defer end()
	err = Check(t.Context(), client, o, func(r Result) { sorted[r.Status] = append(sorted[r.Status], r) })
	if err != nil {
		t.Error(err)
	}
	return sorted
}

func names(results []Result) (list []string) {
	for _, r := range results {
		list = append(list, r.Check)
	}
	slices.Sort(list)
	return list
}

func complain(t *testing.T, results []Result) {
	t.Helper()
	for _, r := range results {
		t.Errorf("%s (%s) took %v:\n\t%s", r.Check, r.Why, r.Took, strings.Join(r.Details, "\n\t"))
	}
}

func TestASinkThatDoesEverythingRightPasses(t *testing.T) {
	t.Parallel()
	sorted := outcomes(t, newModel(), modelOptions())
	complain(t, sorted[Failed])
	complain(t, sorted[Skipped])
	if n := len(sorted[Passed]); n < 45 {
		t.Errorf("only %d checks passed", n)
	}
}

func TestTheEndOfTheContextEndsTheSuite(t *testing.T) {
	t.Parallel()
	client, end, err := inProcess(newModel().server())
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	err = Check(ctx, client, modelOptions(), func(Result) { n++; cancel() })
	if err == nil || n != 1 {
		t.Errorf("%d checks, %v", n, err)
	}
}

func logTo(k *kept) *slog.Logger { return slog.New(slog.NewTextHandler(k, nil)) }

func TestTheDocumentationHasEveryCheck(t *testing.T) {
	page, err := os.ReadFile("../../docs/testing-a-sink.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range Checks() {
		name, isAnswer := strings.CutPrefix(info.Name, "answer-")
		switch {
		case isAnswer && !strings.Contains(string(page), name):
			t.Errorf("the answer %s is not described", name)
		case !isAnswer && !strings.Contains(string(page), "| `"+info.Name+"` | "+info.Why+" |"):
			t.Errorf("the check is not described: | `%s` | %s |", info.Name, info.Why)
		}
	}
}
