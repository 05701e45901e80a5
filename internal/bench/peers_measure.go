package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// peerLoadMost is the longest that a side is given events; peerDrainMost the longest wait
// for the rest of them, and peerIdleMost for the next.
const (
	peerLoadMost  = 60 * time.Second
	peerDrainMost = 60 * time.Second
	peerIdleMost  = 15 * time.Second
)

// load sends events to a side.
func (c *contest) load(s side, n int, args ...string) (loadResult, error) {
	return c.l.load(append([]string{"-socket", s.socket(), "-n", strconv.Itoa(n), "-c", "16", "-max", peerLoadMost.String()}, args...)...)
}

// arrived waits until the main stream has want unique events, but no longer than
// peerDrainMost, and peerIdleMost for the next.
func (c *contest) arrived(want int64) (streamStats, error) {
	start, last, lastN := time.Now(), time.Now(), int64(-1)
	for {
		s, err := c.l.stats("/_count", mainStream)
		switch {
		case err != nil:
			return s, err
		case s.Unique != lastN:
			lastN, last = s.Unique, time.Now()
		}
		if s.Unique >= want || time.Since(last) > peerIdleMost || time.Since(start) > peerDrainMost {
			return c.l.stats("/_stats", mainStream)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// fresh starts a side on no data, and sends a few events so that files, connections and
// pools exist.
func (c *contest) fresh(s side) error {
	if err := errors.Join(s.wipe(), c.l.control("/_reset", nil, new(any))); err != nil {
		return err
	}
	if err := s.start(); err != nil {
		return err
	}
	r, err := c.load(s, c.n.warm)
	if err == nil {
		_, err = c.arrived(r.Acked)
	}
	if err = errors.Join(err, c.l.control("/_reset", nil, new(any))); err != nil {
		s.stop(syscall.SIGKILL)
	}
	return err
}

// settle counts what was acknowledged and has not arrived. For the daemon that is an
// error; a bad signature is one for all, because it is a mistake of this program.
func settle(s side, r *sideResult, st streamStats, acked int64) error {
	missing := max(0, acked-st.Unique)
	r.Undelivered += missing
	switch {
	case st.BadSig > 0:
		return fmt.Errorf("%w: %d", errBadSig, st.BadSig)
	case missing > 0 && s.must():
		return fmt.Errorf("%w: %d of %d", errLost, missing, acked)
	}
	return nil
}

// floors takes both floors.
func (c *contest) floors() (bare, floor float64, err error) {
	b, err := c.l.bare("-n", strconv.Itoa(c.n.bare))
	if err != nil {
		return 0, 0, err
	}
	f, err := c.l.walFloor(c.n.floor)
	return b.PerSecond, f.PerSecond, err
}

// flood sends events as fast as 16 connections are answered, between two looks at the floors.
func (c *contest) flood(s side, r *sideResult) error {
	if err := c.fresh(s); err != nil {
		return err
	}
	defer s.stop(syscall.SIGTERM)
	bare1, floor1, err := c.floors()
	if err != nil {
		return err
	}
	finish := watchResources(s)
	load, err := c.load(s, c.n.flood)
	if err != nil {
		return errors.Join(err, finish(new(floodLeg)))
	}
	st, err := c.arrived(load.Acked)
	time.Sleep(300 * time.Millisecond) // the last outcomes are written
	var leg floodLeg
	if err := errors.Join(err, finish(&leg)); err != nil {
		return err
	}
	bare2, floor2, err := c.floors()
	if err != nil {
		return err
	}
	leg.Bare, leg.Floor = (bare1+bare2)/2, (floor1+floor2)/2
	leg.Acks, leg.Ack, leg.Delivered = load.PerSecond, load.Ack, perSecond(st.Unique, st.Last, load.StartUs)
	leg.Written /= max(1, st.Unique)
	r.Floods = append(r.Floods, leg)
	if err := settle(s, r, st, load.Acked); err != nil {
		return err
	}
	if len(r.Floods) == 1 {
		return c.countSyncs(s, r)
	}
	return nil
}

// watchResources samples memory and written bytes of a side until the function that it
// returns writes the peak and the sum into a leg.
func watchResources(s side) (finish func(*floodLeg) error) {
	begin, written, quit, done := map[int]int64{}, map[int]int64{}, make(chan struct{}), make(chan floodLeg)
	for _, pid := range s.pids() {
		begin[pid], _ = procField(fmt.Sprintf("/proc/%d/io", pid), "write_bytes:", 1)
	}
	go func() {
		var top floodLeg
		for last := false; ; {
			var pss, anonymous int64
			for _, pid := range s.pids() {
				dir := fmt.Sprintf("/proc/%d/", pid)
				whole, _ := procField(dir+"smaps_rollup", "Pss:", 1024) // 0 of one that has just ended
				own, _ := procField(dir+"smaps_rollup", "Pss_Anon:", 1024)
				wrote, _ := procField(dir+"io", "write_bytes:", 1)
				pss, anonymous, written[pid] = pss+whole, anonymous+own, max(written[pid], wrote)
			}
			top.PSS, top.Anonymous = max(top.PSS, pss), max(top.Anonymous, anonymous)
			if last {
				break
			}
			select {
			case <-quit:
				last = true
			case <-time.After(500 * time.Millisecond):
			}
		}
		for pid, n := range written {
			top.Written += n - begin[pid]
		}
		done <- top
	}()
	return func(leg *floodLeg) error {
		close(quit)
		top := <-done
		leg.PSS, leg.Anonymous, leg.Written = top.PSS, top.Anonymous, top.Written
		if top.PSS == 0 {
			return errors.New("the memory of the processes cannot be read")
		}
		return nil
	}
}

// countSyncs counts how often a side asks the kernel to bring something to the disk for
// what it acknowledges. Without perf there is no such figure.
func (c *contest) countSyncs(s side, r *sideResult) error {
	if _, err := exec.LookPath("perf"); err != nil {
		return nil
	}
	if err := c.l.control("/_reset", nil, new(any)); err != nil {
		return err
	}
	var pids []string
	for _, pid := range s.pids() {
		pids = append(pids, strconv.Itoa(pid))
	}
	var events []string
	for _, call := range []string{"fsync", "fdatasync", "msync", "sync_file_range"} {
		events = append(events, "syscalls:sys_enter_"+call)
	}
	perf := exec.Command("perf", "stat", "-x,", "-e", strings.Join(events, ","), "-p", strings.Join(pids, ","))
	var out bytes.Buffer
	perf.Stderr, perf.WaitDelay = &out, 5*time.Second
	if err := perf.Start(); err != nil {
		return err
	}
	time.Sleep(300 * time.Millisecond) // until it counts
	load, err := c.load(s, c.n.flood/8)
	_ = perf.Process.Signal(syscall.SIGINT)
	_ = perf.Wait() // ends with the signal
	if err != nil {
		return err
	}
	if n, counted := syncsOf(out.String()); counted {
		r.Syncs = new(1000 * float64(n) / float64(load.Acked))
	}
	st, err := c.arrived(load.Acked)
	return errors.Join(err, settle(s, r, st, load.Acked))
}

// syncsOf adds up what perf stat -x, has counted; counted is false when it had no right to.
func syncsOf(text string) (n int64, counted bool) {
	for line := range strings.Lines(text) {
		first, _, _ := strings.Cut(line, ",")
		if v, err := strconv.ParseInt(first, 10, 64); err == nil {
			n, counted = n+v, true
		}
	}
	return n, counted
}

// rate sends 500 events a second.
func (c *contest) rate(s side, r *sideResult) error {
	if err := c.fresh(s); err != nil {
		return err
	}
	defer s.stop(syscall.SIGTERM)
	bare, err := c.l.bare("-n", strconv.Itoa(c.n.rate/2), "-rate", "500", "-c", "16")
	if err != nil {
		return err
	}
	load, err := c.load(s, c.n.rate, "-rate", "500")
	if err != nil {
		return err
	}
	st, err := c.arrived(load.Acked)
	r.E2E, r.BareRTT = st.E2E, bare.RTT
	return errors.Join(err, settle(s, r, st, load.Acked))
}

// isolationPairs is how often a side is measured beside the tarpit, between two legs alone.
const isolationPairs = 3

// isolation floods the healthy destination alone, beside one that takes 5 s, alone, and so
// on. A flood is what the side delivers in a few seconds.
func (c *contest) isolation(s side, r *sideResult) error {
	most := min(c.n.isolationMost, max(c.n.warm, int(r.median(func(f floodLeg) float64 { return f.Delivered })*c.n.isolation.Seconds())))
	var legs []leg
	for i := range 2*isolationPairs + 1 {
		l, err := c.isolationLeg(s, r, most, i%2 == 1)
		if err != nil {
			return err
		}
		legs = append(legs, l)
	}
	r.Kept = kept(legs)
	return nil
}

// kept is the median of what the legs beside the tarpit, every second one, have of the
// mean of the two around each.
func kept(legs []leg) float64 {
	var v []float64
	for i := 1; i+1 < len(legs); i += 2 {
		v = append(v, 2*legs[i].rate/(legs[i-1].rate+legs[i+1].rate))
	}
	return medianOf(v)
}

func (c *contest) isolationLeg(s side, r *sideResult, n int, tarpit bool) (leg, error) {
	if err := c.fresh(s); err != nil {
		return leg{}, err
	}
	defer s.stop(syscall.SIGKILL)
	done := make(chan error, 1)
	if tarpit {
		go func() {
			_, err := c.l.load("-socket", s.socket(), "-n", strconv.Itoa(c.n.tarpit), "-c", "4", "-rate", neighbourRate, "-helper", "slow", "-max", "20s")
			done <- err
		}()
		time.Sleep(time.Second) // all its slots are taken by now
	} else {
		done <- nil
	}
	load, err := c.load(s, n)
	if err != nil {
		return leg{}, errors.Join(err, <-done)
	}
	st, err := c.arrived(load.Acked)
	if err := errors.Join(err, settle(s, r, st, load.Acked), <-done); err != nil {
		return leg{}, err
	}
	return leg{rate: perSecond(st.Unique, st.Last, load.StartUs)}, nil
}

// kill kills every process of a side under flood, starts it again and accounts for what
// was acknowledged.
func (c *contest) kill(s side, r *sideResult) error {
	if err := c.fresh(s); err != nil {
		return err
	}
	acked := filepath.Join(c.l.dir, "acked")
	type answer struct {
		r   loadResult
		err error
	}
	done := make(chan answer, 1)
	go func() {
		res, err := c.load(s, 1000000, "-max", "5s", "-stop-on-error", "-acked", acked)
		done <- answer{res, err}
	}()
	time.Sleep(time.Duration(600+rand.IntN(900)) * time.Millisecond)
	s.stop(syscall.SIGKILL)
	a := <-done
	if a.err != nil {
		return a.err
	}
	at, err := c.l.stats("/_count", mainStream)
	if err != nil {
		return err
	}
	ids, err := os.ReadFile(acked)
	if err != nil {
		return err
	}
	start := time.Now()
	if err := s.start(); err != nil {
		return err
	}
	defer s.stop(syscall.SIGKILL)
	t, err := c.back(start, at, ids)
	if err != nil {
		return err
	}
	r.Kills = append(r.Kills, t)
	if t.Lost > 0 && s.must() {
		return fmt.Errorf("%w: %d of %d", errLost, t.Lost, t.Acked)
	}
	return nil
}

// back waits for the first delivery after a start, and until all that was acknowledged
// has arrived.
func (c *contest) back(start time.Time, at streamStats, ids []byte) (t killTrial, err error) {
	for {
		now, err := c.l.stats("/_count", mainStream)
		if err != nil {
			return t, err
		}
		if now.Requests > at.Requests {
			t.First = cmp.Or(t.First, time.Since(start).Seconds())
		}
		var miss struct{ Acked, Missing int }
		if err := c.l.control("/_missing?"+mainStream, bytes.NewReader(ids), &miss); err != nil {
			return t, err
		}
		t.Acked, t.Lost, t.All, t.Dups = miss.Acked, miss.Missing, time.Since(start).Seconds(), now.Dups
		if t.Lost == 0 || time.Since(start) > c.n.settle {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	time.Sleep(time.Second) // for the last duplicates
	now, err := c.l.stats("/_count", mainStream)
	t.First, t.Dups = cmp.Or(t.First, t.All), now.Dups
	return t, err
}
