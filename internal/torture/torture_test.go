package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// tiny is a part of the module in testdata.
func tiny(run string) part { return fixed(".", run) }

// try runs rows of the module in testdata.
func try(t *testing.T, ctx context.Context, o options) (status int, stdout, stderr string) {
	t.Helper()
	t.Setenv("GOFLAGS", "")
	t.Setenv("GOWORK", "off")
	o.root, o.logs = "testdata/tiny", t.TempDir()
	if o.seed == 0 {
		o.seed = 7
	}
	var out, err bytes.Buffer
	status = run(ctx, o, &out, &err)
	t.Logf("%s%s", &out, &err)
	if _, err := os.Stat(filepath.Join(os.TempDir(), "pt"+strconv.Itoa(os.Getpid()))); err == nil {
		t.Error("temporary files are left")
	}
	return status, out.String(), err.String()
}

func TestARunCountsWhatTestsReportAndTellsWhatFailed(t *testing.T) {
	good := []part{tiny("TestSubtestsAreCases")}
	o := options{json: filepath.Join(t.TempDir(), "scores.json"), board: []row{
		{number: 1, fault: "counted", parts: []part{scaled(".", "TestNothingIsLost", "TINY_CASES", 5), tiny("TestSubtestsAreCases"), fuzzed()}, controls: good},
		{number: 2, fault: "lost", parts: []part{tiny("TestSomethingIsLost")}, controls: good},
		{number: 3, fault: "fails", parts: []part{tiny("TestItFails|TestSubtestsAreCases")}, controls: good},
		{number: 4, fault: "panics", parts: []part{tiny("TestItPanics")}, controls: good},
		{number: 5, fault: "skipped", parts: []part{tiny("TestItIsSkipped")}, controls: []part{tiny("TestItIsSkipped")}},
		{number: 6, fault: "in part", parts: []part{tiny("TestItIsSkipped|TestSubtestsAreCases")}},
		{number: 7, fault: "no control", parts: good, controls: []part{tiny("TestTheControlSeesNothing")}},
		{number: 8, fault: "absent", absent: "nobody was there"},
		{number: 9, fault: "no such test", parts: []part{tiny("TestThatNobodyWrote")}, controls: good},
		{number: 10, fault: "nonsense", parts: []part{tiny("TestItReportsNonsense")}, controls: good},
		{number: 11, fault: "long", parts: []part{{soak: time.Minute}}},
	}}
	status, text, _ := try(t, t.Context(), o)
	if status != 1 {
		t.Errorf("status %d", status)
	}
	content, err := os.ReadFile(o.json)
	if err != nil {
		t.Fatal(err)
	}
	var s scores
	if err := json.Unmarshal(content, &s); err != nil {
		t.Fatal(err)
	}
	for i, want := range []struct {
		result, control    string
		cases, acked, lost int64
		why                string
	}{
		{held, caught, -1, 50, 0, ""},
		{failed, caught, 1, 7, 2, "is lost"},
		{failed, caught, 3, 0, 0, "TestItFails/below: seed "},
		{failed, caught, 0, 0, 0, "panic: at the disco"},
		{skipped, skipped, 0, 0, 0, "the moon is not full"},
		{held, none, 3, 0, 0, "the moon is not full"},
		{held, notCaught, 3, 0, 0, "nothing was noticed"},
		{absent, none, 0, 0, 0, "nobody was there"},
		{failed, caught, 0, 0, 0, "no test is named so"},
		{failed, caught, -1, 0, 0, `reports lost="many"`},
		{skipped, none, 0, 0, 0, "--minutes 5"},
	} {
		l := s.Lines[i]
		var why strings.Builder
		why.WriteString(strings.Join(l.Why, " "))
		for _, f := range l.Failures {
			why.WriteString(f.Why + f.Command)
			if _, err := os.Stat(f.Log); err != nil {
				t.Error(err)
			}
		}
		if l.Result != want.result || l.Control != want.control || want.cases >= 0 && l.Cases != want.cases || l.Acked != want.acked || l.Lost != want.lost || !strings.Contains(why.String(), want.why) {
			t.Errorf("row %d: %+v, want %+v", l.Row, l, want)
		}
	}
	if n := s.Lines[0].Cases; n < 9 { // five, three and what was fuzzed
		t.Errorf("%d cases", n)
	}
	seed := strconv.FormatUint(s.Lines[2].Failures[0].Seed, 10)
	for _, want := range []string{
		"again: PEANUTS_TEST_SEED=" + seed + " go test -v -timeout=2h -run='^(TestItFails)$' -count=1 .\n", "TestItFails/below: seed " + seed,
		"1 rows held, 2 held without a control, which does not count, 5 FAILED, 1 with a control that was NOT CAUGHT, 2 skipped, 1 not there yet.",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
}

func fuzzed() part { return part{pkg: ".", run: "FuzzNothing", fuzz: 10 * time.Millisecond} }

func TestWhatHoldsOrCannotRunEndsWithZero(t *testing.T) {
	good := []part{tiny("TestSubtestsAreCases")}
	status, text, _ := try(t, t.Context(), options{markdown: true, board: []row{
		{number: 1, fault: "a", required: "b", parts: good, controls: good}, {number: 2, parts: []part{tiny("TestItIsSkipped")}, controls: good}, {number: 3, absent: "why"}}})
	if status != 0 || !strings.Contains(text, "\n| 1 | a | b | 3 | – | – | held | caught |\n") {
		t.Errorf("status %d", status)
	}
}

// One thing that is wrong is enough.
func TestWhatFailsEndsWithOne(t *testing.T) {
	sound := line{Result: held, Control: caught}
	for _, c := range []struct {
		line   line
		status int
	}{
		{line{Result: failed, Control: caught}, 1}, {line{Result: held, Control: notCaught}, 1}, {line{Result: held, Control: caught, Lost: 1}, 1},
		{line{Result: skipped, Control: skipped}, 0}, {line{Result: absent, Control: none}, 0},
	} {
		s := scores{Lines: []line{sound, c.line, sound}}
		if got := s.status(); got != c.status {
			t.Errorf("%+v: %d", c.line, got)
		}
	}
	if got := (&scores{Interrupted: true, Lines: []line{{Result: failed}}}).status(); got != 130 {
		t.Errorf("interrupted: %d", got)
	}
}

// An interrupt ends the tests and what they have started, and the table says so.
func TestAnInterruptLeavesNoProcess(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pids")
	t.Setenv("TINY_PIDS", pids)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var started []int
	go func() {
		for ctx.Err() == nil {
			if text, err := os.ReadFile(pids); err == nil && bytes.HasSuffix(text, []byte("\n")) {
				for f := range strings.FieldsSeq(string(text)) {
					pid, _ := strconv.Atoi(f)
					started = append(started, pid)
				}
				cancel()
			}
			<-time.After(5 * time.Millisecond)
		}
	}()
	status, text, _ := try(t, ctx, options{board: []row{{number: 1, parts: []part{tiny("TestItHangs")}}}})
	if status != 130 || !strings.Contains(text, "Interrupted. 0 rows held, 1 not finished.") {
		t.Errorf("status %d:\n%s", status, text)
	}
	if len(started) != 2 {
		t.Fatalf("started: %v", started)
	}
	for _, pid := range started {
		deadline := time.Now().Add(30 * time.Second)
		for alive(pid) {
			if time.Now().After(deadline) {
				t.Fatalf("process %d is left", pid)
			}
			<-time.After(5 * time.Millisecond)
		}
	}
}

// alive reports whether a process is there and no zombie.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !bytes.Contains(stat, []byte(") Z ")) && syscall.Kill(pid, 0) == nil
}

func TestAPlantedBugIsCaughtOnlyByATestThatFailsOfIt(t *testing.T) {
	bugs, err := parseBugs(`
# a comment
planted_loss | 1 | keeps one less | . | TestNothingIsLost | TINY_CASES=3 | kept 2 of 3
planted_loss | 1 | keeps one less | . | TestNothingIsLost |  | another reason
planted_loss | 2 | is not tested | . | TestSubtestsAreCases/one |
planted_loss | 2 | has no test | . | TestThatNobodyWrote |
planted_loss | 2 | is skipped | . | TestItIsSkipped |
`)
	if err != nil {
		t.Fatal(err)
	}
	if status, text, _ := try(t, t.Context(), options{planted: true, bugs: bugs[:1]}); status != 0 || !strings.Contains(text, "1 planted bugs, 1 caught, 0 NOT CAUGHT") {
		t.Errorf("status %d", status)
	}
	status, text, _ := try(t, t.Context(), options{planted: true, bugs: bugs[1:]})
	if status != 1 || !strings.Contains(text, "4 planted bugs, 0 caught, 4 NOT CAUGHT") {
		t.Errorf("status %d", status)
	}
	for _, want := range []string{"for another reason: TestNothingIsLost: kept -1 of 0", "the test holds", "no test is named so", "was skipped: the moon"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing", want)
		}
	}
	for _, bad := range []string{"tag | 1 | promise | . | Test", "tag | x | promise | . | Test |", "tag | 1 | promise | . | Test | | ("} {
		if _, err := parseBugs(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestCountsGrowEvenlyAndEndInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		each := map[string]time.Duration{"quick": time.Second, "slow": 10 * time.Second, "fixed": time.Second, "alone": 20 * time.Second, "fails": time.Second}
		var tasks []*task
		for _, p := range []part{repeated("", "quick"), {run: "alone", soak: time.Minute, alone: true}, scaled("", "slow", "N", 3), fixed("", "fixed"), repeated("", "fails")} {
			tasks = append(tasks, &task{part: p})
		}
		var mu sync.Mutex // guards what follows
		running, sizes, seeds := 0, map[string][]int{}, map[uint64]bool{}
		s := scheduler{tasks: tasks, places: 2, deadline: time.Now().Add(5 * time.Minute), show: func([]*task) {}}
		s.run = func(_ context.Context, j job) (tally, string) {
			mu.Lock()
			defer mu.Unlock()
			running++
			if running > 2 || j.part.alone && running > 1 {
				t.Errorf("%d run beside %s", running-1, j.part.run)
			}
			sizes[j.part.run], seeds[j.seed] = append(sizes[j.part.run], j.m), true
			took := each[j.part.run] * time.Duration(j.m)
			mu.Unlock()
			time.Sleep(took)
			mu.Lock()
			running--
			got := tally{passed: 1, took: took}
			if j.part.run == "fails" {
				got = tally{failed: []string{"it"}, took: took}
			}
			return got, ""
		}
		began := time.Now()
		s.schedule(t.Context())
		if took := time.Since(began); took < 4*time.Minute || took > 5*time.Minute {
			t.Errorf("took %v", took)
		}
		if len(sizes["fixed"]) != 1 || len(sizes["fails"]) != 1 || !slices.Equal(sizes["quick"][:4], []int{1, 2, 4, 8}) || len(sizes["slow"]) < 3 || len(sizes["alone"]) < 2 {
			t.Errorf("%v", sizes)
		}
		n := 0
		for _, all := range sizes {
			n += len(all)
		}
		if len(seeds) != n {
			t.Errorf("%d seeds in %d runs", len(seeds), n)
		}
	})
}

func TestTheFirstRoundIsFinishedHoweverLittleTimeThereIs(t *testing.T) {
	tasks := []*task{{part: repeated("", "a")}, {part: part{run: "b", alone: true}}, {part: part{run: "c", waits: true}}}
	s := scheduler{tasks: tasks, places: 1, deadline: time.Now(), show: func([]*task) {}}
	s.run = func(context.Context, job) (tally, string) { return tally{passed: 1, took: time.Second}, "" }
	s.schedule(t.Context())
	for _, one := range tasks {
		if one.runs != 1 {
			t.Errorf("%s ran %d times", one.part.run, one.runs)
		}
	}
}

// The scoreboard names tests that there are, and has every row once, those of
// docs/reliability.md in the same words.
func TestTheScoreboardNamesTestsThatAreThere(t *testing.T) {
	docs, err := os.ReadFile("../../docs/reliability.md")
	if err != nil {
		t.Fatal(err)
	}
	board := scoreboard()
	bugs, err := plantedBugs()
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range board {
		if r.number != i+1 {
			t.Errorf("row %d is the %dth", r.number, i+1)
		}
		if (r.absent == "") == (len(r.parts) == 0) {
			t.Errorf("row %d: %d parts, absent %q", r.number, len(r.parts), r.absent)
		}
		if want := fmt.Sprintf("\n| %d | %s | %s |", r.number, r.fault, r.required); !strings.Contains(string(docs), want) {
			t.Errorf("docs/reliability.md does not have %q; scripts/torture --markdown prints it", want)
		}
		if len(r.fault) > 50 {
			t.Errorf("row %d: %q does not fit its column", r.number, r.fault)
		}
		for _, p := range slices.Concat(r.parts, r.controls) {
			namesTests(t, p)
		}
	}
	if len(board) != 26 {
		t.Errorf("%d rows", len(board))
	}
	for _, b := range bugs {
		namesTests(t, b.part)
	}
}

// namesTests checks that each name of a part is that of a test or fuzz target.
func namesTests(t *testing.T, p part) {
	t.Helper()
	if p.soak > 0 {
		return
	}
	files, err := filepath.Glob(filepath.Join("../..", p.pkg, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	var source []byte
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		source = append(source, text...)
	}
	for name := range strings.SplitSeq(p.run, "|") {
		name, _, _ = strings.Cut(name, "/")
		if !regexp.MustCompile(`(?m)^func ` + strings.Trim(name, "^$()") + `\(`).Match(source) {
			t.Errorf("%s has no test %s", p.pkg, name)
		}
		if (p.fuzz > 0) != strings.HasPrefix(name, "Fuzz") {
			t.Errorf("%s: %s is fuzzed, and is no target, or the other way round", p.pkg, name)
		}
	}
}

func TestFlags(t *testing.T) {
	for args, want := range map[string]string{"--minutes -1": "negative", "--rows 1,x": "no number", "rows": "no flag", "--rows 27": "no row 27"} {
		o, err := parse(strings.Fields(args), io.Discard)
		if err == nil {
			o.board = scoreboard()
			err = o.choose()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", args, err)
		}
	}
	o, err := parse(strings.Fields("--rows 2,7 --seed 9 --minutes 0.5"), io.Discard)
	o.board = scoreboard()
	if err = errors.Join(err, o.choose()); err != nil || len(o.board) != 2 || o.seed != 9 || o.minutes != 0.5 {
		t.Errorf("%+v, %v", o, err)
	}
	var text bytes.Buffer
	if _, err := parse([]string{"--help"}, &text); !errors.Is(err, flag.ErrHelp) || !strings.Contains(text.String(), "--planted") {
		t.Errorf("%v\n%s", err, &text)
	}
	var listed bytes.Buffer
	if status := run(t.Context(), options{list: true, board: scoreboard()}, &listed, io.Discard); status != 0 || !strings.Contains(listed.String(), "TestARestartUnderLoadRefusesAndLosesNothing") {
		t.Errorf("%d\n%s", status, &listed)
	}
}

func TestACommandCanBeTypedAsItIs(t *testing.T) {
	for _, c := range []struct {
		j      job
		failed []string
		want   string
	}{
		{job{part: scaled("./daemon", "TestA|TestB", "N", 6), m: 4, seed: 3}, []string{"TestB/x (y)"}, "PEANUTS_TEST_SEED=3 N=24 go test -v -timeout=2h -run='^(TestB)$' -count=1 ./daemon"},
		{job{part: scaled("./q", "TestA", "N", 0), m: 3, seed: 3}, nil, "PEANUTS_TEST_SEED=3 N=2 go test -v -timeout=2h -run='^(TestA)$' -count=1 ./q"},
		{job{part: model("./q", "TestA", 100), m: 2, seed: 3}, nil, "PEANUTS_TEST_SEED=3 go test -v -timeout=2h -run='^(TestA)$' -count=1 -rapid.checks=200 -rapid.seed=3 -rapid.nofailfile ./q"},
		{job{part: fuzz("./e", "FuzzA"), m: 1, seed: 3}, []string{"FuzzA"}, "PEANUTS_TEST_SEED=3 go test -v -timeout=2h -run='^FuzzA$' ./e"},
		{job{part: fixed("./q", "TestA/ext4"), m: 1, seed: 3}, nil, "PEANUTS_TEST_SEED=3 go test -v -timeout=2h -run='^(TestA)$/^(ext4)$' -count=1 ./q"},
		{job{part: part{soak: time.Minute}, m: 2}, nil, "scripts/bench --soak 2m0s"},
	} {
		if got := c.j.command(c.failed); got != c.want {
			t.Errorf("\n got %s\nwant %s", got, c.want)
		}
	}
}

// A terminal gets the table painted over itself, and nothing wraps.
func TestATerminalShowsTheWholeTable(t *testing.T) {
	var b bytes.Buffer
	board := scoreboard()
	v := newLive(&b, board)
	v.width = 80
	tasks := tasksOf(board, 10)
	tasks[0].busy = true
	v.show(tasks)
	v.show(tasks)
	v.end()
	text := b.String()
	if n := strings.Count(text, "\x1b[28A"); n != 2 || !strings.Contains(text, "> 1 kill -9") {
		t.Errorf("%d times back\n%s", n, text)
	}
	for line := range strings.SplitSeq(text, "\n") {
		if n := len([]rune(strings.NewReplacer("\x1b[K", "", "\x1b[28A", "").Replace(line))); n >= 80 && !strings.Contains(line, "\x1b[J") {
			t.Errorf("%d columns: %s", n, line)
		}
	}
}
