package cli

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// inDocs finds what an operator is told to type: a line of a code block, or a code span.
var inDocs = regexp.MustCompile("(?m)(?:^(?: {4}|\\$ |# )?(?:sudo )?|`(?:sudo )?)peanuts-relay ([a-z][^`\n]*)")

// words splits a command line as a shell does, up to whatever another command or a
// file comes after.
func words(line string) (out []string) {
	word, quote, begun := "", rune(0), false
	for _, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '\'' || r == '"'):
			quote, begun = r, true
		case quote == 0 && strings.ContainsRune("|<>;&#", r):
			if begun {
				out = append(out, word)
			}
			return out
		case quote == 0 && r == ' ':
			if begun {
				out = append(out, word)
			}
			word, begun = "", false
		default:
			word, begun = word+string(r), true
		}
	}
	if begun {
		out = append(out, word)
	}
	return out
}

// wrong says what is wrong with a command line; "" is nothing.
func wrong(line string) string {
	args := words(line)
	a := &app{}
	cmd, rest, err := a.root().Find(args)
	if err != nil {
		return err.Error()
	}
	if !cmd.HasParent() {
		return "there is no such command"
	}
	if err := cmd.ParseFlags(rest); err != nil {
		return err.Error()
	}
	if len(args) == 1 || cmd.Flags().Changed("help") {
		return "" // the command itself is meant
	}
	if err := cmd.ValidateArgs(cmd.Flags().Args()); err != nil {
		return err.Error()
	}
	return ""
}

// TestCommandLinesOfTheDocsAreAccepted holds every command line on a page, and in the
// examples of the help, to the commands and flags that there are.
func TestCommandLinesOfTheDocsAreAccepted(t *testing.T) {
	var pages []string
	for _, pattern := range []string{"../../README.md", "../../docs/*.md", "../../docs/*/*.md", "../../docs/*/*/*.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, found...)
	}
	checked := 0
	check := func(where, line string) {
		checked++
		if wrong := wrong(line); wrong != "" {
			t.Errorf("%s: peanuts-relay %s: %s", where, line, wrong)
		}
	}
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range inDocs.FindAllStringSubmatch(strings.ReplaceAll(string(text), "\\\n", " "), -1) {
			check(filepath.Base(page), m[1])
		}
	}
	var helps func(*cobra.Command)
	helps = func(c *cobra.Command) {
		for line := range strings.Lines(c.Example) {
			if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "peanuts-relay "); ok {
				check("help of "+c.Name(), rest)
			}
		}
		for _, sub := range c.Commands() {
			helps(sub)
		}
	}
	helps((&app{}).root())
	if checked < 100 {
		t.Errorf("only %d command lines found", checked)
	}
	for _, line := range []string{"revoke ID", "replay expenses.backend --stats failed", "reload now"} {
		if wrong(line) == "" {
			t.Errorf("peanuts-relay %s is taken for right", line)
		}
	}
}
