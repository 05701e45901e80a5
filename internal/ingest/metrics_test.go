package ingest

import (
	"io"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/queue"
)

// Both ways of a single event, and a stream, are counted alike.
func TestWhatIsAcceptedIsTimedAndCountedByHelper(t *testing.T) {
	timed := make(chan time.Duration, 100)
	s := serve(t, Options{Observe: func(took time.Duration) { timed <- took }})
	for _, body := range []string{created("e1"), created("e2"), `{"event":"entry.created"}`, "nonsense"} {
		resp, _ := s.raw(t, post(body))
		if good := resp.StatusCode == 202; good != strings.Contains(body, "helper") {
			t.Errorf("%s was answered %d", body, resp.StatusCode)
		}
	}
	s.raw(t, post(created("e3"), "X-Other: 1")) // net/http's
	c := s.stream(t)
	c.send(created("e4") + "\nnonsense\n")
	c.finish()
	if _, err := io.ReadAll(c.in); err != nil {
		t.Fatal(err)
	}
	if n := len(timed); n != 4 {
		t.Errorf("%d times were told, want one of each accepted event and group", n)
	}
	for range len(timed) {
		if took := <-timed; took <= 0 {
			t.Errorf("an event took %v", took)
		}
	}
	m := s.Metrics()
	want := map[string]int64{}
	for helper := range s.o.Catalog().Helpers {
		want[helper] = 0
	}
	want["expenses"] = 4
	if !maps.Equal(m.AcceptedBy, want) || m.Accepted != 4 {
		t.Errorf("%d accepted, %v; want %v", m.Accepted, m.AcceptedBy, want)
	}
}

func TestWhatTheStoreRefusesIsNotTimed(t *testing.T) {
	s := serve(t, Options{Gate: func() error { return queue.ErrStopped }, Observe: func(time.Duration) { t.Error("a refusal was timed") }})
	if resp, _ := s.raw(t, post(created("e1"))); resp.StatusCode != 503 {
		t.Errorf("answered %d", resp.StatusCode)
	}
	if n := s.Metrics().AcceptedBy["expenses"]; n != 0 {
		t.Errorf("%d accepted", n)
	}
}
