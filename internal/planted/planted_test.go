package planted_test

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/testhost"
)

// bug says which test has to notice what is planted by a build tag, and what it has to
// say.
type bug struct {
	tag  string
	pkg  string // below the root of the module
	run  string // the test
	says string // a regular expression for a line of its failure
	env  []string
}

func bugs() []bug {
	return []bug{
		{tag: "planted_ack_before_fsync", pkg: "internal/queue", run: "TestNothingAcknowledgedIsLostByAPowerCut/ext4$",
			says: `was given to|has no delivery`},
		{tag: "planted_completion_before_send", pkg: "daemon", run: "TestNothingAcknowledgedIsLostByKill$",
			says: `success that nobody received`, env: []string{"DAEMON_CRASH_KILLS=2"}},
		{tag: "planted_dropped_on_reload", pkg: "internal/dispatch", run: "TestApplyUnderLoadClosesOldSinksAfterTheirLastAttempt",
			says: `has [1-9]\d* pending`},
		{tag: "planted_goes_on_after_an_error", pkg: "daemon", run: "TestAnIOErrorEndsTheDaemonAndLosesNothing/syncing_the_database_once$",
			says: `is lost|stored payload is damaged`},
		{tag: "planted_no_catch_up", pkg: "internal/queue", run: "TestWhatOnlyTheJournalHasIsThereAfterACrash",
			says: `the database is of an earlier moment than what was acknowledged`},
		{tag: "planted_overtaking", pkg: "internal/dispatch", run: "TestOnBadgerEntriesStayInOrderThroughFailuresAndRestarts",
			says: `entry \d+ came as`},
		{tag: "planted_refill_skips_one", pkg: "internal/dispatch", run: "TestABurstSpillsAndIsReadBackInOrder",
			says: `arrived 0 times`},
		{tag: "planted_retry_of_4xx", pkg: "internal/retry", run: "TestResponseTable", says: `want failed "4xx_final"`},
		{tag: "planted_same_id_twice", pkg: "internal/queue", run: "TestTwoAtOnceWithTheSameKeyAreOne", says: `accepted: got 32, want 1`},
		{tag: "planted_signature_of_other_bytes", pkg: "internal/signing", run: "TestStandardWebhooksVectors", says: `signed ".*"`},
	}
}

// Each bug is caught by the test that keeps its promise, built with the bug's tag, and the test
// says what is wrong. PLANTED is "all" or some tags; without it one bug has its turn,
// and another one when the source has changed.
func TestEveryPlantedBugIsCaught(t *testing.T) {
	all := bugs()
	var chosen []bug
	switch which := os.Getenv("PLANTED"); which {
	case "":
		chosen = all[turn(t)%uint64(len(all)):][:1]
	case "all":
		chosen = all
	default:
		for tag := range strings.SplitSeq(which, ",") {
			i := slices.IndexFunc(all, func(b bug) bool { return b.tag == tag })
			if i < 0 {
				t.Fatalf("PLANTED: there is no %q", tag)
			}
			chosen = append(chosen, all[i])
		}
	}
	caught := 0
	for _, b := range chosen {
		t.Run(b.tag, func(t *testing.T) {
			b.isCaught(t)
			caught++
		})
	}
	t.Attr("cases", strconv.Itoa(caught))
}

// turn is a number that changes with the source. That the files are read here also keeps
// go test from taking a former result for this one.
func turn(t *testing.T) uint64 {
	t.Helper()
	h := sha256.New()
	for _, root := range []string{"../../internal", "../../daemon"} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") {
				return err
			}
			text, err := os.ReadFile(path)
			h.Write(text)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return binary.BigEndian.Uint64(h.Sum(nil))
}

func (b bug) isCaught(t *testing.T) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), testhost.Program(t, "go"), "test", "-count=1", "-v", "-timeout=4m", "-tags="+b.tag, "-run=^"+b.run, "./"+b.pkg)
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), b.env...)
	raw, err := cmd.CombinedOutput()
	if strings.Contains(string(raw), "--- SKIP: ") {
		t.Skipf("the test that catches it was skipped:\n%s", raw)
	}
	who, words := b.verdict(string(raw), err == nil)
	if who == "" {
		t.Fatalf("it was not caught: no failure says %q\n%s", b.says, last(string(raw)))
	}
	t.Logf("caught by %s %s: %.160s", b.pkg, who, words)
}

// verdict finds the test that failed and the line in which it says what is wrong; both
// are empty when the bug was not noticed, or something else failed.
func (b bug) verdict(out string, passed bool) (who, words string) {
	failed := regexp.MustCompile(`(?m)^\s*--- FAIL: (\S+)`).FindStringSubmatch(out)
	line := regexp.MustCompile(`(?m)^\s*(\S+_test\.go:\d+: .*(?:` + b.says + `).*)$`).FindStringSubmatch(out)
	if passed || failed == nil || line == nil {
		return "", ""
	}
	return failed[1], line[1]
}

// The control: what does not fail, or fails with something else, is not a bug that was
// caught.
func TestOnlyAFailureThatSaysSoCounts(t *testing.T) {
	const says = "--- FAIL: TestIt (0.00s)\n    it_test.go:1: event 7 is lost\n"
	for _, c := range []struct {
		out    string
		passed bool
		caught bool
	}{
		{says + "FAIL", false, true},
		{says, true, false},
		{"ok  \tit\t0.1s", true, false},
		{"--- FAIL: TestIt (0.00s)\n    it_test.go:1: cannot listen\n", false, false},
		{"it.go:1: event 7 is lost: undefined\nFAIL it [build failed]", false, false},
	} {
		if who, _ := (bug{says: "is lost"}).verdict(c.out, c.passed); (who != "") != c.caught {
			t.Errorf("%q, passed %t: caught by %q", c.out, c.passed, who)
		}
	}
}

// last is the end of what a test printed.
func last(out string) string {
	const most = 4000
	return out[max(len(out)-most, 0):]
}

// A bug whose tag has no test would be no proof of anything.
func TestEveryTagHasATest(t *testing.T) {
	files, err := filepath.Glob("*_on.go")
	if err != nil || len(files) < 9 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		line, _, _ := strings.Cut(string(text), "\n")
		tag := strings.TrimPrefix(line, "//go:build ")
		if !slices.ContainsFunc(bugs(), func(b bug) bool { return b.tag == tag }) {
			t.Errorf("%s: nothing has to catch %s", file, tag)
		}
		if want := strings.TrimPrefix(tag, "planted_") + "_on.go"; file != want {
			t.Errorf("%s is called %s", tag, file)
		}
	}
	if len(files) != len(bugs()) || !slices.IsSortedFunc(bugs(), func(a, b bug) int { return cmp.Compare(a.tag, b.tag) }) {
		t.Errorf("%d tags, %d bugs, in order of their tags", len(files), len(bugs()))
	}
}
