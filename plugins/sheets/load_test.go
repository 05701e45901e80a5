package main

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/peanutsapp/peanuts-relay/plugins/sheets/sheetstest"
	"github.com/peanutsapp/peanuts-relay/sinks"
)

// host sends what the relay would: batches as they fill up, at the sink's pace, again
// after a failure, and nothing of an entry before what came before it.
type host struct {
	t       *testing.T
	w       *world
	s       *sink
	open    func() *sink
	batches int
}

// send gets everything through, and says how long it took. trouble is asked before
// every batch; kill means that the process dies in the middle of it.
func (h *host) send(ds []*sinks.Delivery, size int, trouble func(batch int) (what sheetstest.Failure, kill bool)) time.Duration {
	begin := time.Now()
	pace := time.Duration(float64(time.Second) / h.w.plugin.Capabilities.MaxPerSecond)
	for len(ds) > 0 {
		batch := ds[:min(size, len(ds))]
		what, kill := trouble(h.batches)
		h.batches++
		if what != "" {
			h.w.google.Fail(sheetstest.Write, what)
		}
		ctx, cancel := context.WithCancel(h.t.Context())
		if kill {
			time.AfterFunc(5*time.Second, cancel) // the request is out, the answer is not in
		}
		results, err := h.s.DeliverBatch(ctx, batch)
		cancel()
		if kill {
			h.w.google.Settle()
			h.w.restart()
			h.s = h.open()
			time.Sleep(time.Second)
			continue // nobody had an answer
		}
		if err != nil {
			h.t.Fatal(err)
		}
		done, wait := 0, pace
		for i, r := range results {
			switch v := sinks.VerdictOf(r.Err); v.Outcome {
			case sinks.OutcomeDelivered, sinks.OutcomeSkipped:
				if done != i {
					h.t.Fatalf("%s went through and an earlier one did not", batch[i].ID)
				}
				done++
			case sinks.OutcomeRateLimited:
				wait = max(wait, v.After)
			case sinks.OutcomeRetry:
				wait = max(wait, time.Minute)
			default:
				h.t.Fatalf("%s: %v: %v", batch[i].ID, v.Outcome, v.Error())
			}
		}
		ds = ds[done:]
		time.Sleep(wait)
	}
	return time.Since(begin)
}

// troubles are one batch in five.
func troubles(batch int) (sheetstest.Failure, bool) {
	switch batch % 25 {
	case 4:
		return sheetstest.Quota, false
	case 9:
		return sheetstest.HangAfter, false
	case 14:
		return sheetstest.HangAfter, true
	case 19:
		return sheetstest.HangBefore, true
	case 24:
		return sheetstest.ResetAfter, false
	}
	return "", false
}

// quotaHeld checks that no minute had more calls than Google allows, those that it
// refused included.
func (h *host) quotaHeld() {
	h.t.Helper()
	if n := busiest(h.w.google.Calls(sheetstest.Write)); n > perMinute {
		h.t.Errorf("%d writes in a minute", n)
	}
	if n := busiest(h.w.google.Calls(sheetstest.Read)); n > perMinute {
		h.t.Errorf("%d reads in a minute", n)
	}
}

func newHost(t *testing.T, change ...func(*Settings)) *host {
	h := &host{t: t, w: newWorld(t)}
	h.open = func() *sink { return h.w.open(change...) }
	h.s = h.open()
	return h
}

func TestFiveThousandEntriesAreFiveThousandRows(t *testing.T) {
	for _, size := range []int{maxBatch, 40} {
		t.Run(fmt.Sprint("batches of ", size), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHost(t)
				m := &model{onDelete: remove, rows: map[string]*modelRow{}}
				var ds []*sinks.Delivery
				for n := 1; n <= 5000; n++ {
					d := event(n, sinks.Created, fmt.Sprintf("entry-%04d", n), map[string]any{"amount": float64(n) / 4, "category": "=Food", "no": fmt.Sprintf("%03d", n)})
					ds = append(ds, d)
					m.apply(d)
				}
				took := h.send(ds, size, troubles)
				h.quotaHeld()
				v, _ := h.w.google.Look("Expenses")
				if wrong := m.differences(v); len(wrong) > 0 || len(v.Cells) != 5001 {
					t.Errorf("%d rows; %d differences, the first %.200q", len(v.Cells), len(wrong), wrong[:min(1, len(wrong))])
				}
				t.Logf("5,000 entries in batches of %d, with a failure in every fifth: %v, %d reads, %d writes", size, took.Round(time.Second),
					len(h.w.google.Calls(sheetstest.Read)), len(h.w.google.Calls(sheetstest.Write)))
			})
		})
	}
}

func TestUpdatesAndDeletionsLandOnTheRightRows(t *testing.T) {
	for _, onDelete := range []string{remove, mark} {
		t.Run(onDelete, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHost(t, func(s *Settings) { s.OnDelete = onDelete })
				m := &model{onDelete: onDelete, rows: map[string]*modelRow{}}
				var ds []*sinks.Delivery
				for n := 1; n <= 5000; n++ {
					// 2,000 entries; each third is updated, each fifth is deleted, in between others.
					entry, kind := n, sinks.Created
					switch {
					case n > 4000:
						entry, kind = (n-4000)*2, sinks.Deleted
					case n > 2000:
						entry, kind = (n*7)%2000+1, sinks.Updated
					}
					d := event(n, kind, fmt.Sprint("entry-", entry), map[string]any{"n": n, "text": "=1"})
					ds = append(ds, d)
					m.apply(d)
				}
				for i := 0; i < len(ds); i += 700 { // somebody works in the sheet
					h.send(ds[i:min(i+700, len(ds))], 100, troubles)
					h.w.google.Sort("Expenses", i/700%4, i%2 == 0)
					h.w.google.InsertRow("Expenses", 1+i/100)
					if i == 1400 {
						h.w.google.MoveColumn("Expenses", 0, 3)
					}
				}
				h.quotaHeld()
				v, _ := h.w.google.Look("Expenses")
				if wrong := m.differences(v); len(wrong) > 0 {
					t.Errorf("%d differences, the first %.200q", len(wrong), wrong[0])
				}
			})
		})
	}
}
