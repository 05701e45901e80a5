package internal_test

import (
	"go/ast"
	"go/token"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/docstest"
)

// symptoms are the words that the page says are printed, one list for each row of its
// tables: the code spans of the first two cells.
func symptoms(page string) (out []string) {
	span := regexp.MustCompile("`([^`]+)`")
	for line := range strings.Lines(page) {
		cells := strings.Split(line, "|")
		if len(cells) < 4 || strings.Contains(line, "|---") {
			continue
		}
		for _, m := range span.FindAllStringSubmatch(cells[1]+cells[2], -1) {
			out = append(out, m[1])
		}
	}
	return out
}

// literals are all string constants of the program, tests left out.
func literals(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	for _, f := range parseModule(t) {
		if f.test {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				if s, err := strconv.Unquote(lit.Value); err == nil {
					all.WriteString(s + "\n")
				}
			}
			return true
		})
	}
	return all.String()
}

// TestTheSymptomsAreWhatTheProgramPrints holds docs/troubleshooting.md to the program:
// what a row quotes is in it, and every code of an
// attempt or of a refusal, and every reason for a hold, is on it.
func TestTheSymptomsAreWhatTheProgramPrints(t *testing.T) {
	page := docstest.Page(t, "troubleshooting.md")
	printed := literals(t)
	const least = 40
	quoted := symptoms(page)
	if len(quoted) < least {
		t.Fatalf("only %d quotations found", len(quoted))
	}
	// What other programs print, and what an operator types.
	others := regexp.MustCompile(`^(No such file or directory|Permission denied|Connection refused|peanuts-relay .*|ordering: entry)$`)
	for _, q := range quoted {
		if others.MatchString(q) {
			continue
		}
		for part := range strings.SplitSeq(q, "…") {
			if part = strings.Trim(part, " ,;"); part != "" && !strings.Contains(printed, part) {
				t.Errorf("docs/troubleshooting.md quotes %q; the program has no text with %q", q, part)
			}
		}
	}
	words := constants(t)
	if len(words) < least {
		t.Fatalf("only %d codes and reasons found", len(words))
	}
	for _, word := range words {
		if !strings.Contains(page, "`"+word+"`") {
			t.Errorf("docs/troubleshooting.md says nothing of %q", word)
		}
	}
}

// constants are the codes of attempts and of refused events, and the reasons for a hold.
func constants(t *testing.T) (out []string) {
	t.Helper()
	for _, f := range parseModule(t) {
		if f.test || f.dir != "internal/delivery" && f.dir != "internal/ingest" && f.dir != "internal/event" {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || len(spec.Values) != 1 || !strings.HasPrefix(spec.Names[0].Name, "Code") && !strings.HasPrefix(spec.Names[0].Name, "Hold") {
				return true
			}
			if lit, ok := spec.Values[0].(*ast.BasicLit); ok && lit.Kind == token.STRING {
				if s, err := strconv.Unquote(lit.Value); err == nil {
					out = append(out, s)
				}
			}
			return true
		})
	}
	return out
}
