package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

// atNextStart is said of a key that only a restart changes.
const atNextStart = "takes effect at the next start"

// asAtStart is said of such a key that was changed back in time.
const asAtStart = "is what runs again"

// changeLine is one line of a list of changes: a sign, an object, what of it.
type changeLine struct{ sign, object, detail string }

// changeLines words changes, those that wait for a restart last; restart names
// the keys that do, whether they changed just now or before; nil when that is not
// known.
func changeLines(changes []rest.ConfigChange, restart []string) []changeLine {
	var lines, later []changeLine
	for _, c := range changes {
		if c.Restart {
			switch {
			case restart == nil:
				later = append(later, changeLine{"!", c.ID, atNextStart})
			case !slices.Contains(restart, c.ID):
				lines = append(lines, changeLine{"~", c.ID, asAtStart})
			}
			continue
		}
		sign := "~"
		switch c.Change {
		case rest.ChangeAdded:
			sign = "+"
		case rest.ChangeRemoved:
			sign = "-"
		}
		lines = append(lines, changeLine{sign, c.Object + " " + c.ID, strings.Join(c.Fields, ", ")})
	}
	for _, key := range restart {
		later = append(later, changeLine{"!", key, atNextStart})
	}
	return append(lines, later...)
}

// widestObject is how far apart the names and the details of changes may be:
// one long name does not push all details off the screen.
const widestObject = 36

// printChanges writes a change a line. On a terminal long lists of keys go on
// below themselves.
func (a *app) printChanges(lines []changeLine) {
	st, width := a.outStyle(), 0
	for _, l := range lines {
		width = max(width, min(textWidth(l.object), widestObject))
	}
	margin := strings.Repeat(" ", len("~ ")+width+len(columnGap))
	for _, l := range lines {
		head := paintSign(st, l.sign) + " " + oneLine(l.object)
		if l.detail == "" {
			fmt.Fprintln(a.Out, head)
			continue
		}
		pad := strings.Repeat(" ", max(width-textWidth(oneLine(l.object)), 0))
		fmt.Fprintln(a.Out, head+pad+columnGap+strings.Join(wrap(oneLine(l.detail), a.OutTerm.Width-len(margin)), "\n"+margin))
	}
}

func paintSign(st style, sign string) string {
	switch sign {
	case "+":
		return st.good(sign)
	case "-":
		return st.bad(sign)
	}
	return st.warn(sign)
}

// wrap breaks text at blanks into lines of at most width columns, as far as its
// words allow. Without a usable width it is one line.
func wrap(text string, width int) []string {
	const useful = 20
	if width < useful {
		return []string{text}
	}
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		switch {
		case line == "":
			line = word
		case textWidth(line)+1+textWidth(word) > width:
			lines = append(lines, line)
			line = word
		default:
			line += " " + word
		}
	}
	return append(lines, line)
}

// tally counts changes: "1 to add, 2 to change", with the words given for
// those that are added, changed and removed, and for those that wait.
func tally(lines []changeLine, added, changed, removed, later string) string {
	var parts []string
	for _, kind := range []struct{ sign, words string }{{"+", added}, {"~", changed}, {"-", removed}, {"!", later}} {
		n := 0
		for _, l := range lines {
			if l.sign == kind.sign {
				n++
			}
		}
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%s %s", grouped(int64(n)), kind.words))
		}
	}
	return strings.Join(parts, ", ")
}

// findingsText is a report as the daemon wrote it, for a terminal in colour.
func findingsText(st style, report string) string {
	var b strings.Builder
	for line := range strings.Lines(safeText(report)) {
		for _, severity := range []string{"error:", "warning:"} {
			if rest, ok := strings.CutPrefix(line, severity); ok {
				paint := st.bad
				if severity == "warning:" {
					paint = st.warn
				}
				line = paint(severity) + rest
				break
			}
		}
		b.WriteString(line)
	}
	if text := b.String(); text != "" && !strings.HasSuffix(text, "\n") {
		return text + "\n"
	}
	return b.String()
}

// errorsIn counts the findings that are errors.
func errorsIn(findings []rest.Finding) int {
	n := 0
	for _, f := range findings {
		if f.Severity == "error" {
			n++
		}
	}
	return n
}
