package cli

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/peanutsapp/peanuts-relay/internal/config"
)

func TestWhatIsSaidOutsideTheLogHasAPriorityToo(t *testing.T) {
	var out bytes.Buffer
	m := &markedLines{w: &out}
	for _, part := range []string{"peanuts-relay: terminated: stopping\n",
		"error: unknown key \"secrt\"\n --> config.yaml:14:7\n   |\n14 |       sec", "rt: ********\n   |       ^^^^^ did you mean \"secret\"?\n\n",
		"warning: plain\n  hint\n", "done\n  more\n", "error: no end"} {
		if n, err := m.Write([]byte(part)); err != nil || n != len(part) {
			t.Errorf("%d, %v", n, err)
		}
	}
	want := "<5>peanuts-relay: terminated: stopping\n" +
		"<3>error: unknown key \"secrt\"\n<3> --> config.yaml:14:7\n<3>   |\n<3>14 |       secrt: ********\n<3>   |       ^^^^^ did you mean \"secret\"?\n" +
		"<4>warning: plain\n<4>  hint\n<5>done\n<5>  more\n"
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", &out, want)
	}
}

// The daemon refuses a file, under the journal and elsewhere. What it says is the same
// but for the priorities.
func TestADaemonThatCannotStartTellsTheJournalHowBadItIs(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(path, []byte("secrt: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	never := func(context.Context, *config.Config, ServeOptions) error {
		t.Error("the daemon runs")
		return nil
	}
	said := func(name string, journal bool) []string {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil {
			t.Fatal(err)
		}
		env := []string{"STATE_DIRECTORY=" + dir, "RUNTIME_DIRECTORY=" + dir}
		if journal {
			env = append(env, fmt.Sprintf("JOURNAL_STREAM=%d:%d", st.Dev, st.Ino))
		}
		if code := Main(t.Context(), []string{"serve", "--strict", "--config", path}, Streams{Err: f, Env: environment(env...)}, Deps{Serve: never}); code != ExitConfig {
			t.Errorf("exit status %d", code)
		}
		text, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		return slices.DeleteFunc(strings.Split(string(text), "\n"), func(line string) bool { return line == "" })
	}
	plain, marked := said("plain", false), said("journal", true)
	if len(plain) < 4 || len(marked) != len(plain) {
		t.Fatalf("%q\n%q", plain, marked)
	}
	for i, line := range plain {
		if marked[i] != "<3>"+line && marked[i] != "<4>"+line {
			t.Errorf("the journal got %q for %q", marked[i], line)
		}
	}
	if last := marked[len(marked)-1]; !strings.HasPrefix(last, "<3>error: ") || !strings.Contains(last, "is not valid") {
		t.Errorf("the last line is %q", last)
	}
}
