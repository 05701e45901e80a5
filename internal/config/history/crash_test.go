package history

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/testhost"
)

const (
	crashDirEnv   = "HISTORY_CRASH_DIR"
	crashKillsEnv = "HISTORY_CRASH_KILLS"
)

// crashChild appends as fast as it can until it is killed, and prints each
// generation that Append said is durable. At times what it applies takes long to
// write.
func crashChild(dir string) {
	die := func(err error) {
		fmt.Fprintln(os.Stderr, "child:", err)
		os.Exit(1)
	}
	l, err := Open(dir, mainFile)
	if err != nil {
		die(err)
	}
	if err := check(l); err != nil {
		die(err)
	}
	fmt.Println("READY", l.Generation())
	for g := l.Generation() + 1; ; g++ {
		if g%3 == 0 {
			if err := l.Append(rejectedOf(g-1), nil); err != nil {
				die(err)
			}
		}
		if err := l.Append(entryOf(g), sourcesOf(g)); err != nil {
			die(err)
		}
		fmt.Println("DONE", g)
	}
}

// endOnce lets a child work for a while, from its start or from its first
// acknowledgement, ends it, and returns the highest generation that it
// acknowledged.
func endOnce(t *testing.T, dir string, fromFirst bool, after time.Duration, end func(*os.Process)) (acked uint64) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crashDirEnv+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() || !strings.HasPrefix(lines.Text(), "READY ") {
		cmd.Process.Kill()
		cmd.Wait()
		t.Fatalf("the child did not start: %q", lines.Text())
	}
	first, ended := make(chan struct{}), make(chan struct{})
	if !fromFirst {
		close(first)
	}
	go func() {
		defer close(ended)
		select {
		case <-first:
		case <-time.After(30 * time.Second):
		}
		<-time.After(after)
		end(cmd.Process)
	}()
	for lines.Scan() {
		if number, ok := strings.CutPrefix(lines.Text(), "DONE "); ok {
			if g, err := strconv.ParseUint(number, 10, 64); err == nil {
				if fromFirst && acked == 0 {
					close(first)
				}
				acked = g
			}
		}
	}
	<-ended
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != -1 {
		t.Fatalf("the child ended by itself: %v", cmd.ProcessState)
	}
	return acked
}

// A process is killed at random in the middle of Append, again and again. What
// it acknowledged is there, the last one may be, and everything is whole. Half
// of the times the next process is the one that finds what was left.
func TestNothingAppendedIsLostByKill(t *testing.T) {
	chance := testhost.Chance(t)
	kills := 25
	if testing.Short() {
		kills = 5
	}
	if n, err := strconv.Atoi(os.Getenv(crashKillsEnv)); err == nil {
		kills = n
	}
	dir := t.TempDir()
	began := time.Now()
	l := openLog(t, dir)
	const before = 5
	fill(t, l, 1, before)
	// Several times what one Append takes here.
	window := max(40*time.Millisecond, 2*time.Since(began))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	highest, found := uint64(before), uint64(before)
	unacknowledged, remains := 0, 0
	for i := range kills {
		highest = max(highest, found, endOnce(t, dir, false, time.Duration(chance.Int64N(int64(window))), func(p *os.Process) { p.Kill() }))
		if i%2 == 0 && i < kills-1 {
			continue
		}
		for _, name := range namesIn(t, historyDirOf(dir)) {
			if strings.HasPrefix(name, newPrefix) {
				remains++
			}
		}
		l := openLog(t, dir)
		if err := check(l); err != nil {
			t.Fatalf("after %d kills: %v", i+1, err)
		}
		found = l.Generation()
		if found < highest {
			t.Fatalf("after %d kills: generation %d was acknowledged, %d is the last", i+1, highest, found)
		}
		if found > highest {
			unacknowledged++
		}
		for j, g := range generations(l) {
			if g != found-uint64(j) {
				t.Fatalf("after %d kills: generation %d where %d should be", i+1, g, found-uint64(j))
			}
		}
		noRemains(t, l, dir)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d kills, %d generations; %d times one that was not acknowledged, %d files half written", kills, found, unacknowledged, remains)
	testhost.Cases(t, kills)
	testhost.Account(t, int(found), 0) // a loss ends the test above
	if found == before {
		t.Error("no child ever appended anything")
	}
}
