package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// peerSizes is how much each measurement of a run beside the peers does.
type peerSizes struct {
	flood, floor, bare, warm int // events of a leg, of the floors around it, before it
	rounds                   int // legs of each side
	rate                     int // events at 500/s
	isolation                time.Duration
	isolationMost            int // events of a leg, whatever the rate
	tarpit                   int // events for the tarpit, at neighbourRate
	kills                    int
	settle                   time.Duration // the longest wait for what was in flight at a kill
}

func fullPeerSizes() peerSizes {
	return peerSizes{flood: 16000, floor: 16000, bare: 20000, warm: 500, rounds: 3, rate: 3000, isolation: 2 * time.Second,
		isolationMost: 30000, tarpit: 900, kills: 1, settle: 100 * time.Second}
}

func quickPeerSizes() peerSizes {
	return peerSizes{flood: 2000, floor: 2000, bare: 5000, warm: 100, rounds: 1, rate: 500, isolation: time.Second,
		isolationMost: 5000, tarpit: 300, kills: 1, settle: 100 * time.Second}
}

// runPeers measures the relay and its peers in turns and prints one table.
func runPeers(args []string) error {
	fs := flag.NewFlagSet("peers", flag.ExitOnError)
	binary := fs.String("binary", "", "the daemon")
	source := fs.String("source", "internal/bench/peers", "the peers' module")
	built := fs.String("built", "bin/peers", "where the peers' programs are built")
	dir := fs.String("dir", "", "where the queues and the log floor write; default a temporary directory")
	quick := fs.Bool("quick", false, "a tenth of the work: shows that it runs, the figures mean little")
	names := fs.String("sides", strings.Join(sideNames(), ","), "comma-separated: what is measured")
	lock := fs.String("lock", "", "a file to lock while something is measured, on a machine that others use, too")
	record := fs.String("json", "", "write the figures there too")
	flood := fs.Int("flood", 0, "events of a flood; 0 is the usual number")
	rounds := fs.Int("rounds", 0, "floods of each side; 0 is the usual number")
	kills := fs.Int("kills", -1, "times that each side is killed; -1 is the usual number")
	if err := fs.Parse(args); err != nil {
		return err
	}
	n := fullPeerSizes()
	if *quick {
		n = quickPeerSizes()
	}
	if *flood < 0 || *rounds < 0 || *kills < -1 {
		return errors.New("--flood and --rounds take nothing negative, --kills nothing below -1")
	}
	n.resize(*flood, *rounds, *kills)
	wanted := strings.Split(*names, ",")
	for _, name := range wanted {
		if !slices.Contains(sideNames(), name) {
			return fmt.Errorf("no side %q; there are %s", name, strings.Join(sideNames(), ","))
		}
	}
	l, err := newLab(*dir, *binary)
	if err != nil {
		return err
	}
	defer os.RemoveAll(l.dir)
	r, err := comparePeers(l, n, wanted, peerSource{*source, *built}, *lock)
	if err != nil {
		return err
	}
	if *record != "" {
		if err := r.record(*record); err != nil {
			return err
		}
	}
	return r.write(os.Stdout)
}

func (n *peerSizes) resize(flood, rounds, kills int) {
	if flood > 0 {
		n.flood, n.floor = flood, flood
	}
	if rounds > 0 {
		n.rounds = rounds
	}
	if kills >= 0 {
		n.kills = kills
	}
}

// comparison is one run: every side in the order of the table, the skipped ones, too.
type comparison struct {
	Sizes string
	Sides []*sideResult
}

func (c *comparison) record(path string) error {
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o600)
}

// contest is a run under way.
type contest struct {
	l    *lab
	n    peerSizes
	lock *machineLock
}

// comparePeers prepares the sides, skips those that cannot run here, and measures the
// others in turns: each measurement with all of them before the next. A peer that cannot
// go on is out; the others are measured to the end.
func comparePeers(l *lab, n peerSizes, wanted []string, src peerSource, lock string) (*comparison, error) {
	if err := l.startReceiver(); err != nil {
		return nil, err
	}
	defer l.stopReceiver()
	if err := l.writeConfig(); err != nil {
		return nil, err
	}
	c := &contest{l, n, &machineLock{path: lock}}
	out := &comparison{Sizes: fmt.Sprintf("floods of %d events, %d of each side; %d events at 500/s; %d kills", n.flood, n.rounds, n.rate, n.kills)}
	sides := map[*sideResult]side{}
	for _, name := range wanted {
		s, err := newSide(name, l, src)
		r := &sideResult{Name: sideTitle(name)}
		out.Sides = append(out.Sides, r)
		if err != nil {
			r.Skipped = err.Error()
			fmt.Fprintf(os.Stderr, "bench: %s is skipped: %v\n", name, err)
			continue
		}
		r.Version, sides[r] = s.version(), s
	}
	for _, m := range c.measurements() {
		for _, r := range out.Sides {
			if sides[r] == nil {
				continue
			}
			if err := c.measure(m, sides[r], r); err != nil {
				if err = fmt.Errorf("%s: %w", m.name, err); sides[r].must() {
					return nil, err
				}
				fmt.Fprintf(os.Stderr, "bench: %s is out: %v\n", r.Name, err)
				r.Skipped, sides[r] = err.Error(), nil
			}
		}
		if c.lock.held() > lockLong { // others may have the machine now
			c.lock.release()
		}
	}
	c.lock.release()
	return out, nil
}

func (c *contest) measure(m measurement, s side, r *sideResult) error {
	if err := c.lock.take(); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "bench: %s: %s\n", m.name, r.Name)
	return m.run(s, r)
}

type measurement struct {
	name string
	run  func(side, *sideResult) error
}

func (c *contest) measurements() (out []measurement) {
	for range c.n.rounds {
		out = append(out, measurement{"flood", c.flood})
	}
	out = append(out, measurement{"rate", c.rate}, measurement{"isolation", c.isolation})
	for range c.n.kills {
		out = append(out, measurement{"kill", c.kill})
	}
	return out
}

// lockWait is how long a measurement waits for its turn, lockLong the longest that the next
// one keeps it.
const (
	lockWait = 15 * time.Minute
	lockLong = 100 * time.Second
)

// machineLock keeps the measurements of several runs on one machine apart: it is held while
// all sides have their turn. Without a path it does nothing.
type machineLock struct {
	path  string
	file  *os.File // while it is held
	since time.Time
}

// held is for how long it has been.
func (m *machineLock) held() time.Duration {
	if m.file == nil {
		return 0
	}
	return time.Since(m.since)
}

func (m *machineLock) take() error {
	if m.path == "" || m.file != nil {
		return nil
	}
	f, err := os.OpenFile(filepath.Clean(m.path), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	got := make(chan error, 1)
	go func() { got <- syscall.Flock(int(f.Fd()), syscall.LOCK_EX) }()
	select {
	case err := <-got:
		m.file, m.since = f, time.Now()
		return err
	case <-time.After(lockWait):
		return fmt.Errorf("%s is locked for longer than %v", m.path, lockWait)
	}
}

func (m *machineLock) release() {
	if m.file != nil {
		_ = m.file.Close()
		m.file = nil
	}
}
