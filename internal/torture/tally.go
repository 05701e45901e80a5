package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// tally is what one run of tests showed.
type tally struct {
	cases, acked, lost int64
	ran                bool // a test began
	passed             int  // tests, subtests not counted
	failed             []string
	skipped            []string // reasons
	why                string   // of the failure, in one line
	took               time.Duration
}

// event is a line of test2json: go doc cmd/test2json.
type event struct {
	Action, Test, Key, Value, Output string
}

// reader follows the events of one test binary.
type reader struct {
	tally
	tests map[string]*test
	order []string
}

// test is one test or subtest.
type test struct {
	action  string // the last of run, pass, fail, skip
	parent  bool   // it has subtests
	cases   int64  // by attributes of its own or by what rapid and the fuzzer say
	counted bool
	last    string   // line that it printed
	lines   []string // that may say why it failed
}

var (
	rapidSays = regexp.MustCompile(`\[rapid\] OK, passed (\d+) tests`)
	fuzzSays  = regexp.MustCompile(`fuzz: elapsed: .*execs: (\d+) `)
	logPlace  = regexp.MustCompile(`^\s*\S+\.go:\d+: `)
)

// readEvents reads what test2json says until it ends, and copies the output to log.
func readEvents(in io.Reader, log io.Writer) (tally, error) {
	r := reader{tests: map[string]*test{}}
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if err := json.Unmarshal(line, &e); err != nil {
				return r.tally, fmt.Errorf("test2json said %.100q: %w", line, err)
			}
			if _, err := io.WriteString(log, e.Output); err != nil {
				return r.tally, err
			}
			r.take(e)
		}
		if errors.Is(err, io.EOF) {
			return r.sum(), nil
		}
		if err != nil {
			return r.tally, err
		}
	}
}

func (r *reader) take(e event) {
	if e.Test == "" {
		return
	}
	t := r.tests[e.Test]
	if t == nil {
		t = &test{}
		r.tests[e.Test] = t
		r.order = append(r.order, e.Test)
		if i := strings.LastIndexByte(e.Test, '/'); i > 0 {
			if p := r.tests[e.Test[:i]]; p != nil {
				p.parent = true
			}
		}
	}
	switch e.Action {
	case "run", "pass", "fail", "skip":
		t.action = e.Action
	case "attr":
		r.attribute(t, e)
	case "output":
		t.output(e.Output)
	}
}

// attribute adds up what a test reports of itself by t.Attr. What is no number is a
// mistake of the test.
func (r *reader) attribute(t *test, e event) {
	if e.Key != "cases" && e.Key != "acked" && e.Key != "lost" {
		return
	}
	n, err := strconv.ParseInt(e.Value, 10, 64)
	if err != nil || n < 0 {
		r.fails(e.Test, fmt.Sprintf("reports %s=%q", e.Key, e.Value))
		return
	}
	switch e.Key {
	case "cases":
		t.cases, t.counted = t.cases+n, true
	case "acked":
		r.acked += n
	case "lost":
		r.lost += n
	}
}

func (t *test) output(text string) {
	if m := rapidSays.FindStringSubmatch(text); m != nil {
		n, err := strconv.ParseInt(m[1], 10, 64)
		t.cases, t.counted = t.cases+n, err == nil
	}
	if m := fuzzSays.FindStringSubmatch(text); m != nil { // the whole number each time
		n, err := strconv.ParseInt(m[1], 10, 64)
		t.cases, t.counted = max(t.cases, n), err == nil
	}
	text = strings.TrimSpace(text)
	if text == "" || strings.HasPrefix(text, "=== ") || strings.HasPrefix(text, "--- ") {
		return
	}
	t.last = text
	if len(t.lines) < 200 {
		t.lines = append(t.lines, text)
	}
}

func (r *reader) fails(name, why string) {
	if !slices.Contains(r.failed, name) {
		r.failed = append(r.failed, name)
	}
	if r.why == "" {
		r.why = name + ": " + why
	}
}

// sum ends the reading: a test that began and did not end has failed.
func (r *reader) sum() tally {
	cases, counted := map[string]int64{}, map[string]bool{} // by test, its subtests included
	for _, name := range r.order {
		t := r.tests[name]
		top, _, _ := strings.Cut(name, "/")
		switch {
		case t.counted && !counted[top]:
			cases[top], counted[top] = t.cases, true
		case t.counted:
			cases[top] += t.cases
		case t.action == "pass" && !t.parent && !counted[top]:
			cases[top]++
		}
		if t.action == "skip" {
			r.skips(logPlace.ReplaceAllString(t.last, ""))
		}
		if t.action == "pass" && top == name {
			r.passed++
		}
	}
	for _, n := range cases {
		r.cases += n
	}
	r.ran = len(r.order) > 0
	for _, name := range slices.Backward(r.order) { // subtests first: their parents only repeat it
		if t := r.tests[name]; t.action != "pass" && t.action != "skip" && !r.below(name) {
			r.fails(name, t.reason())
		}
	}
	return r.tally
}

// below reports whether a subtest of name has failed.
func (r *reader) below(name string) bool {
	return slices.ContainsFunc(r.failed, func(f string) bool { return strings.HasPrefix(f, name+"/") })
}

func (r *reader) skips(reason string) {
	if reason != "" && !slices.Contains(r.skipped, reason) {
		r.skipped = append(r.skipped, reason)
	}
}

// reason is the first line that names a place in the source, and looks like an error
// rather than like a note of the seed.
func (t *test) reason() string {
	if i := slices.IndexFunc(t.lines, func(line string) bool { return strings.HasPrefix(line, "panic: ") }); i >= 0 {
		return t.lines[i]
	}
	if t.action == "run" {
		return "did not end"
	}
	for _, line := range t.lines {
		if logPlace.MatchString(line) && !strings.Contains(line, "repeat with PEANUTS_TEST_SEED=") {
			return logPlace.ReplaceAllString(line, "")
		}
	}
	return t.last
}
