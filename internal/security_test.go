package internal_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Each test that docs/security.md names is there, in the package that it names: a table
// of defences is worth as much as the tests behind it.
func TestTheTestsThatTheThreatModelNamesExist(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "docs", "security.md"))
	if err != nil {
		t.Fatal(err)
	}
	has := map[string]string{} // the text of the test files of a package
	for _, f := range parseModule(t) {
		if f.test {
			text, err := os.ReadFile(filepath.Join("..", filepath.FromSlash(f.name)))
			if err != nil {
				t.Fatal(err)
			}
			has[f.dir] += string(text)
		}
	}
	dir, named := "", 0
	for _, m := range regexp.MustCompile("`([a-z0-9/]+)`|\\b((?:Test|Fuzz)[A-Z]\\w+)(?: in `([a-z0-9/]+)`)?").FindAllStringSubmatch(string(page), -1) {
		if m[2] == "" {
			if _, ok := has[m[1]]; ok {
				dir = m[1]
			}
			continue
		}
		in := dir
		if m[3] != "" {
			in = m[3]
		}
		named++
		if !strings.Contains(has[in], "\nfunc "+m[2]+"(") {
			t.Errorf("docs/security.md names %s of %s: there is no such test", m[2], in)
		}
	}
	if named < 60 {
		t.Errorf("only %d tests are named", named)
	}
}

// The table of dependencies in docs/security.md has each direct one, and no other.
func TestEachDependencyHasAReason(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "docs", "security.md"))
	if err != nil {
		t.Fatal(err)
	}
	mod, err := os.ReadFile(filepath.Join("..", "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "\n## What it is made of\n")
	table, _, _ = strings.Cut(table, "\n###")
	explained := map[string]bool{}
	for line := range strings.Lines(table) {
		cells := strings.Split(line, "|")
		if len(cells) < 4 {
			continue
		}
		for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[1], -1) {
			explained[m[1]] = strings.TrimSpace(cells[2]) != ""
		}
	}
	direct := 0
	for line := range strings.Lines(string(mod)) {
		fields := strings.Fields(line)
		if len(fields) != 2 || !strings.HasPrefix(line, "\t") || !strings.HasPrefix(fields[1], "v") {
			continue // an indirect one has a comment
		}
		direct++
		if !explained[fields[0]] {
			t.Errorf("%s is a direct dependency, and docs/security.md does not say why", fields[0])
		}
		delete(explained, fields[0])
	}
	for name := range explained {
		t.Errorf("docs/security.md explains %s, which is no direct dependency", name)
	}
	if direct < 20 {
		t.Errorf("only %d dependencies were found", direct)
	}
}
