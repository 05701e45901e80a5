package queue

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/testhost"
)

const (
	crashDirEnv   = "QUEUE_CRASH_DIR"
	crashModeEnv  = "QUEUE_CRASH_MODE"
	crashKillsEnv = "QUEUE_CRASH_KILLS"

	// Modes of the child, beside the plain "".
	crashUnsynced = "unsynced" // acknowledges before the disk has it
	crashChurn    = "churn"    // days pass and are dropped, space is given back
	crashLeave    = "leave"    // a webhook leaves and returns, what it left behind expires
	crashState    = "state"    // sinks keep something for a few entries, which many events are about
)

// crashPayload is what the entry's id promises, so that a reader can check
// every byte.
func crashPayload(entry string) []byte {
	n := 40 + len(entry)*7
	if strings.HasSuffix(entry, "0") {
		n = 5000 // in the value log
	}
	return []byte(`{"entry":"` + entry + `","pad":"` + strings.Repeat(entry[len(entry)-1:], n) + `"}`)
}

// crashChild accepts and completes as fast as it can until it is killed, and
// prints what it was told is durable.
func crashChild(dir string) {
	if os.Getenv(crashModeEnv) == crashTour {
		crashTourist(dir)
		return
	}
	var mu sync.Mutex
	out := bufio.NewWriter(os.Stdout)
	die := func(err error) {
		fmt.Fprintln(os.Stderr, "child:", err)
		os.Exit(1)
	}
	work := make(chan Delivery, 1<<16)
	mode := os.Getenv(crashModeEnv)
	var later atomic.Int64
	inOrder := newOrderly(mode)
	began := time.Now()
	s, err := Open(context.Background(), Options{Dir: dir, stat: roomy, OnFatal: die, unsynced: mode == crashUnsynced,
		Retention:   Retention{Payloads: 24 * time.Hour, Delivered: 24 * time.Hour, Failed: 24 * time.Hour},
		RemovedKeep: time.Millisecond,
		elapsed:     func() time.Duration { return time.Since(began) + time.Duration(later.Load()) },
		OnChange:    inOrder.changed,
		OnReady: func(ds []Delivery) {
			for _, d := range ds {
				select {
				case work <- d:
				default:
					if mode == crashOrder {
						die(errors.New("the child cannot keep up, and would lose the order"))
					}
				}
			}
		}})
	if err != nil {
		die(err)
	}
	lanes, err := s.SetLanes(context.Background(), wants("expenses.a", "expenses.b"))
	if err != nil {
		die(err)
	}
	fmt.Println("READY")
	switch mode {
	case crashChurn:
		go s.churn(&later)
	case crashLeave:
		go s.comeAndGo()
	}
	if mode == crashOrder {
		inOrder.start(s, []Lane{lanes["expenses.a"].Lane, lanes["expenses.b"].Lane}, work)
	} else {
		go s.attempt(work, mode)
	}
	for w := range 8 {
		go func() {
			for n := 0; ; n++ {
				ev := testEvent(0, lanes["expenses.a"].Lane, lanes["expenses.b"].Lane)
				ev.EntryID = fmt.Sprintf("%d-%d-%d", os.Getpid(), w, n)
				if mode == crashState || mode == crashOrder {
					ev.EntryID, ev.Type = crashEntry(w, n)
				}
				ev.Payloads[FormatPeanuts] = crashPayload(ev.EntryID)
				if err := s.Accept(context.Background(), []*Event{ev}); err != nil || ev.Err != nil {
					die(fmt.Errorf("%w %w", err, ev.Err))
				}
				mu.Lock()
				fmt.Fprintln(out, ev.Seq, ev.EntryID)
				out.Flush()
				mu.Unlock()
			}
		}()
	}
	select {}
}

// attempt gives a delivery the outcome that its number asks for.
func (s *Store) attempt(work <-chan Delivery, mode string) {
	var success []Completion
	for d := range work {
		if mode == crashState && !stays(d.Seq) && d.Seq%5 != 2 {
			a := attemptOf(d, delivery.Success, 0)
			a.EntryState = crashStateOf(d.Seq)
			// Several at a time, as the outcomes of a batch come, in the order of acceptance.
			if success = append(success, Completion{Delivery: d, Attempt: a, Sink: crashSink}); d.Seq%3 == 0 || len(work) == 0 {
				s.CompleteAll(success)
				success = success[:0]
			}
			continue
		}
		switch d.Seq % 5 {
		case 0:
			continue // stays pending
		case 1:
			s.Complete(Completion{Delivery: d, Attempt: attemptOf(d, delivery.Pending, time.Hour)})
		case 2:
			s.Complete(Completion{Delivery: d, Attempt: attemptOf(d, delivery.Failed, 0)})
		default:
			s.Complete(Completion{Delivery: d, Attempt: attemptOf(d, delivery.Success, 0)})
		}
	}
}

// churn lets a day pass again and again, and has space given back and the
// compactors rest in between.
func (s *Store) churn(later *atomic.Int64) {
	tick := time.NewTicker(20 * time.Millisecond)
	for range tick.C {
		later.Add(int64(24 * time.Hour))
		err := s.do(context.Background(), func(*group) error {
			s.c.day.Reset(0)
			if !s.c.space.busy {
				s.c.space.churn, s.c.space.armed, s.c.space.last = spaceChurn, true, -quiet
				s.c.space.timer.Reset(0)
			}
			return nil
		})
		if err != nil || s.letRest() != nil {
			return
		}
	}
}

// comeAndGo removes one of the webhooks and brings it back, again and again.
func (s *Store) comeAndGo() {
	for n := 0; ; n++ {
		want := wants("expenses.a", "expenses.b")
		if n%2 == 0 {
			want = want[:1]
		}
		if n%5 == 0 {
			want[0].Identity = awayIdentity()
		}
		if _, err := s.SetLanes(context.Background(), want); err != nil {
			return
		}
		<-time.After(time.Duration(n%7) * time.Millisecond)
	}
}

// crashSink is the sink that keeps the states of the children.
const crashSink = "http"

// crashEntry is one of a few entries, and what happens to it.
func crashEntry(w, n int) (entry, typ string) {
	typ = "entry.updated"
	if n%11 == 10 {
		typ = entryDeleted
	}
	return fmt.Sprintf("0-0-%d", (w+n)%20), typ
}

// crashStateOf is what a sink wants to keep with the success of an event: nil,
// empty or something else.
func crashStateOf(seq uint64) []byte {
	switch seq % 7 {
	case 0:
		return nil
	case 1:
		return []byte{}
	}
	return fmt.Appendf(nil, "%d %s", seq, strings.Repeat("s", int(seq%3000)))
}

// states is what ought to be kept for the entries of a lane: what the successes
// that are durable said, in their order.
func (h *harness) crashStates(lane Lane) map[string]string {
	h.t.Helper()
	out := map[string]string{}
	var all []Summary
	for cursor, more := "", true; more; more = cursor != "" {
		var sums []Summary
		var err error
		if sums, cursor, err = h.List(ListQuery{Lanes: []Lane{lane}, States: []delivery.State{delivery.Success}, Limit: 1000, Cursor: cursor}); err != nil {
			h.t.Fatal(err)
		}
		all = append(all, sums...)
	}
	for _, sum := range slices.Backward(all) {
		switch state := crashStateOf(sum.Seq); {
		case len(state) > 0:
			out[sum.EntryID] = string(state)
		case state != nil || sum.EventType == entryDeleted:
			delete(out, sum.EntryID)
		}
	}
	return out
}

// What a sink keeps for an entry is, whenever the process is killed, what the last
// success said that is durable. Entries are few and events many, so it is compared
// after each kill.
func TestTheStatesOfEntriesFitTheirDeliveriesAfterAKill(t *testing.T) {
	dir := t.TempDir() + "/q"
	acked := map[uint64]string{}
	checked, kills, chance := 0, crashKills(), testhost.Chance(t)
	for range kills {
		killOnce(t, chance, dir, crashState, acked)
		h := &harness{t: t, opts: Options{Dir: dir, stat: roomy}}
		h.open()
		for _, lane := range h.lane("expenses.a", "expenses.b") {
			want := h.crashStates(lane)
			for n := range 20 {
				entry := fmt.Sprintf("0-0-%d", n)
				if got := h.state(lane, crashSink, entry); got != want[entry] {
					t.Errorf("lane %d: entry %s has %.20q, the last success said %.20q", lane, entry, got, want[entry])
				}
			}
			checked += len(want)
		}
		h.close()
	}
	settle(t, dir, acked, everything)
	t.Logf("%d acknowledged events, %d states compared", len(acked), checked)
	testhost.Cases(t, kills)
}

// stays reports whether the child leaves the deliveries of an event pending.
func stays(seq uint64) bool { return seq%5 < 2 }

// A process is killed at random in the middle of accepting and completing;
// what it had acknowledged is in exactly one state each afterwards, with the
// bytes that were accepted.
func TestNothingAcknowledgedIsLostByKill(t *testing.T) {
	killAll(t, "", func(*harness) bool { return true })
}

// The same while what a webhook left behind expires: the transactions in which
// deliveries end, and those in which the webhook leaves and returns, are met.
func TestNothingIsLostByKillWhileWebhooksComeAndGo(t *testing.T) {
	killAll(t, crashLeave, func(h *harness) bool {
		failed, _, err := h.List(ListQuery{States: []delivery.State{delivery.Failed}, Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(failed, func(s Summary) bool { return s.Code == delivery.CodeRemoved })
	})
}

// crashKills is how often a child is killed.
func crashKills() int {
	if n, err := strconv.Atoi(os.Getenv(crashKillsEnv)); err == nil {
		return n
	}
	if testing.Short() {
		return 2
	}
	return 10
}

// killAll kills a child in the given mode again and again, until enough happened
// as well, and compares what is left with what was acknowledged.
func killAll(t *testing.T, mode string, enough func(*harness) bool) {
	t.Helper()
	kills, chance := crashKills(), testhost.Chance(t)
	dir := t.TempDir() + "/q"
	acked := map[uint64]string{}
	for n := 0; n < kills; n++ {
		killOnce(t, chance, dir, mode, acked)
		if n < kills-1 {
			continue
		}
		h := &harness{t: t, opts: Options{Dir: dir, stat: roomy}}
		h.open()
		if !enough(h) {
			kills++ // the machine is slow
		}
		h.close()
		if n > 1000 {
			t.Fatal("the case that is meant never came up")
		}
	}
	settle(t, dir, acked, everything)
	t.Logf("%d kills, %d acknowledged events", kills, len(acked))
	testhost.Cases(t, kills)
}

// crashRun is a child that is at work.
type crashRun struct {
	t     *testing.T
	cmd   *exec.Cmd
	lines *bufio.Scanner
}

func startCrashChild(t *testing.T, dir, mode string) *crashRun {
	t.Helper()
	c := &crashRun{t: t, cmd: exec.Command(os.Args[0])}
	c.cmd.Env = append(os.Environ(), crashDirEnv+"="+dir, crashModeEnv+"="+mode)
	c.cmd.Stderr = os.Stderr
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c.lines = bufio.NewScanner(out)
	if !c.lines.Scan() || c.lines.Text() != "READY" {
		c.cmd.Process.Kill()
		c.cmd.Wait()
		t.Fatalf("child did not start: %q", c.lines.Text())
	}
	return c
}

// follow lets end work on the child after a while, and notes what the child
// acknowledged until it was gone.
func (c *crashRun) follow(acked map[uint64]string, after time.Duration, end func()) {
	c.t.Helper()
	var twice []string
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		<-time.After(after)
		end()
	}()
	for c.lines.Scan() {
		number, entry, ok := strings.Cut(c.lines.Text(), " ")
		seq, err := strconv.ParseUint(number, 10, 64)
		if !ok || err != nil || strings.Count(entry, "-") != 2 || entry[len(entry)-1] == '-' {
			continue // the line that the kill cut
		}
		if other, dup := acked[seq]; dup {
			twice = append(twice, fmt.Sprintf("sequence number %d was given to %q and %q", seq, other, entry))
			continue
		}
		acked[seq] = entry
	}
	<-ended
	c.cmd.Wait() // killed: the error is expected
	for _, problem := range twice[:min(len(twice), 5)] {
		c.t.Error(problem)
	}
}

func killOnce(t *testing.T, chance *rand.Rand, dir, mode string, acked map[uint64]string) {
	t.Helper()
	c := startCrashChild(t, dir, mode)
	before := len(acked)
	c.follow(acked, time.Duration(chance.IntN(250)+5)*time.Millisecond, func() { c.cmd.Process.Kill() })
	if len(acked) == before {
		t.Log("killed before the first acknowledgement")
	}
}
