package main

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
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

func measureIdle(l *lab, n sizes, r *report) error {
	if err := l.fresh(); err != nil {
		return err
	}
	defer l.stopDaemon(syscall.SIGTERM)
	time.Sleep(2 * time.Second)
	before, err := l.usage()
	if err != nil {
		return err
	}
	time.Sleep(n.idle)
	after, err := l.usage()
	if err != nil {
		return err
	}
	r.idleCPU = float64(after.cpu-before.cpu) / float64(n.idle)
	r.idleAnon = after.anonymous
	return nil
}

func measureFlood(l *lab, n sizes, r *report) error {
	if err := l.fresh(); err != nil {
		return err
	}
	defer l.stopDaemon(syscall.SIGTERM)
	if err := l.warm(); err != nil {
		return err
	}
	bare1, err := l.bare("-n", "20000")
	if err != nil {
		return err
	}
	floor1, err := l.walFloor(n.flood / 2)
	if err != nil {
		return err
	}
	before, err := l.usage()
	if err != nil {
		return err
	}
	peak := l.watchPeak()
	load, err := l.load("-n", strconv.Itoa(n.flood), "-c", "16")
	if err != nil {
		return err
	}
	s, err := l.waitFor(load.Acked, 10*time.Second)
	r.floodAnon = peak()
	if err != nil {
		return err
	}
	time.Sleep(300 * time.Millisecond) // the last completions are committed within 10 ms
	after, err := l.usage()
	if err != nil {
		return err
	}
	floor2, err := l.walFloor(n.flood / 2)
	if err != nil {
		return err
	}
	bare2, err := l.bare("-n", "20000")
	if err != nil {
		return err
	}
	r.bare = (bare1.PerSecond + bare2.PerSecond) / 2
	r.floor = (floor1.PerSecond + floor2.PerSecond) / 2
	r.acks, r.ack = load.PerSecond, load.Ack
	r.delivered = perSecond(s, load.StartUs)
	r.cpuPerEvent = (after.cpu - before.cpu) / time.Duration(max(1, s.Unique))
	r.bytesPerEvent = (after.written - before.written) / max(1, s.Unique)
	return settled(s, load.Acked)
}

func measureRate(l *lab, n sizes, r *report) error {
	if err := l.fresh(); err != nil {
		return err
	}
	defer l.stopDaemon(syscall.SIGTERM)
	if err := l.warm(); err != nil {
		return err
	}
	bare, err := l.bare("-n", "2500", "-rate", "500", "-c", "16")
	if err != nil {
		return err
	}
	load, err := l.load("-n", strconv.Itoa(n.rate), "-rate", "500", "-c", "16")
	if err != nil {
		return err
	}
	s, err := l.waitFor(load.Acked, 10*time.Second)
	if err != nil {
		return err
	}
	r.e2e, r.bareRTT = s.E2E, bare.RTT
	return settled(s, load.Acked)
}

func measureNDJSON(l *lab, n sizes, r *report) error {
	if err := l.fresh(); err != nil {
		return err
	}
	defer l.stopDaemon(syscall.SIGTERM)
	if err := l.warm(); err != nil {
		return err
	}
	only, err := l.load("-n", strconv.Itoa(n.ndjson), "-c", "4", "-ndjson", "-helper", "quiet")
	if err != nil {
		return err
	}
	r.ndjsonAccepted = only.PerSecond
	bare1, err := l.bare("-n", "20000")
	if err != nil {
		return err
	}
	load, err := l.load("-n", strconv.Itoa(n.ndjson/2), "-c", "4", "-ndjson")
	if err != nil {
		return err
	}
	s, err := l.waitFor(load.Acked, 10*time.Second)
	if err != nil {
		return err
	}
	bare2, err := l.bare("-n", "20000")
	if err != nil {
		return err
	}
	r.ndjsonDelivered = perSecond(s, load.StartUs)
	r.ndjsonBare = (bare1.PerSecond + bare2.PerSecond) / 2
	return settled(s, load.Acked)
}

// tarpitRate is how many events a second the tarpit gets beside the measured
// flood: far more than its 8 slots of 5 s can take, so that its backlog grows,
// and few enough that accepting them costs the processor next to nothing.
const tarpitRate = "300"

// measureIsolation floods the healthy webhook alone, then with a second sender
// whose events go to a receiver that takes 5 s.
func measureIsolation(l *lab, n sizes, r *report) error {
	alone, err := l.healthyRate(n, false)
	if err != nil {
		return err
	}
	beside, err := l.healthyRate(n, true)
	if err != nil {
		return err
	}
	again, err := l.healthyRate(n, false)
	if err != nil {
		return err
	}
	r.isolation = beside / ((alone + again) / 2)
	return nil
}

func (l *lab) healthyRate(n sizes, tarpit bool) (float64, error) {
	if err := l.fresh(); err != nil {
		return 0, err
	}
	defer l.stopDaemon(syscall.SIGKILL)
	if err := l.warm(); err != nil {
		return 0, err
	}
	done := make(chan error, 1)
	if tarpit {
		go func() {
			_, err := l.load("-n", "1500", "-c", "4", "-rate", tarpitRate, "-helper", "slow", "-max", "20s")
			done <- err
		}()
		time.Sleep(time.Second) // the tarpit's slots are full by now
	} else {
		done <- nil
	}
	load, err := l.load("-n", strconv.Itoa(n.isolation), "-c", "16")
	if err != nil {
		return 0, err
	}
	s, err := l.waitFor(load.Acked, 5*time.Second)
	if err := errors.Join(err, settled(s, load.Acked)); err != nil {
		return 0, err
	}
	return perSecond(s, load.StartUs), <-done
}

// measureKill kills the daemon under flood and accounts for every event that
// was acknowledged.
func measureKill(l *lab, n sizes, r *report) error {
	for range n.kills {
		if err := l.oneKill(r); err != nil {
			return err
		}
	}
	return nil
}

func (l *lab) oneKill(r *report) error {
	if err := l.fresh(); err != nil {
		return err
	}
	acked := filepath.Join(l.dir, "acked")
	type answer struct {
		r   loadResult
		err error
	}
	done := make(chan answer, 1)
	go func() {
		res, err := l.load("-n", "1000000", "-c", "16", "-max", "5s", "-stop-on-error", "-acked", acked)
		done <- answer{res, err}
	}()
	time.Sleep(time.Duration(600+rand.IntN(900)) * time.Millisecond)
	l.stopDaemon(syscall.SIGKILL)
	a := <-done
	if a.err != nil {
		return a.err
	}
	at, err := l.stats("/_count", mainStream)
	if err != nil {
		return err
	}
	var back time.Duration
	if at.Unique < a.r.Acked {
		back, err = l.restart(mainStream, at.Requests)
	} else { // all had arrived: there may be nothing to redeliver, so ready is back
		back, err = l.startDaemon()
	}
	if err != nil {
		return err
	}
	defer l.stopDaemon(syscall.SIGTERM)
	r.killBack = max(r.killBack, back)
	s, err := l.waitFor(a.r.Acked, 3*time.Second)
	if err != nil {
		return err
	}
	ids, err := os.ReadFile(acked)
	if err != nil {
		return err
	}
	var miss struct{ Acked, Missing int }
	if err := l.control("/_missing?"+mainStream, bytes.NewReader(ids), &miss); err != nil {
		return err
	}
	r.killTrials++
	r.killAcked += int64(miss.Acked)
	r.killLost += int64(miss.Missing)
	r.killDups = max(r.killDups, s.Dups)
	if miss.Missing > 0 {
		return fmt.Errorf("%w: %d of %d", errLost, miss.Missing, miss.Acked)
	}
	return nil
}

// restart starts the daemon and returns how long it takes until a stream has
// more than had requests.
func (l *lab) restart(stream string, had int64) (time.Duration, error) {
	t0 := time.Now()
	if _, err := l.startDaemon(); err != nil {
		return 0, err
	}
	for time.Since(t0) < time.Minute {
		now, err := l.stats("/_count", stream)
		if err != nil {
			return 0, err
		}
		if now.Requests > had {
			return time.Since(t0), nil
		}
		time.Sleep(2 * time.Millisecond)
	}
	return 0, errors.New("nothing was delivered within a minute of the start")
}

// rateNow is deliveries per second of a flood on the daemon as it stands.
func (l *lab) rateNow(n int) (float64, error) {
	if err := l.control("/_reset", nil, new(any)); err != nil {
		return 0, err
	}
	load, err := l.load("-n", strconv.Itoa(n), "-c", "16")
	if err != nil {
		return 0, err
	}
	s, err := l.waitFor(load.Acked, 10*time.Second)
	if err != nil {
		return 0, err
	}
	return perSecond(s, load.StartUs), settled(s, load.Acked)
}

// measureBacklog compares the rate on an empty queue with the rate beside a
// webhook that has a backlog, and times the first delivery after a start with
// that backlog.
func measureBacklog(l *lab, n sizes, r *report) error {
	if err := l.fresh(); err != nil {
		return err
	}
	defer func() { l.stopDaemon(syscall.SIGKILL) }()
	if err := l.warm(); err != nil {
		return err
	}
	empty, err := l.rateNow(4 * n.flood) // long enough for the database to merge tables now and then
	if err != nil {
		return err
	}
	back, err := l.load("-n", strconv.Itoa(n.backlog), "-c", "4", "-ndjson", "-helper", "backlog", "-max", "10m")
	if err != nil {
		return err
	}
	if back.Acked < int64(n.backlog) {
		return fmt.Errorf("only %d of %d were accepted: %s", back.Acked, n.backlog, back.FirstErr)
	}
	r.backlog = back.Acked
	peak := l.watchPeak()
	full, err := l.rateNow(n.flood / 2)
	r.backlogAnon = peak()
	if err == nil {
		err = l.rested()
	}
	if err != nil {
		return err
	}
	long, err := l.rateNow(4 * n.flood)
	if err != nil {
		return err
	}
	r.backlogLong = long / empty
	u, err := l.usage()
	if err != nil {
		return err
	}
	r.backlogRSS = u.resident
	r.backlogRatio = full / empty
	l.stopDaemon(syscall.SIGKILL)
	const stuck = "/delay/600000/stuck"
	before, err := l.stats("/_count", stuck)
	if err != nil {
		return err
	}
	r.backlogFirst, err = l.restart(stuck, before.Requests)
	return err
}
