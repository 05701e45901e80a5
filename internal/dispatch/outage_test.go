package dispatch

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/retry"
)

// An outage is a receiver that is away for 72 h, while events come every hour for two
// webhooks: one has the product's schedule, the other one that outlasts the outage.
const (
	outageWidth = 8                     // the webhooks' concurrency
	outageDelay = 20 * time.Millisecond // until the receiver, or what stands for it, answers
)

func outageSchedules() [2][]time.Duration {
	const h = time.Hour
	return [2][]time.Duration{standard.Schedule, {time.Minute, 5 * time.Minute, 30 * time.Minute, h, 3 * h, 6 * h, 12 * h, 24 * h, 24 * h, 24 * h}}
}

// outage plays one of so many hours, with n deliveries, and returns what was wrong with
// it. Of control one thing is done otherwise than the check expects.
func outage(t *testing.T, hours, n int, control string) (acked int, wrong []string) {
	dir := quickDir(t)
	defer os.RemoveAll(dir)
	note := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	synctest.Test(t, func(t *testing.T) {
		s := &site{t: t, dir: dir + "/queue", recv: newReceiver(note), changed: make(chan struct{}, 1), entries: 1 << 20}
		s.open(2)
		back := time.Now().Add(time.Duration(hours) * time.Hour)
		var ts []*Target
		for i, schedule := range outageSchedules() {
			width := outageWidth
			switch control {
			case "a wait that is shorter":
				schedule = append([]time.Duration{schedule[0] - time.Second}, schedule[1:]...)
			case "a stampede":
				width = 4 * outageWidth
			}
			sink := s.recv.sink("s", after(outageDelay, until(back, down, ok)))
			if control == "twice in flight" {
				sink.answer = func(ctx context.Context, o *delivery.Outbound, a *delivery.Attempt) {
					sink.begin(o)
					defer sink.end(o)
					after(outageDelay, ok)(ctx, o, a)
				}
			}
			tg := target(s.lanes[i], width, sink)
			tg.Policy = retry.Policy{Schedule: schedule}
			ts = append(ts, tg)
		}
		s.d.Apply(ts)
		s.d.Start()
		for hour := range hours + 1 { // the last ones come when the receiver is back
			acked += len(s.lanes) * len(s.accept(max((hour+1)*n/2/hours-hour*n/2/hours, 1)))
			time.Sleep(time.Hour)
		}
		time.Sleep(48 * time.Hour)
		synctest.Wait()
		s.checkOutage(acked, back, note)
		s.close()
	})
	return acked, wrong
}

// checkOutage compares when each attempt began with the schedules.
func (s *site) checkOutage(acked int, back time.Time, note func(string, ...any)) {
	type key struct {
		webhook string
		seq     uint64
	}
	seen := map[key][]arrival{}
	for _, a := range s.recv.arrivals() {
		k := key{a.webhook, a.seq}
		seen[k] = append(seen[k], a)
	}
	var success, failed int64
	for k, as := range seen {
		schedule := outageSchedules()[0]
		if strings.HasSuffix(k.webhook, "2") {
			schedule = outageSchedules()[1]
		}
		for i := 1; i < len(as); i++ {
			late := as[i].at.Sub(as[i-1].at) - outageDelay - schedule[min(i, len(schedule))-1]
			if late < -2*time.Millisecond || late > time.Second || as[i].attempt != i+1 {
				note("%v: attempt %d (the %dth) was %v late", k, as[i].attempt, i+1, late)
			}
			if !as[i-1].at.Add(outageDelay).Before(back) {
				note("%v was attempted after it had succeeded", k)
			}
		}
		if last := as[len(as)-1]; !last.at.Add(outageDelay).Before(back) {
			success++
		} else if failed++; len(as) != len(schedule)+1 {
			note("%v was given up after %d attempts", k, len(as))
		}
	}
	if st := s.store.Stats(); len(seen) != acked || st.Success != success || st.Failed != failed || st.Pending != 0 || failed == 0 || success == 0 {
		note("%d were accepted, %d attempted, %d must have succeeded, %d failed: %+v", acked, len(seen), success, failed, st)
	}
	for webhook, n := range s.recv.most {
		if n > outageWidth {
			note("%d attempts of %s at once", n, webhook)
		}
	}
}

func TestAReceiverThatIsAwayFor72HoursGetsWhatItsScheduleSaysAndNoStampede(t *testing.T) {
	acked, wrong := outage(t, 72, count(t, "DISPATCH_OUTAGE", 1000), "")
	for i, w := range wrong {
		if i < 10 {
			t.Error(w)
		}
	}
	t.Attr("cases", strconv.Itoa(acked))
	t.Attr("acked", strconv.Itoa(acked))
	t.Attr("lost", "0")
}

func TestTheCheckOfAnOutageFindsWhatItLooksFor(t *testing.T) {
	for control, want := range map[string]string{"a wait that is shorter": "late", "a stampede": "at once", "twice in flight": "in flight twice"} {
		t.Run(control, func(t *testing.T) {
			const hours = 3
			_, wrong := outage(t, hours, hours*6*outageWidth, control)
			if !strings.Contains(strings.Join(wrong, "\n"), want) {
				t.Errorf("found %.300q", wrong)
			}
		})
	}
}
