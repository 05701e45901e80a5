package main

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// sizes is how much each part of a run does.
type sizes struct {
	flood, rate, isolation, ndjson, backlog, kills int
	overhead, rounds                               int // deliveries of a leg, legs of each side
	idle                                           time.Duration
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
	only := fs.String("only", "", "comma-separated parts: flood,rate,isolation,ndjson,backlog,kill,idle,overhead")
	if err := fs.Parse(args); err != nil {
		return err
	}
	n := sizes{flood: 40000, rate: 6000, isolation: 30000, ndjson: 200000, backlog: 1000000, kills: 5,
		overhead: 40000, rounds: 9, idle: 20 * time.Second}
	if *quick {
		n = sizes{flood: 4000, rate: 1000, isolation: 3000, ndjson: 20000, backlog: 50000, kills: 2,
			overhead: 4000, rounds: 2, idle: 3 * time.Second}
	}
	l, err := newLab(*dir, *binary)
	if err != nil {
		return err
	}
	defer os.RemoveAll(l.dir)
	if err := l.startReceiver(); err != nil {
		return err
	}
	defer l.stopReceiver()
	if err := l.writeConfig(); err != nil {
		return err
	}
	r := &report{}
	for _, part := range []struct {
		name string
		run  func(*lab, sizes, *report) error
	}{
		{"idle", measureIdle}, {"flood", measureFlood}, {"rate", measureRate}, {"ndjson", measureNDJSON},
		{"isolation", measureIsolation}, {"overhead", measureOverhead}, {"kill", measureKill}, {"backlog", measureBacklog},
	} {
		if *only != "" && !strings.Contains(","+*only+",", ","+part.name+",") {
			continue
		}
		fmt.Fprintf(os.Stderr, "bench: %s\n", part.name)
		if err := part.run(l, n, r); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	return r.write(os.Stdout)
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
	r, err := l.load("-n", "500", "-c", "16")
	if err != nil {
		return err
	}
	if _, err := l.waitFor(r.Acked, 10*time.Second); err != nil {
		return err
	}
	return l.control("/_reset", nil, new(any))
}

// settled checks that what was accepted arrived, signed.
func settled(s streamStats, acked int64) error {
	switch {
	case s.BadSig > 0:
		return fmt.Errorf("%w: %d", errBadSig, s.BadSig)
	case s.Unique < acked:
		return fmt.Errorf("%w: %d of %d", errLost, acked-s.Unique, acked)
	}
	return nil
}

// perSecond is deliveries over the time from the first send to the last first
// arrival.
func perSecond(s streamStats, startUs int64) float64 {
	return float64(s.Unique) / (float64(s.Last-startUs) / 1e6)
}
