package overhead

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
)

func TestMain(m *testing.M) {
	Play()
	goleak.VerifyTestMain(m)
}

func payload(n int) []byte {
	return fmt.Appendf(nil, `{"event":"entry.created","timestamp":"2025-01-15T10:30:00.000Z","helper":{"id":"bench","name":"Daily Expenses","command":"/expenses"},`+
		`"entry":{"id":"entry-%d","data":{"amount":42.5},"created_at":"2025-01-15T10:30:00.000Z"},"user":{"id":"user-1"}}`, n)
}

func TestAComparisonCountsEveryDeliveryAndLeavesNothing(t *testing.T) {
	for name, o := range map[string]Options{
		"a backlog":                {Deliveries: 230, Rounds: 2, Batch: 20},
		"events flow in":           {Deliveries: 90, Rounds: 1, Batch: 20, Flow: true},
		"four webhooks":            {Deliveries: 120, Rounds: 1, Webhooks: 4, Batch: 20},
		"each delivery on its own": {Deliveries: 50, Rounds: 1},
	} {
		t.Run(name, func(t *testing.T) {
			o.Dir, o.Payload = t.TempDir(), payload
			r, err := Run(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			if want := int64(3 * (o.Rounds + 1) * (o.Deliveries / max(1, o.Webhooks)) * max(1, o.Webhooks)); r.Deliveries != want {
				t.Errorf("%d deliveries, want %d", r.Deliveries, want)
			}
			for _, s := range []Side{r.Plugin, r.InProcess, r.Bare} {
				if len(s.PerSecond) != o.Rounds || s.Median <= 0 || s.CPU <= 0 {
					t.Errorf("side %+v", s)
				}
			}
			for _, x := range [][2]float64{{r.Ratio, r.Lowest}, {r.BareRatio, r.BareLowest}} {
				if x[0] <= 0 || x[1] <= 0 || x[1] > x[0] {
					t.Errorf("ratio %v, lowest %v", x[0], x[1])
				}
			}
			if left, err := os.ReadDir(o.Dir); err != nil || len(left) > 0 {
				t.Errorf("left: %v, %v", left, err)
			}
		})
	}
}

func TestAPluginThatCannotStartIsAnErrorAndLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	_, err := Run(t.Context(), Options{Dir: filepath.Join(dir, "missing"), Payload: payload})
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v", err)
	}
}

func TestADeliveryThatDoesNotAddUpIsAnError(t *testing.T) {
	l := &lab{o: Options{Deliveries: 3, Webhooks: 1}}
	done := queue.Change{Kind: queue.ChangeAttempt, State: delivery.Success}
	for name, row := range map[string]struct {
		changes []queue.Change
		sink    []uint64
		holds   bool
	}{
		"all":                 {[]queue.Change{done, done, done}, []uint64{1, 2, 3}, true},
		"a retry":             {[]queue.Change{done, done, {Kind: queue.ChangeAttempt, State: delivery.Pending}, done}, []uint64{1, 2, 3}, false},
		"a failure":           {[]queue.Change{done, done, {Kind: queue.ChangeAttempt, State: delivery.Failed}}, []uint64{1, 2, 3}, false},
		"the sink missed one": {[]queue.Change{done, done, done}, []uint64{1, 2}, false},
		"the sink got twice":  {[]queue.Change{done, done, done}, []uint64{1, 2, 3, 3}, false},
	} {
		t.Run(name, func(t *testing.T) {
			sink := &own{}
			for _, seq := range row.sink {
				sink.count(seq)
			}
			s := &site{l: l, all: make(chan struct{}), sinks: []counted{sink}}
			s.changed(row.changes)
			select {
			case <-s.all:
			case <-time.After(30 * time.Second):
				t.Fatal("the end was not seen")
			}
			if err := s.check(t.Context()); row.holds != (err == nil) || err != nil && !errors.Is(err, errMiscounted) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestTheMedianIsTheMiddle(t *testing.T) {
	for _, row := range []struct {
		v    []float64
		want float64
	}{{[]float64{3, 1, 2}, 2}, {[]float64{4, 1, 2, 3}, 2.5}, {[]float64{7}, 7}} {
		if got := median(row.v); got != row.want {
			t.Errorf("median of %v = %v", row.v, got)
		}
	}
}
