package queue

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/testhost"
)

// everything is what must be kept when nothing may be dropped.
func everything(uint64) bool { return true }

// settle compares what a child left with what was acknowledged, and gives account of it.
func settle(t *testing.T, dir string, acked map[uint64]string, keep func(seq uint64) bool) {
	t.Helper()
	wrong := crashAccount(t, dir, acked, keep)
	for _, problem := range wrong {
		t.Error(problem)
	}
	testhost.Account(t, len(acked), lostIn(wrong))
}

// lostIn counts the lines of an account that tell of a loss.
func lostIn(wrong []string) (n int) {
	for _, problem := range wrong {
		if strings.Contains(problem, "has no delivery") || strings.HasPrefix(problem, "event ") {
			n++
		}
	}
	return n
}

// The control of the kills: a child's sound store is compared with books that have an
// event more, and one with another entry, than the child acknowledged.
func TestTheAccountOfAKillNoticesWhatIsNotThere(t *testing.T) {
	dir := t.TempDir() + "/q"
	acked := map[uint64]string{}
	for chance := testhost.Chance(t); len(acked) == 0; {
		killOnce(t, chance, dir, "", acked)
	}
	if wrong := crashAccount(t, dir, acked, everything); len(wrong) != 0 {
		t.Fatalf("sound books: %q", wrong)
	}
	spoilt := maps.Clone(acked)
	spoilt[1<<40] = "1-1-1"
	if wrong := crashAccount(t, dir, spoilt, everything); lostIn(wrong) != 3 { // of two lanes, and its payload
		t.Errorf("an event that is not there: %q", wrong)
	}
	for seq := range acked {
		spoilt = maps.Clone(acked)
		spoilt[seq] += "0"
		break
	}
	if wrong := crashAccount(t, dir, spoilt, everything); lostIn(wrong) != 3 {
		t.Errorf("an event with another payload: %q", wrong)
	}
}

// crashAccount compares the store that a child left with what was acknowledged. Of
// what must not be kept only the ledger is checked.
func crashAccount(t *testing.T, dir string, acked map[uint64]string, keep func(seq uint64) bool) []string {
	t.Helper()
	return account(t, dir, func(h *harness, add complain) {
		listed := 0
		for _, lane := range h.lane("expenses.a", "expenses.b") {
			listed += h.matches(lane, acked, keep, add)
		}
		for seq, entry := range acked {
			if keep(seq) {
				h.hasPayload(seq, entry, add)
			}
		}
		if st := h.Stats(); keep(2) && int64(listed) != st.Deliveries {
			add("%d deliveries are listed, the ledger has %d", listed, st.Deliveries)
		}
	})
}

// complain notes what is wrong.
type complain func(format string, args ...any)

// account opens the store that a process left, has it checked by itself and by
// check, and returns what is wrong.
func account(t *testing.T, dir string, check func(h *harness, add complain)) (wrong []string) {
	t.Helper()
	add := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	h := &harness{t: t, opts: Options{Dir: dir, stat: roomy}}
	h.open()
	defer h.close()
	f, err := h.Verify(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	wrong = append(wrong, f.Problems...)
	if n := h.Stats().Quarantined; n != 0 {
		add("%d rows were set aside", n)
	}
	check(h, add)
	return wrong
}

// matches compares the log of a lane with what was acknowledged, and returns how
// many deliveries it has.
func (h *harness) matches(lane Lane, acked map[uint64]string, keep func(seq uint64) bool, add complain) (listed int) {
	h.t.Helper()
	seen := h.entries(lane)
	for seq, entry := range acked {
		if got, ok := seen[seq]; keep(seq) && !ok {
			add("acknowledged event %d has no delivery on lane %d", seq, lane)
		} else if ok && got != entry {
			add("event %d: entry %q became %q", seq, entry, got)
		}
	}
	return len(seen)
}

// hasPayload reports an event whose payload is not there, or is another.
func (h *harness) hasPayload(seq uint64, entry string, add complain) {
	if r, err := h.Event(seq); err != nil {
		add("event %d: %v", seq, err)
	} else if string(r.Payloads[FormatPeanuts]) != string(crashPayload(entry)) {
		add("event %d: payload changed", seq)
	}
}

// entries is the log of a lane: entries by sequence number.
func (h *harness) entries(lane Lane) map[uint64]string {
	h.t.Helper()
	out := map[uint64]string{}
	cursor := ""
	for {
		sums, next, err := h.List(ListQuery{Lanes: []Lane{lane}, Limit: 1000, Cursor: cursor})
		if err != nil {
			h.t.Fatal(err)
		}
		for _, sum := range sums {
			if _, twice := out[sum.Seq]; twice {
				h.t.Fatalf("delivery %d of lane %d is in two states", sum.Seq, lane)
			}
			out[sum.Seq] = sum.EntryID
		}
		if cursor = next; next == "" {
			return out
		}
	}
}
