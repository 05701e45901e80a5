package cli

import (
	"bytes"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/spf13/cobra"
)

// runMain runs one command line in this process. Without Env the environment is
// empty.
func runMain(t *testing.T, s Streams, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	s.Out, s.Err = &out, &errs
	if s.In == nil {
		s.In = strings.NewReader("")
	}
	if s.Env == nil {
		s.Env = environment()
	}
	code = Main(t.Context(), args, s, Deps{Version: "1.2.3-test"})
	return code, out.String(), errs.String()
}

// environment is one made of NAME=VALUE.
func environment(settings ...string) func(string) (string, bool) {
	return func(name string) (string, bool) {
		for _, s := range settings {
			if value, ok := strings.CutPrefix(s, name+"="); ok {
				return value, true
			}
		}
		return "", false
	}
}

// walk visits every command that a user can call.
func walk(c *cobra.Command, visit func(*cobra.Command)) {
	visit(c)
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() || sub.Name() == "help" {
			walk(sub, visit)
		}
	}
}

func TestEveryCommandsHelpStartsWithTwoExamplesOfIt(t *testing.T) {
	root := (&app{Streams: Streams{}}).root()
	count := 0
	walk(root, func(c *cobra.Command) {
		count++
		path := strings.Fields(c.CommandPath())[1:]
		code, stdout, stderr := runMain(t, Streams{}, append(path, "--help")...)
		if code != 0 || stderr != "" {
			t.Errorf("%s --help: exit status %d, %s", c.CommandPath(), code, stderr)
		}
		lines := strings.Split(stdout, "\n")
		if lines[0] != "Examples:" || lines[3] != "" || lines[4] != "Usage:" {
			t.Errorf("%s --help does not start with two examples and the usage:\n%s", c.CommandPath(), stdout)
			return
		}
		for _, line := range lines[1:3] {
			if !strings.HasPrefix(line, "  ") || !strings.Contains(line, c.CommandPath()) {
				t.Errorf("%s --help: %q is no example of it", c.CommandPath(), line)
			}
		}
		// Help must be the same whichever way it is asked for.
		if c.Name() != "help" {
			if _, again, _ := runMain(t, Streams{}, append([]string{"help"}, path...)...); again != stdout {
				t.Errorf("help %s differs from %s --help", strings.Join(path, " "), c.CommandPath())
			}
		}
	})
	if count < 22 {
		t.Errorf("only %d commands were visited", count)
	}
}

func TestTheCommandsAreThoseOfThisVersion(t *testing.T) {
	want := []string{"audit", "backup", "check", "completion", "config", "config history", "config rollback", "config schema", "config show", "deliveries", "delivery",
		"disable", "doctor", "drop", "enable", "event", "fsck", "help", "man", "plan", "receive", "reload", "replay", "restore", "retry", "send", "serve", "sinks", "sinks list", "sinks new", "sinks test", "status", "test", "verify", "version", "webhooks"}
	var got []string
	walk((&app{}).root(), func(c *cobra.Command) {
		if c.HasParent() {
			got = append(got, strings.TrimPrefix(c.CommandPath(), programName+" "))
		}
	})
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("commands %v, want %v", got, want)
	}
}

func TestDescriptionsAreOneLineInLowerCase(t *testing.T) {
	walk((&app{}).root(), func(c *cobra.Command) {
		if c.Short == "" || strings.ContainsRune(c.Short, '\n') || strings.HasSuffix(c.Short, ".") || c.Short != firstLower(c.Short) {
			t.Errorf("%s: description %q", c.CommandPath(), c.Short)
		}
	})
}

func TestExamplesUseFlagsThatExist(t *testing.T) {
	root := (&app{}).root()
	walk(root, func(c *cobra.Command) {
		for line := range strings.SplitSeq(c.Example, "\n") {
			for part := range strings.SplitSeq(line, "|") {
				words := strings.Fields(part)
				i := slices.Index(words, programName)
				if i < 0 {
					continue
				}
				target, rest, err := root.Find(words[i+1:])
				if err != nil {
					t.Errorf("%s: %q: %v", c.CommandPath(), line, err)
					continue
				}
				for _, word := range rest {
					name, isFlag := strings.CutPrefix(word, "--")
					name, _, _ = strings.Cut(name, "=")
					if isFlag && target.Flags().Lookup(name) == nil && target.InheritedFlags().Lookup(name) == nil {
						t.Errorf("%s: %q uses a flag that %q has not", c.CommandPath(), line, target.CommandPath())
					}
				}
			}
		}
	})
}

func TestColourIsForTerminalsOnlyAndNeverWithNoColor(t *testing.T) {
	terminal := Terminal{Width: 80, Colour: true}
	for _, c := range []struct {
		name string
		term Terminal
		env  []string
		want bool
	}{
		{"a terminal", terminal, nil, true},
		{"a file", Terminal{}, nil, false},
		{"NO_COLOR", terminal, []string{"NO_COLOR=1"}, false},
		{"an empty NO_COLOR", terminal, []string{"NO_COLOR="}, true},
		{"a dumb terminal", terminal, []string{"TERM=dumb"}, false},
	} {
		_, _, stderr := runMain(t, Streams{ErrTerm: c.term, Env: environment(c.env...)}, "nonsense")
		if got := strings.Contains(stderr, "\x1b["); got != c.want {
			t.Errorf("%s: colour %v, want %v: %q", c.name, got, c.want, stderr)
		}
	}
}

// lockedBuffer is written by one goroutine while another reads it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
