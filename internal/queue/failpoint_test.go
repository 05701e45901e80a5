package queue

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/failpoint/pointlist"
	"github.com/peanutsapp/peanuts-relay/internal/testhost"
)

// failpointRounds is how often the process dies at each point in each way. 0 is once at
// each point, in one way.
func failpointRounds() int {
	n, _ := strconv.Atoi(os.Getenv("FAILPOINT_ROUNDS")) // the short form when it is not a number
	return n
}

// failing is this package's test binary built with its points. It is built without the
// race detector, which other tests of crashes have.
func failing(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "queue.test")
	build := exec.CommandContext(t.Context(), testhost.Program(t, "go"), "test", "-c", "-race=false", "-tags", "failpoints", "-o", binary, ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return binary
}

// tourist is a store that processes go on a tour of, see tour, and what was
// acknowledged by them.
type tourist struct {
	t      *testing.T
	binary string
	dir    string
	acked  map[uint64]string
}

// live runs one life, which dies at a point in some way, or comes to its end when spec is
// empty. It returns what the process wrote on standard error.
func (tr *tourist) live(spec string, env ...string) (said string, err error) {
	tr.t.Helper()
	cmd := exec.CommandContext(tr.t.Context(), tr.binary)
	cmd.Env = append(append(os.Environ(), crashDirEnv+"="+tr.dir, crashModeEnv+"="+crashTour, "FAILPOINT="+spec), env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		tr.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		tr.t.Fatal(err)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		line, whole := strings.CutSuffix(lines.Text(), ".")
		number, entry, _ := strings.Cut(line, " ")
		seq, err := strconv.ParseUint(number, 10, 64)
		if !whole || err != nil {
			continue // the kill cut it
		}
		if other, dup := tr.acked[seq]; dup {
			tr.t.Errorf("sequence number %d was given to %q and %q", seq, other, entry)
		}
		tr.acked[seq] = entry
	}
	err = cmd.Wait()
	return stderr.String(), err
}

// dies is live for a point that must be reached, and at which the process must end.
func (tr *tourist) dies(spec string, env ...string) {
	tr.t.Helper()
	said, err := tr.live(spec, env...)
	name, what, _ := strings.Cut(spec, "=")
	what, _, _ = strings.Cut(what, "@")
	if !strings.Contains(said, "failpoint "+name+": "+what) {
		tr.t.Fatalf("%s was never reached; the process ended with %v and said:\n%s", spec, err, said)
	}
	end, _ := errors.AsType[*exec.ExitError](err)
	killed := end != nil && end.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
	if failed := what == "error" || what == "late"; end == nil || killed == failed {
		tr.t.Errorf("after %s the process ended with %v; it must stop at the first error:\n%s", spec, err, said)
	}
}

// account compares the store with what was acknowledged, and with itself.
func (tr *tourist) account() {
	tr.t.Helper()
	for _, problem := range tourAccount(tr.t, tr.dir, tr.acked) {
		tr.t.Error(problem)
	}
}

// tourAccount is crashAccount for what a tour leaves: payloads are there as long as
// their delivery is pending or failed.
func tourAccount(t *testing.T, dir string, acked map[uint64]string) []string {
	t.Helper()
	return account(t, dir, func(h *harness, add complain) {
		listed := 0
		for _, lane := range h.lane(tourWebhooks()...) {
			listed += h.matches(lane, acked, everything, add)
			for seq, state := range h.states(lane) {
				if entry, ok := acked[seq]; ok && state.String() != "success" {
					h.hasPayload(seq, entry, add)
				}
			}
		}
		if st := h.Stats(); int64(listed) != st.Deliveries {
			add("%d deliveries are listed, the ledger has %d", listed, st.Deliveries)
		}
	})
}

// life prepares a store, and brings a process to a point in it.
type life func(tr *tourist, spec string)

// lifeOf says which life comes to a point.
func lifeOf(p pointlist.Point) life {
	switch {
	case strings.HasPrefix(p.Name, "recover."): // something is in the journal only
		return func(tr *tourist, spec string) {
			tr.dies("journal.append.sync=kill-after@" + strconv.Itoa(1+rand.IntN(12)))
			tr.dies(spec)
		}
	case strings.HasPrefix(p.Name, "raise."):
		return func(tr *tourist, spec string) {
			if _, err := tr.live(""); err != nil {
				tr.t.Fatal(err)
			}
			(&harness{t: tr.t, opts: Options{Dir: tr.dir}}).asFormer(true, true)
			if rand.IntN(2) == 0 {
				if err := os.Remove(filepath.Join(tr.dir, journalFile)); err != nil {
					tr.t.Fatal(err)
				}
			}
			tr.dies(spec)
		}
	case p.Name == "open.doubt":
		return func(tr *tourist, spec string) {
			if _, err := tr.live(""); err != nil {
				tr.t.Fatal(err)
			}
			tr.dies(spec, tourAheadEnv+"=1000h")
		}
	}
	return func(tr *tourist, spec string) { tr.dies(spec) }
}

// A process dies at each named point, before or after the call that is there, or the
// call fails, or is reported to have failed, and the process must stop. The next one, which now and then
// dies while it catches up, has whatever was acknowledged, once, and loses nothing of it.
func TestNothingAcknowledgedIsLostAtAnyFailpoint(t *testing.T) {
	points, err := pointlist.In(".")
	if err != nil {
		t.Fatal(err)
	}
	binary := failing(t)
	rounds := failpointRounds()
	type run struct {
		point pointlist.Point
		spec  string
	}
	var runs []run
	for i, p := range points {
		whats := p.Whats()
		if rounds == 0 { // each way comes up at a quarter of the points
			runs = append(runs, run{p, fmt.Sprintf("%s=%s@%d", p.Name, whats[i%len(whats)], (tourTimes(p.Name)+1)/2)})
		}
		for n := range rounds {
			for _, what := range whats {
				runs = append(runs, run{p, fmt.Sprintf("%s=%s@%d", p.Name, what, 1+n%tourTimes(p.Name))})
			}
		}
	}
	acked := make([]int, len(runs))
	t.Run("points", func(t *testing.T) {
		for i, r := range runs {
			t.Run(r.spec, func(t *testing.T) {
				t.Parallel()
				tr := &tourist{t, binary, filepath.Join(t.TempDir(), "q"), map[uint64]string{}}
				lifeOf(r.point)(tr, r.spec)
				if rand.IntN(4) == 0 { // it may have nothing to catch up with
					_, _ = tr.live("recover.read=kill")
				}
				tr.account()
				acked[i] = len(tr.acked)
			})
		}
	})
	sum := 0
	for _, n := range acked {
		sum += n
	}
	t.Attr("cases", strconv.Itoa(len(runs)))
	t.Attr("acked", strconv.Itoa(sum))
	t.Attr("lost", "0") // else a run has failed
	t.Logf("%d points, %d runs, %d acknowledged events", len(points), len(runs), sum)
	if len(points) < 40 {
		t.Errorf("only %d points", len(points))
	}
}

// The controls: a life that is never cut does all that it is meant to, and the account
// notices what is missing from it, or was never said.
func TestTheAccountOfATourReportsWhatIsWrong(t *testing.T) {
	tr := &tourist{t, os.Args[0], filepath.Join(t.TempDir(), "q"), map[uint64]string{}}
	if said, err := tr.live(""); err != nil || len(tr.acked) < 100 {
		t.Fatalf("%d acknowledged, %v\n%s", len(tr.acked), err, said)
	}
	tr.account()
	highest := slices.Max(slices.Collect(func(yield func(uint64) bool) {
		for seq := range tr.acked {
			if !yield(seq) {
				return
			}
		}
	}))
	tr.acked[highest+1] = "0-0-9"
	if wrong := strings.Join(tourAccount(t, tr.dir, tr.acked), "\n"); !strings.Contains(wrong, "has no delivery") {
		t.Errorf("an event that is not there was not missed: %q", wrong)
	}
	delete(tr.acked, highest+1)
	tr.acked[highest] += "x"
	if wrong := strings.Join(tourAccount(t, tr.dir, tr.acked), "\n"); !strings.Contains(wrong, "became") {
		t.Errorf("another entry was not noticed: %q", wrong)
	}
}
