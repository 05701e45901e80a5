package relay

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/adminclient"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

// orderedReceiver notes in which order the events of each entry come, and
// fails some of them.
type orderedReceiver struct {
	mu      sync.Mutex
	came    map[string][]int
	tries   map[string]int
	refuses bool // everything of entry e0
}

func (o *orderedReceiver) answer(w http.ResponseWriter, _ *http.Request, body string) {
	var p struct {
		Entry struct {
			ID   string
			Data struct{ N int }
		}
	}
	if err := json.Unmarshal([]byte(body), &p); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.came[p.Entry.ID] = append(o.came[p.Entry.ID], p.Entry.Data.N)
	key := fmt.Sprint(p.Entry.ID, p.Entry.Data.N)
	o.tries[key]++
	switch {
	case o.refuses && p.Entry.ID == "e0":
		w.WriteHeader(http.StatusBadGateway)
	case p.Entry.Data.N%7 == 3:
		w.WriteHeader(http.StatusGone) // failed for good
	case p.Entry.Data.N%3 == 0 && o.tries[key] < 3:
		w.WriteHeader(http.StatusServiceUnavailable)
	}
}

func (o *orderedReceiver) order(entry string) []int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.came[entry])
}

// update hands in the next event of an entry.
func (h *home) update(entry string, n int) {
	h.t.Helper()
	status, answer := h.post(fmt.Sprintf(`{"event":"entry.updated","helper":"expenses","entry":{"id":%q,"data":{"n":%d}}}`, entry, n))
	if status != http.StatusAccepted {
		h.t.Fatalf("the event was answered %d %s", status, answer)
	}
}

func TestEventsOfAnEntryArriveInOrderThroughFailuresAndARestart(t *testing.T) {
	o := &orderedReceiver{came: map[string][]int{}, tries: map[string]int{}, refuses: true}
	h, rc := newHome(t), receive(t, o.answer)
	rc.got = make(chan got, 10_000)
	text := helperWith(rc.URL, ", ordering: entry, retry: {schedule: [200ms, 200ms, 1h]}")
	d := h.start(text)
	const entries, each = 6, 12
	for n := range each {
		for e := range entries {
			h.update(fmt.Sprintf("e%d", e), n)
		}
		if n == each/2 {
			d.stop()
			d = h.start(text)
		}
	}
	// While everything of one entry fails, all of the others go through.
	left := await(t, "the end of all entries but one", func() (rest.DeliveryPage, error) {
		return d.Deliveries(t.Context(), adminclient.DeliveryQuery{Status: []string{rest.StatusPending, rest.StatusInFlight}, Limit: 100})
	}, func(p rest.DeliveryPage) bool {
		return len(p.Deliveries) == each && !slices.ContainsFunc(p.Deliveries, func(r rest.Delivery) bool { return r.EntryID != "e0" })
	})
	first, last := left.Deliveries[each-1], left.Deliveries[0]
	detail, err := d.Delivery(t.Context(), last.ID)
	if err != nil || detail.WaitsFor != first.ID || !strings.Contains(strings.Join(detail.Explanation, " "), "Waits for "+first.ID) {
		t.Errorf("the last waits for %q, want %s: %q, %v", detail.WaitsFor, first.ID, detail.Explanation, err)
	}
	o.mu.Lock()
	o.refuses = false
	o.mu.Unlock()
	if _, err := d.Retry(t.Context(), first.ID); err != nil { // it waits for an hour otherwise
		t.Fatal(err)
	}
	await(t, "the end of the last entry", func() (rest.DeliveryPage, error) {
		return d.Deliveries(t.Context(), adminclient.DeliveryQuery{Status: []string{rest.StatusPending, rest.StatusInFlight}})
	}, func(p rest.DeliveryPage) bool { return len(p.Deliveries) == 0 })
	for e := range entries {
		came := o.order(fmt.Sprintf("e%d", e))
		if distinct := slices.Compact(slices.Clone(came)); !slices.IsSorted(came) || len(distinct) != each {
			t.Errorf("entry %d came as %v", e, came)
		}
	}
	d.stop()
}
