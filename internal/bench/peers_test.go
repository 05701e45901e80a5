package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/testhost"
)

// TestMain makes the test binary every program of a run, each in a process of its own.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-") {
		main()
		return
	}
	m.Run()
}

func tinyPeerSizes() peerSizes {
	return peerSizes{flood: 400, floor: 200, bare: 200, warm: 20, rounds: 2, rate: 100, isolation: time.Millisecond,
		isolationMost: 100, tarpit: 20, kills: 1, settle: time.Minute}
}

func TestTheRelayIsMeasuredAsItsPeersAreAndAMissingPeerIsSkippedByName(t *testing.T) {
	t.Setenv("GORACE", "atexit_sleep_ms=0") // each of the many short processes would end a second late
	binary := filepath.Join(t.TempDir(), "peanuts-relay")
	if out, err := exec.CommandContext(t.Context(), testhost.Program(t, "go"), "build", "-o", binary, "../../daemon").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	dir, err := os.MkdirTemp("", "peers") // the path of a socket has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l, err := newLab(dir, binary)
	if err != nil {
		t.Fatal(err)
	}
	n := tinyPeerSizes()
	missing := peerSource{filepath.Join(dir, "missing"), filepath.Join(dir, "built")}
	c, err := comparePeers(l, n, []string{"relay", "nats"}, missing, filepath.Join(dir, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	relay, nats := c.Sides[0], c.Sides[1]
	if nats.Skipped == "" || len(nats.Floods) > 0 {
		t.Errorf("a peer without its programs: %+v", nats)
	}
	if !strings.HasPrefix(relay.Version, "peanuts-relay ") || relay.Skipped != "" {
		t.Errorf("version %q, skipped %q", relay.Version, relay.Skipped)
	}
	if len(relay.Floods) != n.rounds {
		t.Fatalf("%d floods", len(relay.Floods))
	}
	for _, f := range relay.Floods {
		if f.Bare <= 0 || f.Floor <= 0 || f.Acks <= 0 || f.Delivered <= 0 || f.Ack.N != n.flood || f.PSS < f.Anonymous || f.Anonymous <= 0 || f.Written < 100 {
			t.Errorf("flood %+v", f)
		}
	}
	if relay.E2E.N != n.rate || relay.BareRTT.N != n.rate/2 || relay.Kept <= 0 || relay.Undelivered != 0 {
		t.Errorf("end to end %+v, bare %+v, kept %v, undelivered %d", relay.E2E, relay.BareRTT, relay.Kept, relay.Undelivered)
	}
	if len(relay.Kills) != 1 || relay.Kills[0].Lost != 0 || relay.Kills[0].First <= 0 || relay.Kills[0].First > relay.Kills[0].All {
		t.Errorf("kills %+v", relay.Kills)
	}
	leftOver, err := filepath.Glob(filepath.Join(l.dir, "nats", "*"))
	if err != nil || len(leftOver) > 0 {
		t.Errorf("a peer that was skipped left %v, %v", leftOver, err)
	}
}

func compared() *comparison {
	leg := func(delivered, bare, acks, floor float64) floodLeg {
		return floodLeg{Bare: bare, Floor: floor, Acks: acks, Delivered: delivered, Ack: summary{P50: 1234, P99: 5000}, PSS: 80 << 20, Anonymous: 30 << 20, Written: 2000}
	}
	return &comparison{Sizes: "few", Sides: []*sideResult{
		{Name: "Us", Version: "v1", Floods: []floodLeg{leg(300, 1000, 500, 1000), leg(100, 200, 100, 100), leg(200, 1000, 200, 1000)},
			Syncs: new(150.4), E2E: summary{P50: 900, P99: 20000}, BareRTT: summary{P50: 200, P99: 400}, Kept: .954,
			Kills: []killTrial{{Acked: 10, Dups: 3, First: .5, All: .75}, {Acked: 20, Dups: 1, First: .25, All: 2}}},
		{Name: "Them", Version: "v2", Floods: []floodLeg{leg(1, 10, 1, 10), leg(3, 10, 3, 10)}, Undelivered: 4,
			Kills: []killTrial{{Acked: 10, Lost: 2, All: 100, First: 1}}},
		{Name: "Others", Skipped: "no node here"},
	}}
}

func TestTheTableHasTheMedianOfTheLegsAndTheWorstOfTheKills(t *testing.T) {
	var b strings.Builder
	if err := compared().write(&b); err != nil {
		t.Fatal(err)
	}
	var rows []string
	for line := range strings.Lines(b.String()) {
		var cells []string
		for cell := range strings.SplitSeq(strings.TrimSpace(line), "|") {
			if cell = strings.TrimSpace(cell); cell != "" {
				cells = append(cells, cell)
			}
		}
		rows = append(rows, strings.Join(cells, "|"))
	}
	for _, want := range []string{
		"what|Us|Them",
		"---|--:|--:",
		"delivered/s|200|2",
		"÷ the bare client around it|0.300|0.200", // the median of the ratios, not the ratio of medians
		"durable acks/s, 16 connections|200|2",
		"÷ the log floor around it|0.500|0.200",
		"ack p50 / p99, ms|1.23 / 5.00|1.23 / 5.00",
		"end to end at 500/s, p50 / p99, ms|0.90 / 20.00|0.00 / 0.00",
		"the bare client before it, ms|0.20 / 0.40|0.00 / 0.00",
		"memory in the flood, peak, MiB: PSS / anonymous|80 / 30|80 / 30",
		"bytes written per event|2000|2000",
		"syncs per 1,000 acks|150|-",
		"healthy rate kept beside a 5 s tarpit|95 %|0 %",
		"acked and not delivered, nothing killed|0|4",
		"kill -9 of everything under flood: lost of acked|0 of 30|2 of 10",
		"most duplicates|3|0",
		"back in: first delivery / all of them, slowest, s|0.50 / 2.00|1.00 / 100.00",
		"- Us: v1",
		"- Others: skipped: no node here",
		"- bare client, median of all legs: 200/s; log floor: 100/s",
	} {
		if !slices.Contains(rows, want) {
			t.Errorf("no row %q in\n%s", want, b.String())
		}
	}
}

func TestAComparisonIsRecordedWithEveryLeg(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.json")
	if err := compared().record(path); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got comparison
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Sides) != 3 || len(got.Sides[0].Floods) != 3 || got.Sides[0].Floods[1].Bare != 200 || got.Sides[2].Skipped == "" {
		t.Errorf("recorded %s", b)
	}
}

func TestTheMedianOfAnEvenNumberIsBetweenTheTwoInTheMiddle(t *testing.T) {
	for want, v := range map[float64][]float64{0: nil, 4: {4}, 3: {5, 1}, 2: {9, 2, 1}, 2.5: {4, 1, 3, 2}} {
		if got := medianOf(v); got != want {
			t.Errorf("median of %v = %v, want %v", v, got, want)
		}
	}
}

func TestTheHealthyRateKeptIsTheMedianOfTheLegsBesideTheTarpit(t *testing.T) {
	rates := []float64{100, 90, 100, 20, 300, 100, 100} // 0.9, 0.1 and 0.5 of the means around them
	var legs []leg
	for _, v := range rates {
		legs = append(legs, leg{rate: v})
	}
	if got := kept(legs); got != 0.5 {
		t.Errorf("kept %v", got)
	}
}

func TestWhatPerfHasNotCountedIsNoFigure(t *testing.T) {
	n, counted := syncsOf("12,,syscalls:sys_enter_fsync,100,100.00,,\n<not counted>,,syscalls:sys_enter_msync,0,100.00,,\n3,,syscalls:sys_enter_fdatasync,1,1,,\n")
	if n != 15 || !counted {
		t.Errorf("%d, %v", n, counted)
	}
	if n, counted := syncsOf("Error:\nNo permission to enable syscalls:sys_enter_fsync event.\n"); n != 0 || counted {
		t.Errorf("%d, %v of an error", n, counted)
	}
}

// lossy is a side that may lose events.
type lossy struct {
	side
	fatal bool
}

func (s lossy) must() bool { return s.fatal }

func TestALostEventOfAPeerIsAFigureAndOneOfTheDaemonIsAnError(t *testing.T) {
	var r sideResult
	if err := settle(lossy{}, &r, streamStats{Unique: 7}, 10); err != nil || r.Undelivered != 3 {
		t.Errorf("peer: %v, %d undelivered", err, r.Undelivered)
	}
	if err := settle(lossy{}, &r, streamStats{Unique: 12}, 10); err != nil || r.Undelivered != 3 { // arrived, the answer was lost
		t.Errorf("more than was acknowledged: %v, %d undelivered", err, r.Undelivered)
	}
	if err := settle(lossy{fatal: true}, new(sideResult), streamStats{Unique: 7}, 10); !errors.Is(err, errLost) {
		t.Errorf("daemon: %v", err)
	}
	if err := settle(lossy{}, new(sideResult), streamStats{Unique: 10, BadSig: 1}, 10); !errors.Is(err, errBadSig) {
		t.Errorf("bad signature: %v", err)
	}
}

func TestAPeerThatEndsAtItsStartSaysWhy(t *testing.T) {
	p := newPeer(&lab{dir: t.TempDir()}, "short", "short", func(p *peer) error {
		if err := p.run("store", nil, "sh", "-c", "echo no room for a log >&2; exit 3"); err != nil {
			return err
		}
		return p.until("store", func() bool { return false })
	})
	if err := p.start(); err == nil || !strings.Contains(err.Error(), "no room for a log") {
		t.Errorf("start: %v", err)
	}
	if len(p.pids()) > 0 {
		t.Errorf("left over: %v", p.pids())
	}
	if err := p.wipe(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(p.dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its data: %v", err)
	}
}

func TestAPeerEndsWithWhateverItHasStarted(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		p := newPeer(&lab{dir: t.TempDir()}, "parent", "parent", func(p *peer) error {
			if err := p.run("parent", nil, "sh", "-c", "sleep 600 & echo started; wait"); err != nil {
				return err
			}
			return p.until("parent", func() bool { return strings.Contains(tail(p.path("parent.log")), "started") })
		})
		if err := p.start(); err != nil {
			t.Fatal(err)
		}
		all := p.pids()
		if len(all) != 2 {
			t.Errorf("processes %v", all)
		}
		p.stop(sig)
		for _, pid := range all {
			for end := time.Now().Add(30 * time.Second); !gone(pid); {
				if time.Now().After(end) {
					t.Fatalf("%v: process %d lives", sig, pid)
				}
				<-time.After(5 * time.Millisecond)
			}
		}
	}
}

// gone says that a process has ended; it may wait for its parent to ask how.
func gone(pid int) bool {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return true
	}
	_, after, _ := strings.Cut(string(b), ") ")
	return strings.HasPrefix(after, "Z")
}

func TestAMeasurementWaitsForTheLockOfAnother(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	holder := exec.CommandContext(t.Context(), testhost.Program(t, "flock"), path, "sh", "-c", "echo held; read line")
	in, err := holder.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	m := &machineLock{path: path}
	got := make(chan error, 1)
	go func() { got <- m.take() }()
	select {
	case err := <-got:
		t.Fatalf("taken while it is held: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	if err := errors.Join(in.Close(), holder.Wait()); err != nil {
		t.Logf("holder: %v", err) // read ends with an error at the end of its input
	}
	select {
	case err := <-got:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("not taken after it was let go")
	}
	m.release()
	m.release() // nothing more
}

func TestWrongFlagsOfARunBesidePeersAreRefused(t *testing.T) {
	for _, args := range [][]string{{"-sides", "relay,rabbit"}, {"-flood", "-1"}, {"-rounds", "-1"}, {"-kills", "-2"}} {
		if err := runPeers(append(args, "-dir", filepath.Join(t.TempDir(), "missing"))); err == nil || errors.Is(err, os.ErrNotExist) {
			t.Errorf("%v: %v", args, err)
		}
	}
}
