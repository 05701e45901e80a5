package internal_test

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/failpoint/pointlist"
)

// A normal build takes no file of the tags that make a program fail, and scripts/build
// sets none.
func TestANormalBuildHasNoFileOfATag(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-f", "{{.Name}}: {{.GoFiles}}", "./failpoint", "./planted").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	on, err := filepath.Glob("planted/*_on.go")
	if err != nil || len(on) == 0 {
		t.Fatal(on, err)
	}
	for _, file := range append(on, "failpoint/on.go") {
		if name := filepath.Base(file); slices.Contains(strings.FieldsFunc(string(out), func(r rune) bool { return strings.ContainsRune(" []\n", r) }), name) {
			t.Errorf("a normal build has %s:\n%s", file, out)
		}
	}
	script, err := os.ReadFile("../scripts/build")
	if err != nil || strings.Contains(string(script), " -tags") {
		t.Errorf("scripts/build sets tags: %v", err)
	}
	if flags := os.Getenv("GOFLAGS"); strings.Contains(flags, "-tags") {
		t.Errorf("GOFLAGS=%s", flags)
	}
}

// docs/reliability.md lists the points as they are in the source.
func TestTheDocumentationListsEveryFailpoint(t *testing.T) {
	points, err := pointlist.In(".")
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]string{}
	for _, p := range points {
		files[p.File] = append(files[p.File], "`"+p.Name+"` "+strings.ToLower(p.Kind))
	}
	var want strings.Builder
	fmt.Fprintf(&want, "%d points:\n\n| where | points |\n|---|---|\n", len(points))
	for _, file := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(&want, "| `%s` | %s |\n", file, strings.Join(files[file], ", "))
	}
	text, err := os.ReadFile("../docs/reliability.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), want.String()) {
		t.Errorf("docs/reliability.md should have\n%s", want.String())
	}
}
