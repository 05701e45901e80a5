package main

import (
	"fmt"
	"hash/fnv"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// row is one fault or bad input of the scoreboard.
type row struct {
	number   int
	fault    string // in few words: a terminal has one line for it
	required string
	parts    []part
	controls []part // tests that pass when the fault is noticed although nothing guards against it
	needs    string // beside Go and git; "" = nothing
	absent   string // why the row has no parts
}

// part is one call of a test binary: tests of one package that are run, counted and
// made to grow together.
type part struct {
	pkg string // as go test has it, such as ./daemon
	run string // names of tests, separated by |, one with /a subtest of it, or one fuzz target; no anchors

	// How it grows: at m times its short form the counts are m times these. None of them =
	// it is the same each time, and runs once.
	counts []count
	rapid  int           // -rapid.checks
	fuzz   time.Duration // -test.fuzztime
	again  int           // -test.count
	soak   time.Duration // not a test: scripts/bench --soak, for so long

	most  int    // m is never above it; 0 = no bound
	alone bool   // nothing may run beside it
	waits bool   // it hardly needs a processor: it runs beside what does
	env   string // NAME=VALUE, separated by spaces, at every size
}

// count is an environment variable that says how often a test repeats its scenario.
type count struct {
	env   string
	short int // what each push runs; 0 = less than one of these, so that at m times it is m-1
}

func (p *part) grows() bool {
	return len(p.counts) > 0 || p.rapid > 0 || p.fuzz > 0 || p.again > 0 || p.soak > 0
}

// key names the part in logs and tells it from all others.
func (p *part) key() string {
	if p.soak > 0 {
		return "soak"
	}
	names := strings.Split(p.run, "|")
	first := strings.TrimPrefix(names[0], "Test")
	return strings.ReplaceAll(strings.Trim(p.pkg, "./")+"-"+first, "/", "-")
}

// job is one run of a part.
type job struct {
	part part
	m    int // times the short form
	seed uint64
}

// seedOf is the seed of the n-th run of a part. It depends on nothing that happened in
// between, so that --seed gives a row the same seeds whatever else runs.
func seedOf(master uint64, p part, n int) uint64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%d %s %s %d", master, p.pkg, p.run, n)
	return h.Sum64() >> 1
}

// environment is what the job adds to that of the program.
func (j *job) environment() []string {
	env := []string{"PEANUTS_TEST_SEED=" + strconv.FormatUint(j.seed, 10)}
	for _, c := range j.part.counts {
		n := c.short * j.m
		if c.short == 0 {
			n = j.m - 1
		}
		env = append(env, c.env+"="+strconv.Itoa(n))
	}
	return append(env, strings.Fields(j.part.env)...)
}

// flags are those of go test that choose what runs, with prefix in front of those of the
// testing package: "test." for a test binary, "" for go test.
func (j *job) flags(prefix string) []string {
	p := j.part
	pattern := "^(" + strings.ReplaceAll(p.run, "/", ")$/^(") + ")$"
	if p.fuzz > 0 {
		return []string{"-" + prefix + "run=^$", "-" + prefix + "fuzz=" + pattern, "-" + prefix + "fuzztime=" + (p.fuzz * time.Duration(j.m)).String(), "-" + prefix + "parallel=1"}
	}
	flags := []string{"-" + prefix + "run=" + pattern, "-" + prefix + "count=" + strconv.Itoa(max(1, p.again*j.m))}
	if p.rapid > 0 {
		flags = append(flags, "-rapid.checks="+strconv.Itoa(p.rapid*j.m), "-rapid.seed="+strconv.FormatUint(j.seed, 10), "-rapid.nofailfile")
	}
	return flags
}

// command is what a person types to repeat the job in the root of the repository,
// narrowed to the tests that failed.
func (j *job) command(failed []string) string {
	p := j.part
	if p.soak > 0 {
		return "scripts/bench --soak " + (p.soak * time.Duration(j.m)).String()
	}
	words := j.environment()
	words = append(words, "go", "test", "-v", "-timeout=2h")
	if p.fuzz > 0 { // the failing input is in the corpus now
		return strings.Join(append(words, "-run='^"+p.run+"$'", p.pkg), " ")
	}
	narrow := *j
	if tops := tops(failed); len(tops) > 0 {
		narrow.part.run = strings.Join(tops, "|")
	}
	for _, f := range narrow.flags("") {
		name, value, _ := strings.Cut(f, "=")
		if strings.ContainsAny(value, "^$|()") {
			f = name + "='" + value + "'"
		}
		words = append(words, f)
	}
	return strings.Join(append(words, p.pkg), " ")
}

// tops are the tests that the given ones and their subtests belong to.
func tops(names []string) (out []string) {
	for _, name := range names {
		top, _, _ := strings.Cut(name, "/")
		if top = regexp.QuoteMeta(top); !slices.Contains(out, top) {
			out = append(out, top)
		}
	}
	return out
}
