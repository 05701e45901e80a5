package main

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// sizes is how much each part of a run does: events or deliveries of one leg, and legs of
// each side that count.
type sizes struct {
	rounds                    int // legs where a leg is short
	legs                      int // legs where a leg is long
	pairs                     int // legs beside a neighbour
	tallPairs, tall           int // beside a backlog
	bare, floor, flood, steep int // steep: of the webhook beside a bad neighbour
	rate, burst               int
	accepted, streamed        int // NDJSON, without and with deliveries
	fanout, fair, fairHooks   int
	backlog, lanes            int  // deliveries that wait, for how many webhooks
	drain                     bool // deliver the backlog at the end
	kills                     int
	overhead, overheadRounds  int
	idle                      time.Duration
}

func fullSizes() sizes {
	return sizes{rounds: 5, legs: 3, pairs: 7, tallPairs: 15, tall: 10000, bare: 20000, floor: 20000, flood: 30000, steep: 8000, rate: 4000, burst: 1000,
		accepted: 200000, streamed: 60000, fanout: 20000, fair: 50000, fairHooks: 1000, backlog: 1000000, kills: 5,
		overhead: 40000, overheadRounds: 5, idle: 20 * time.Second}
}

// quickSizes shows that everything runs.
func quickSizes() sizes {
	return sizes{rounds: 2, legs: 1, pairs: 2, tallPairs: 3, tall: 1000, bare: 2000, floor: 2000, flood: 3000, steep: 1500, rate: 500, burst: 200,
		accepted: 20000, streamed: 6000, fanout: 2000, fair: 5000, fairHooks: 100, backlog: 50000, kills: 2,
		overhead: 4000, overheadRounds: 2, idle: 3 * time.Second}
}

var (
	errLost   = errors.New("acknowledged events never arrived")
	errBadSig = errors.New("the receiver saw bad signatures")
)

func runAll(args []string) error {
	fs := flag.NewFlagSet("run", flag.ExitOnError)
	binary := fs.String("binary", "", "the daemon")
	dir := fs.String("dir", "", "where the queue and the log floor write; default a temporary directory")
	quick := fs.Bool("quick", false, "a tenth of the work: shows that it runs, the figures mean little")
	only := fs.String("only", "", "comma-separated parts: "+partNames())
	backlog := fs.Int("backlog", 0, "deliveries that wait in the part backlog, which is then the only one and ends with their delivery; 10000000 needs about 15 GB")
	lanes := fs.Int("lanes", 1, "webhooks that the backlog waits for, up to 10000")
	soak := fs.Duration("soak", 0, "instead of the parts: this long at 2,000 events/s, with 5 % failing requests and restarts of the receiver; see below")
	record := fs.String("json", "", "write the figures there too, for \"bench plot\"")
	fs.Usage = func() { printUsage(fs) }
	if err := fs.Parse(args); err != nil {
		return err
	}
	n := fullSizes()
	if *quick {
		n = quickSizes()
	}
	if *lanes < 1 || *lanes > 10000 || *backlog < 0 || *soak < 0 {
		return errors.New("--lanes takes 1 to 10000, --backlog and --soak nothing negative")
	}
	if err := known(*only); err != nil {
		return err
	}
	n.lanes = *lanes
	if *backlog > 0 {
		n.backlog, n.drain, *only = *backlog, true, "backlog"
	}
	l, err := newLab(*dir, *binary)
	if err != nil {
		return err
	}
	defer os.RemoveAll(l.dir)
	if *soak > 0 {
		return l.withReceiver(func() error { return runSoak(l, *soak) })
	}
	r := &report{}
	before := readProcessors()
	if err := l.withReceiver(func() error { return runParts(l, n, *only, r) }); err != nil {
		return err
	}
	r.others = before.othersUntil(readProcessors())
	if *record != "" {
		if err := r.record(*record); err != nil {
			return err
		}
	}
	return r.write(os.Stdout)
}

// runParts runs the parts that only names, or all.
func runParts(l *lab, n sizes, only string, r *report) error {
	for _, part := range parts() {
		if only != "" && !strings.Contains(","+only+",", ","+part.name+",") {
			continue
		}
		fmt.Fprintf(os.Stderr, "bench: %s\n", part.name)
		if err := part.run(l, n, r); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	return nil
}

// part is one measurement of a run.
type part struct {
	name, what string
	run        func(*lab, sizes, *report) error
}

func parts() []part {
	return []part{
		{"idle", "memory and processor time of a daemon with nothing to do", measureIdle},
		{"flood", "acks and deliveries flat out at 16 connections, against the two floors", measureFlood},
		{"tls", "the same over TLS, against the bare client over TLS", measureTLS},
		{"rate", "end to end time at 500 events/s", measureRate},
		{"ndjson", "streams of 4 clients, with and without deliveries", measureNDJSON},
		{"isolation", "a webhook beside one that is slow, refuses, resets, drips, or is a crashing plugin", measureIsolation},
		{"fair", "1,000 webhooks under equal load, then beside one more that is flooded", measureFair},
		{"burst", "acks of a sender of 200 events/s, alone and beside a flood on another helper", measureBurst},
		{"fanout", "one event to 100 webhooks against 100 events to one", measureFanout},
		{"kill", "kill -9 under flood: what is lost, what comes twice", measureKill},
		{"backlog", "the rate beside a million pending deliveries, and the start with them", measureBacklog},
		{"overhead", "a plugin against a sink in the same process", measureOverhead},
	}
}

// known refuses a part that does not exist.
func known(only string) error {
	for name := range strings.SplitSeq(only, ",") {
		if only != "" && !slices.ContainsFunc(parts(), func(p part) bool { return p.name == name }) {
			return fmt.Errorf("no part %q; there are %s", name, partNames())
		}
	}
	return nil
}

func partNames() string {
	var names []string
	for _, p := range parts() {
		names = append(names, p.name)
	}
	return strings.Join(names, ",")
}

func printUsage(fs *flag.FlagSet) {
	w := fs.Output()
	fmt.Fprint(w, "usage: scripts/bench [flags]\n\nflags:\n")
	fs.PrintDefaults()
	fmt.Fprint(w, "\nparts:\n")
	for _, p := range parts() {
		fmt.Fprintf(w, "  %-10s %s\n", p.name, p.what)
	}
	fmt.Fprint(w, "\n"+soakHelp)
}

func newLab(dir, binary string) (*lab, error) {
	tmp, err := os.MkdirTemp(dir, "peanuts-bench-")
	if err != nil {
		return nil, err
	}
	if binary, err = filepath.Abs(binary); err != nil {
		return nil, err
	}
	return &lab{dir: tmp, binary: binary, secret: fmt.Sprintf("bench-%016x%016x", rand.Uint64(), rand.Uint64())}, nil
}

func (l *lab) load(args ...string) (loadResult, error) {
	r, err := self[loadResult](append([]string{"load", "-socket", l.socket()}, args...)...)
	if err == nil && r.Acked == 0 {
		err = fmt.Errorf("nothing was accepted: %s", r.FirstErr)
	}
	return r, err
}

func (l *lab) bare(args ...string) (bareResult, error) {
	return self[bareResult](append([]string{"bare", "-url", "http://" + l.recvAddr + "/ok/bare", "-secret", l.secret}, args...)...)
}

func (l *lab) walFloor(n int) (floorResult, error) {
	return self[floorResult]("walfloor", "-n", strconv.Itoa(n), "-c", "16", "-file", filepath.Join(l.dir, "walfloor"))
}

// warm sends a few events so that files, connections and pools exist.
func (l *lab) warm() error {
	_, err := l.flood(500)()
	return err
}
