package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/adminclient"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
	"github.com/peanutsapp/peanuts-relay/internal/testhost"
)

const crashSecret = "0123456789abcdef01234567"

const crashTime = "2025-01-15T14:32:00.000Z"

// largeEvents is the number from which events are nearly as large as they may be.
const largeEvents = 1_000_000

// poisonEvents is the number from which events kill the process of a plugin of the zoo.
const poisonEvents = 2_000_000

// crashData is what event n says, in the form in which it is also sent. Every
// seventeenth is large enough for the value log.
func crashData(n int) string {
	size := n % 90
	if n%17 == 0 {
		size += 5000
	}
	zoo := ""
	switch {
	case n >= poisonEvents:
		zoo = `,"zoo":"kill"`
	case n >= largeEvents:
		size += 900 << 10
	}
	return fmt.Sprintf(`{"n":%d,"pad":"%s"%s}`, n, strings.Repeat(string(rune('a'+n%26)), size), zoo)
}

// crashEntry is the entry that event n is about: five events one after the other
// are about the same.
func crashEntry(n int) int { return n - n%5 }

// crashRequest is event n as a program hands it in.
func crashRequest(n int) string {
	return fmt.Sprintf(`{"id":"own-%[1]d","event":"entry.created","helper":"crash","timestamp":%[2]q,"entry":{"id":"n-%[4]d","created_at":%[2]q,"data":%[3]s}}`,
		n, crashTime, crashData(n), crashEntry(n))
}

// crashPayload is event n as every attempt must send it.
func crashPayload(n int) string {
	return fmt.Sprintf(`{"event":"entry.created","timestamp":%[2]q,"helper":{"id":"crash","name":"Crash","command":""},"entry":{"id":"n-%[4]d","data":%[3]s,"created_at":%[2]q}}`,
		n, crashTime, crashData(n), crashEntry(n))
}

// answer is what the events socket says about an event.
type answer struct {
	ID         string
	Duplicate  bool
	Deliveries []struct{ ID, Webhook string }
}

// ledger is what was acknowledged, by number of the event.
type ledger struct {
	mu    sync.Mutex // guards the rest
	acked map[int]answer
	wrong []string
	told  int // of the acknowledged events those that an account was given of
}

func newLedger() *ledger { return &ledger{acked: map[int]answer{}} }

func (l *ledger) complain(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wrong = append(l.wrong, fmt.Sprintf(format, args...))
}

// tell gives account of the events that were acknowledged since the last time. The
// caller holds the lock.
func (l *ledger) tell(t *testing.T, lost int) {
	t.Helper()
	testhost.Account(t, len(l.acked)-l.told, lost)
	l.told = len(l.acked)
}

func (l *ledger) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acked)
}

// send hands in event n once. It returns the status, 0 when there was no
// answer.
func (s *site) send(ctx context.Context, l *ledger, n int) int {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://relay/v1/events", strings.NewReader(crashRequest(n)))
	if err != nil {
		return 0
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.client.Do(req)
	if err != nil {
		return 0
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		return 0
	}
	if resp.StatusCode != http.StatusAccepted && resp.StatusCode != http.StatusOK {
		return resp.StatusCode
	}
	if err := l.bookAnswer(n, body); err != nil {
		l.complain("event %d: answer %q: %v", n, body, err)
	}
	return resp.StatusCode
}

// bookAnswer is book for an answer as it came.
func (l *ledger) bookAnswer(n int, body []byte) error {
	var a answer
	if err := json.Unmarshal(body, &a); err != nil {
		return err
	}
	l.book(n, a)
	return nil
}

// book notes that event n was acknowledged.
func (l *ledger) book(n int, a answer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	first, known := l.acked[n]
	if known && (!a.Duplicate || a.ID != first.ID || !slices.Equal(a.Deliveries, first.Deliveries)) {
		l.wrong = append(l.wrong, fmt.Sprintf("event %d was acknowledged as %v and again as %v", n, first, a))
	}
	a.Duplicate = false
	l.acked[n] = a
}

// flood sends events from many senders, each again and again until it is
// acknowledged, until the returned function is called.
func (s *site) flood(l *ledger, next *atomic.Int64, senders int) (stop func()) {
	quit := make(chan struct{})
	var all sync.WaitGroup
	for range senders {
		all.Go(func() {
			for {
				select {
				case <-quit:
					return
				default:
				}
				s.persist(l, int(next.Add(1)), quit)
			}
		})
	}
	return func() { close(quit); all.Wait() }
}

// persist sends event n until it is acknowledged. After quit it goes on: the
// daemon that will be there must take it.
func (s *site) persist(l *ledger, n int, quit <-chan struct{}) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		switch status := s.send(ctx, l, n); {
		case status == http.StatusAccepted || status == http.StatusOK:
			return
		case status == http.StatusConflict || status == http.StatusBadRequest || status == http.StatusUnprocessableEntity:
			l.complain("event %d was refused with %d", n, status)
			return
		}
		select {
		case <-ctx.Done():
			l.complain("event %d was not acknowledged within %v", n, patience)
			return
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// senders has n goroutines send again and again, a little apart, until stop is called.
func senders(n int, send func(quit <-chan struct{})) (stop func()) {
	quit := make(chan struct{})
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			for {
				select {
				case <-quit:
					return
				case <-time.After(3 * time.Millisecond):
				}
				send(quit)
			}
		})
	}
	return func() { close(quit); all.Wait() }
}

// answers waits until events are answered with status.
func (s *site) answers(l *ledger, next *atomic.Int64, status int) {
	s.t.Helper()
	got := 0
	until(s.t, fmt.Sprintf("an answer of %d", status), func() bool {
		got = s.send(s.t.Context(), l, int(next.Add(1)))
		return got == status
	})
}

// arrival is what a receiver saw of one delivery.
type arrival struct {
	n        int
	webhook  string
	attempts int
	accepted int // answered 2xx
	hashes   map[[32]byte]bool
}

// receiver takes deliveries, verifies them and counts them by id.
type receiver struct {
	*httptest.Server
	mu    sync.Mutex // guards the rest
	seen  map[string]*arrival
	wrong []string
	total int
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{seen: map[string]*arrival{}}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

// crashWebhooks has one of every fate: delivered, delivered at the second
// attempt, refused for good, waiting for a retry.
func crashWebhooks(r *receiver) string {
	return fmt.Sprintf(`      ok: {url: "%[1]s/ok"}
      flaky: {url: "%[1]s/flaky", ordering: entry, retry: {schedule: [20ms, 50ms, 100ms]}}
      gone: {url: "%[1]s/gone"}
      later: {url: "%[1]s/later", concurrency: 2, retry: {schedule: [1h]}}
`, r.URL)
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return // the sender was killed in the middle
	}
	status, attempt := http.StatusOK, req.Header.Get("X-Peanuts-Attempt")
	var entry struct {
		Entry struct{ Data struct{ N int } }
	}
	err = json.Unmarshal(body, &entry)
	n := entry.Entry.Data.N
	switch req.URL.Path {
	case "/flaky":
		if attempt == "1" && n%3 == 0 {
			status = http.StatusServiceUnavailable
		}
	case "/gone":
		status = http.StatusGone
	case "/later":
		status = http.StatusServiceUnavailable
	}
	mac := hmac.New(sha256.New, []byte(crashSecret))
	mac.Write(body)
	r.mu.Lock()
	defer r.mu.Unlock()
	id := req.Header.Get("X-Peanuts-Delivery")
	if want := "sha256=" + hex.EncodeToString(mac.Sum(nil)); err != nil || req.Header.Get("X-Peanuts-Signature") != want {
		r.wrong = append(r.wrong, fmt.Sprintf("delivery %s: signature %q, want %q: %v", id, req.Header.Get("X-Peanuts-Signature"), want, err))
	}
	a := r.seen[id]
	if a == nil {
		a = &arrival{n: n, webhook: "crash." + strings.TrimPrefix(req.URL.Path, "/"), hashes: map[[32]byte]bool{}}
		r.seen[id] = a
	}
	a.attempts++
	r.total++
	a.hashes[sha256.Sum256(body)] = true
	if status == http.StatusOK {
		a.accepted++
	}
	w.WriteHeader(status)
}

// account compares what was acknowledged with what arrived and with what the
// daemon says about it. It returns what does not fit, and how many
// deliveries are lost.
func account(acked map[int]answer, seen map[string]*arrival, listed map[string]rest.Delivery, webhooks int) (wrong []string, lost int) {
	add := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	ids := map[string]string{} // event and webhook -> delivery
	once := func(n int, webhook, id string) {
		key := strconv.Itoa(n) + " " + webhook
		if other := ids[key]; other != "" && other != id {
			add("event %s is delivered as %s and as %s", key, other, id)
		}
		ids[key] = id
	}
	for _, n := range slices.Sorted(maps.Keys(acked)) {
		if got := len(acked[n].Deliveries); got != webhooks {
			add("event %d was acknowledged with %d deliveries", n, got)
		}
		for _, d := range acked[n].Deliveries {
			once(n, d.Webhook, d.ID)
			row, ok := listed[d.ID]
			a := seen[d.ID]
			switch {
			case !ok:
				lost++
				add("event %d: delivery %s to %s is lost", n, d.ID, d.Webhook)
			case row.Status == rest.StatusSuccess && (a == nil || a.accepted == 0):
				lost++
				add("event %d: delivery %s to %s is a success that nobody received", n, d.ID, d.Webhook)
			case row.Status == rest.StatusFailed && a == nil:
				lost++
				add("event %d: delivery %s to %s failed without an attempt: %s", n, d.ID, d.Webhook, row.Error)
			}
		}
	}
	for id, a := range seen {
		once(a.n, a.webhook, id)
		if len(a.hashes) != 1 {
			add("delivery %s came with %d different payloads", id, len(a.hashes))
		}
		if !a.hashes[sha256.Sum256([]byte(crashPayload(a.n)))] {
			add("delivery %s of event %d came with other bytes than were handed in", id, a.n)
		}
	}
	return wrong, lost
}

// listing is every delivery that the daemon knows, by id.
func (s *site) listing() map[string]rest.Delivery {
	s.t.Helper()
	out := map[string]rest.Delivery{}
	for d, err := range s.admin.AllDeliveries(s.t.Context(), adminclient.DeliveryQuery{Limit: 1000}) {
		if err != nil {
			s.t.Fatal(err)
		}
		if other, twice := out[d.ID]; twice {
			s.t.Errorf("delivery %s is listed as %s and as %s", d.ID, other.Status, d.Status)
		}
		out[d.ID] = d
	}
	return out
}

// settle waits until nothing is due any more: what is left waits for "later".
func (s *site) settle() {
	s.t.Helper()
	until(s.t, "all deliveries to settle", func() bool {
		st, err := s.admin.Status(s.t.Context())
		if err != nil {
			s.t.Fatal(err)
		}
		quiet := st.Replays == 0
		for _, l := range st.Webhooks {
			quiet = quiet && l.Counts.InFlight == 0 && (l.Counts.Pending == 0 || l.Webhook == "crash.later")
		}
		return quiet && st.Queue.OldestPendingAt.IsZero()
	})
}

// check settles accounts and reports everything that is wrong.
func (s *site) check(l *ledger, r *receiver, webhooks int) {
	s.t.Helper()
	listed := s.listing()
	l.mu.Lock()
	defer l.mu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	wrong, lost := account(l.acked, r.seen, listed, webhooks)
	wrong = append(append(wrong, l.wrong...), r.wrong...)
	for _, problem := range wrong[:min(len(wrong), 20)] {
		s.t.Error(problem)
	}
	s.t.Logf("%d events acknowledged, %d deliveries listed, %d attempts received, %d lost", len(l.acked), len(listed), r.total, lost)
	l.tell(s.t, lost)
}

func TestTheAccountReportsWhatIsWrong(t *testing.T) {
	type state struct {
		acked  map[int]answer
		seen   map[string]*arrival
		listed map[string]rest.Delivery
	}
	sound := func() state {
		st := state{map[int]answer{}, map[string]*arrival{}, map[string]rest.Delivery{}}
		for n := 1; n <= 3; n++ {
			id := fmt.Sprintf("del_%d", n)
			st.acked[n] = answer{ID: fmt.Sprintf("own-%d", n), Deliveries: []struct{ ID, Webhook string }{{id, "crash.ok"}}}
			st.seen[id] = &arrival{n: n, webhook: "crash.ok", attempts: 1, accepted: 1, hashes: map[[32]byte]bool{sha256.Sum256([]byte(crashPayload(n))): true}}
			st.listed[id] = rest.Delivery{ID: id, Status: rest.StatusSuccess}
		}
		return st
	}
	for name, c := range map[string]struct {
		spoil func(*state)
		want  string
		lost  int
	}{
		"nothing":                   {func(*state) {}, "", 0},
		"not in the log":            {func(s *state) { delete(s.listed, "del_2") }, "is lost", 1},
		"not received":              {func(s *state) { delete(s.seen, "del_2") }, "nobody received", 1},
		"received, never accepted":  {func(s *state) { s.seen["del_2"].accepted = 0 }, "nobody received", 1},
		"failed without an attempt": {func(s *state) { s.listed["del_2"] = rest.Delivery{Status: rest.StatusFailed}; delete(s.seen, "del_2") }, "without an attempt", 1},
		"a webhook is missing":      {func(s *state) { s.acked[2] = answer{} }, "with 0 deliveries", 0},
		"two payloads":              {func(s *state) { s.seen["del_2"].hashes[[32]byte{}] = true }, "2 different payloads", 0},
		"other bytes":               {func(s *state) { s.seen["del_2"].hashes = map[[32]byte]bool{{}: true} }, "other bytes", 0},
		"two ids":                   {func(s *state) { s.seen["del_9"] = s.seen["del_2"] }, "delivered as", 0},
	} {
		t.Run(name, func(t *testing.T) {
			st := sound()
			c.spoil(&st)
			wrong, lost := account(st.acked, st.seen, st.listed, 1)
			if lost != c.lost || (c.want == "") != (len(wrong) == 0) || !strings.Contains(strings.Join(wrong, "\n"), c.want) {
				t.Errorf("%d lost, %q", lost, wrong)
			}
		})
	}
}

// The bytes that the accounts are settled with are those that the program
// hands in, so that a mistake here cannot hide one there.
func TestTheExpectedPayloadSaysWhatWasSent(t *testing.T) {
	var in struct {
		Entry struct{ Data json.RawMessage }
	}
	if err := json.Unmarshal([]byte(crashRequest(17)), &in); err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains([]byte(crashPayload(17)), in.Entry.Data) {
		t.Error("the payload is about something else")
	}
}
