package queue

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
)

const (
	crashDirEnv   = "QUEUE_CRASH_DIR"
	crashKillsEnv = "QUEUE_CRASH_KILLS"
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
	var mu sync.Mutex
	out := bufio.NewWriter(os.Stdout)
	die := func(err error) {
		fmt.Fprintln(os.Stderr, "child:", err)
		os.Exit(1)
	}
	work := make(chan Delivery, 1<<16)
	s, err := Open(context.Background(), Options{Dir: dir, stat: roomy, OnFatal: die,
		OnReady: func(ds []Delivery) {
			for _, d := range ds {
				select {
				case work <- d:
				default:
				}
			}
		}})
	if err != nil {
		die(err)
	}
	lanes, err := s.EnsureLanes(context.Background(), []string{"expenses.a", "expenses.b"})
	if err != nil {
		die(err)
	}
	fmt.Println("READY")
	go func() {
		for d := range work {
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
	}()
	for w := range 8 {
		go func() {
			for n := 0; ; n++ {
				ev := testEvent(0, lanes["expenses.a"], lanes["expenses.b"])
				ev.EntryID = fmt.Sprintf("%d-%d-%d", os.Getpid(), w, n)
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

// A process is killed at random in the middle of accepting and completing;
// what it had acknowledged is in exactly one state each afterwards, with the
// bytes that were accepted.
func TestNothingAcknowledgedIsLostByKill(t *testing.T) {
	kills := 10
	if testing.Short() {
		kills = 2
	}
	if n, err := strconv.Atoi(os.Getenv(crashKillsEnv)); err == nil {
		kills = n
	}
	dir := t.TempDir() + "/q"
	acked := map[uint64]string{}
	for range kills {
		killOnce(t, dir, acked)
	}
	h := &harness{t: t, opts: Options{Dir: dir, stat: roomy}}
	h.open()
	defer h.close()
	h.sound()
	lanes := h.lane("expenses.a", "expenses.b")
	for _, lane := range lanes {
		listed := 0
		cursor := ""
		seen := map[uint64]bool{}
		for {
			sums, next, err := h.List(ListQuery{Lanes: []Lane{lane}, Limit: 1000, Cursor: cursor})
			if err != nil {
				t.Fatal(err)
			}
			for _, sum := range sums {
				if seen[sum.Seq] {
					t.Fatalf("delivery %d of lane %d is in two states", sum.Seq, lane)
				}
				seen[sum.Seq] = true
				listed++
				if entry, ok := acked[sum.Seq]; ok && entry != sum.EntryID {
					t.Fatalf("event %d: entry %q became %q", sum.Seq, entry, sum.EntryID)
				}
			}
			if cursor = next; next == "" {
				break
			}
		}
		for seq := range acked {
			if !seen[seq] {
				t.Errorf("acknowledged event %d has no delivery on lane %d", seq, lane)
			}
		}
		if st := h.Stats(); int64(listed)*2 != st.Deliveries {
			t.Errorf("lane %d lists %d deliveries, the ledger has %d over two lanes", lane, listed, st.Deliveries)
		}
	}
	for seq, entry := range acked {
		r, err := h.Event(seq)
		if err != nil {
			t.Fatalf("event %d: %v", seq, err)
		}
		if string(r.Payloads[FormatPeanuts]) != string(crashPayload(entry)) {
			t.Fatalf("event %d: payload changed", seq)
		}
	}
	t.Logf("%d kills, %d acknowledged events", kills, len(acked))
}

func killOnce(t *testing.T, dir string, acked map[uint64]string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crashDirEnv+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "READY" {
		cmd.Process.Kill()
		cmd.Wait()
		t.Fatalf("child did not start: %q", lines.Text())
	}
	timer := time.AfterFunc(time.Duration(rand.IntN(250)+5)*time.Millisecond, func() { cmd.Process.Kill() })
	defer timer.Stop()
	before := len(acked)
	for lines.Scan() {
		number, entry, ok := strings.Cut(lines.Text(), " ")
		seq, err := strconv.ParseUint(number, 10, 64)
		if !ok || err != nil || !strings.Contains(entry, "-") {
			continue // the line that the kill cut
		}
		if other, dup := acked[seq]; dup {
			t.Fatalf("sequence number %d was given to %q and %q", seq, other, entry)
		}
		acked[seq] = entry
	}
	cmd.Wait() // killed: the error is expected
	if len(acked) == before {
		t.Log("killed before the first acknowledgement")
	}
}
