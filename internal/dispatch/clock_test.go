package dispatch

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
	"github.com/peanutsapp/peanuts-relay/internal/retry"
)

// clocked is a site whose wall clock is set while deliveries of every kind are there:
// of the first webhook one that waits for a retry, of the second one that is held, of
// the third one that has succeeded.
type clocked struct {
	*site
	skew  atomic.Int64
	begin time.Time
	wrong []string
	key   *queue.Event
}

func (c *clocked) note(format string, args ...any) {
	c.wrong = append(c.wrong, fmt.Sprintf(format, args...))
}

// start opens the store and lets it deliver.
func (c *clocked) start(hold delivery.HoldReason) {
	c.open(3)
	var ts []*Target
	for i, lane := range c.lanes {
		t := target(lane, 2, c.recv.sink("s", []answer{down, ok, ok}[i]))
		t.Policy = retry.Policy{Schedule: standard.Schedule}
		if i == 1 {
			t.Hold = hold
		}
		ts = append(ts, t)
	}
	c.d.Apply(ts)
	c.d.Start()
}

// keyed hands in the event with the key, for all three webhooks.
func (c *clocked) keyed() *queue.Event {
	ev := &queue.Event{Helper: "test", Type: "entry.created", EntryID: "e", IdempotencyKey: "once", BodyHash: [16]byte{1}, Timestamp: time.Now()}
	ev.Payloads[queue.FormatPeanuts] = []byte(`{"n":0}`)
	for _, l := range c.lanes {
		ev.Deliveries = append(ev.Deliveries, queue.NewDelivery{Lane: l})
	}
	if err := c.store.Accept(context.Background(), []*queue.Event{ev}); err != nil || ev.Err != nil {
		c.note("accept: %v %v", err, ev.Err)
	}
	return ev
}

// check looks at everything that a clock could have touched.
func (c *clocked) check(when string) {
	if again := c.keyed(); !again.Duplicate || again.Seq != c.key.Seq {
		c.note("%s the idempotency key is forgotten: %+v", when, again)
	}
	for seq := uint64(1); seq <= c.key.Seq; seq++ {
		if ev, err := c.store.Event(seq); err != nil || string(ev.Payloads[queue.FormatPeanuts]) != `{"n":0}` {
			c.note("%s the payload of event %d is gone: %v", when, seq, err)
		}
		for _, lane := range c.lanes {
			if _, err := c.store.Summary(lane, seq); err != nil {
				c.note("%s the delivery %d of lane %d is gone: %v", when, seq, lane, err)
			}
		}
	}
	if st := c.store.Stats(); st.Deliveries != st.Success+st.Failed+st.Pending || st.Deliveries != 3*int64(c.key.Seq) {
		c.note("%s the store counts %+v", when, st)
	}
}

// clockCase sets the wall clock to each of the jumps in turn, 20 s apart, either under
// a running store or while it is closed, and returns what was delayed beyond the
// schedule, dropped or wiped. spoil, unless it is nil, does after each what no clock may.
func clockCase(t *testing.T, jumps []time.Duration, restart bool, spoil func(*clocked)) []string {
	dir := quickDir(t)
	defer os.RemoveAll(dir)
	c := &clocked{}
	synctest.Test(t, func(t *testing.T) {
		c.site = &site{t: t, dir: dir + "/queue", recv: newReceiver(c.note), changed: make(chan struct{}, 1),
			wall: func() time.Time { return time.Now().Round(0).Add(time.Duration(c.skew.Load())) }}
		c.start(delivery.HoldDisabled)
		c.begin = time.Now()
		c.key = c.keyed()
		for _, jump := range jumps {
			time.Sleep(20 * time.Second)
			if restart {
				c.close()
			}
			c.skew.Store(int64(jump))
			if restart {
				c.start(delivery.HoldDisabled)
			}
			if spoil != nil {
				spoil(c)
			}
			synctest.Wait()
			c.check(fmt.Sprintf("after %v", jump))
		}
		time.Sleep(37 * time.Minute)
		c.checkTimes(restart)
		c.close()
		c.start("") // what was held is let go
		time.Sleep(time.Minute)
		c.check("at the end")
		if st := c.store.Stats(); st.Success != 2 || st.Failed != 1 || st.Pending != 0 {
			c.note("at the end the store counts %+v", st)
		}
		c.close()
	})
	return c.wrong
}

// checkTimes compares the attempts with the schedule: none may be late. A start with a
// clock far ahead may bring one forward, by a day at most.
func (c *clocked) checkTimes(early bool) {
	want := []time.Duration{0, time.Minute, 6 * time.Minute, 36 * time.Minute}
	n := 0
	for _, a := range c.recv.arrivals() {
		if a.webhook != "test.w1" {
			continue
		}
		if late := a.at.Sub(c.begin) - want[min(n, len(want)-1)]; late >= time.Second || (late < 0 && !early) {
			c.note("attempt %d came %v late", a.attempt, late)
		}
		n++
	}
	if n != len(want) {
		c.note("%d attempts, want %d", n, len(want))
	}
}

func clockJumps() [][]time.Duration {
	const year = 365 * 24 * time.Hour
	return [][]time.Duration{{year}, {-year}, {year, 0}, {-year, 0}, {year, -year}, {-year, year}, {year, year}, {-year, -year},
		{year, 2 * year, 3 * year}, {36 * time.Hour, year, 0}}
}

func TestAWallClockAYearOffDelaysDropsAndWipesNothing(t *testing.T) {
	cases := 0
	for _, jumps := range clockJumps() {
		for _, restart := range []bool{false, true} {
			cases++
			t.Run(fmt.Sprintf("%v restart %v", jumps, restart), func(t *testing.T) {
				for _, w := range clockCase(t, jumps, restart, nil) {
					t.Error(w)
				}
			})
		}
	}
	t.Attr("cases", strconv.Itoa(cases))
	t.Attr("acked", strconv.Itoa(3*cases))
	t.Attr("lost", "0")
}

// What a clock could do is done by hand, and the check must see it.
func TestTheCheckOfTheClockFindsWhatItLooksFor(t *testing.T) {
	for name, spoil := range map[string]func(*clocked){
		"time that stands still": func(c *clocked) { c.d.Pause(delivery.HoldStorage) },
		"a delivery that is dropped": func(c *clocked) {
			if err := c.d.Drop(context.Background(), c.lanes[1], c.key.Seq); err != nil {
				c.t.Error(err)
			}
		},
		"a key that is forgotten": func(c *clocked) { c.key.Seq++ },
	} {
		t.Run(name, func(t *testing.T) {
			if wrong := clockCase(t, clockJumps()[0], false, spoil); len(wrong) == 0 {
				t.Error("nothing was found")
			}
		})
	}
}
