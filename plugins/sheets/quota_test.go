package main

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/peanutsapp/peanuts-relay/plugins/sheets/sheetstest"
	"github.com/peanutsapp/peanuts-relay/sinks"
)

// busiest is the largest number of calls within any minute.
func busiest(calls []sheetstest.Call) int {
	most := 0
	for i := range calls {
		n := 0
		for _, c := range calls[i:] {
			if c.At.Sub(calls[i].At) < time.Minute {
				n++
			}
		}
		most = max(most, n)
	}
	return most
}

func TestTheLimiterAllowsSixtyInAnyMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l limiter
		for i := range perMinute {
			if wait := l.take(perMinute); wait != 0 {
				t.Fatalf("place %d: wait %v", i, wait)
			}
			time.Sleep(500 * time.Millisecond)
		}
		if wait := l.take(perMinute); wait != 30*time.Second {
			t.Errorf("wait %v, want 30 s, until the first is a minute old", wait)
		}
		time.Sleep(30 * time.Second)
		if wait := l.take(perMinute); wait != 0 {
			t.Errorf("wait %v", wait)
		}
		if wait := l.take(perMinute); wait != 500*time.Millisecond {
			t.Errorf("wait %v, want 500 ms", wait)
		}
		l.pause(90 * time.Second)
		if wait := l.full(perMinute); wait != 90*time.Second {
			t.Errorf("wait %v after a pause", wait)
		}
		if l.idle() {
			t.Error("idle")
		}
		time.Sleep(2 * time.Minute)
		if !l.idle() {
			t.Error("not idle")
		}
	})
}

func TestWebhooksOfOneAccountShareItsQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.google.LimitCalls(1000) // Google would not mind: the plugin has to
		var wg sync.WaitGroup
		limited := make([]int, 3)
		for i := range limited {
			s := w.open(func(s *Settings) { s.Tab = fmt.Sprint("Tab ", i) })
			wg.Go(func() {
				for n := 1; n <= 60; {
					v := send(t, s, event(n, sinks.Created, fmt.Sprint("e", n), `{"n":1}`))[0]
					switch v.Outcome {
					case sinks.OutcomeDelivered:
						n++
					case sinks.OutcomeRateLimited:
						limited[i]++
						if v.After <= 0 || v.After > time.Minute {
							t.Errorf("a pause of %v", v.After)
							return
						}
						time.Sleep(v.After)
					default:
						t.Errorf("%v: %v", v.Outcome, v.Error())
						return
					}
				}
			})
		}
		wg.Wait()
		if n := busiest(w.google.Calls(sheetstest.Write)); n > perMinute {
			t.Errorf("%d writes in a minute", n)
		}
		if n := busiest(w.google.Calls(sheetstest.Read)); n > perMinute {
			t.Errorf("%d reads in a minute", n)
		}
		for i, n := range limited {
			if n == 0 {
				t.Errorf("webhook %d never had to wait", i)
			}
			if rows := len(w.rows(fmt.Sprint("Tab ", i))); rows != 60 {
				t.Errorf("webhook %d: %d rows", i, rows)
			}
		}
	})
}

func TestAReloadDoesNotMakeANewQuota(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		s := w.open()
		for n := 1; n <= perMinute/2; n++ {
			send(t, s, event(n, sinks.Created, fmt.Sprint("e", n), `{}`))
		}
		_ = s.Close()
		s = w.open()
		for n := perMinute; ; n++ {
			if send(t, s, event(n, sinks.Created, fmt.Sprint("e", n), `{}`))[0].Outcome == sinks.OutcomeRateLimited {
				break
			}
			if n > 3*perMinute {
				t.Fatal("no limit")
			}
		}
		if n := busiest(w.google.Calls(sheetstest.Read)); n > perMinute {
			t.Errorf("%d reads in a minute", n)
		}
	})
}

func TestWhatGoogleSaysOfTheQuotaHoldsForAllWebhooksOfTheAccount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, b := w.open(), w.open(func(s *Settings) { s.Tab = "Other" })
		w.google.Fail(sheetstest.Write, sheetstest.Quota)
		want(t, a, sinks.OutcomeRateLimited, event(1, sinks.Created, "a", `{}`))
		calls := len(w.google.Calls(sheetstest.Read)) + len(w.google.Calls(sheetstest.Write))
		want(t, b, sinks.OutcomeRateLimited, event(2, sinks.Created, "a", `{}`))
		if n := len(w.google.Calls(sheetstest.Read)) + len(w.google.Calls(sheetstest.Write)); n != calls {
			t.Errorf("%d calls during the pause", n-calls)
		}
		time.Sleep(76 * time.Second)
		want(t, b, sinks.OutcomeDelivered, event(2, sinks.Created, "a", `{}`))
	})
}

func TestOneWriterAtATimeForASpreadsheet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, b := w.open(), w.open(func(s *Settings) { s.Tab = "Other" })
		if a.book != b.book {
			t.Fatal("two books for one spreadsheet")
		}
		w.google.Fail(sheetstest.Write, sheetstest.HangBefore)
		var wg sync.WaitGroup
		wg.Go(func() { want(t, a, sinks.OutcomeRetry, event(1, sinks.Created, "a", `{}`)) })
		time.Sleep(time.Second)
		begin := time.Now()
		want(t, b, sinks.OutcomeDelivered, event(2, sinks.Created, "a", `{}`))
		if waited := time.Since(begin); waited < 28*time.Second {
			t.Errorf("it waited %v only", waited)
		}
		wg.Wait()
	})
}

func TestWebhooksOfDifferentSpreadsheetsDoNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		a, b := w.open(), w.open(func(s *Settings) { s.Spreadsheet = "1another-one-that-there-is-not" })
		w.google.Fail(sheetstest.Write, sheetstest.HangBefore)
		var wg sync.WaitGroup
		wg.Go(func() { want(t, a, sinks.OutcomeRetry, event(1, sinks.Created, "a", `{}`)) })
		time.Sleep(time.Second)
		begin := time.Now()
		want(t, b, sinks.OutcomeMisconfigured, event(2, sinks.Created, "a", `{}`)) // asked, and not found
		if waited := time.Since(begin); waited != 0 {
			t.Errorf("it waited %v", waited)
		}
		wg.Wait()
	})
}

func TestAProjectWithALargerQuotaCanUseIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.google.LimitCalls(1000)
		s := w.open(func(s *Settings) { s.CallsPerMinute = 100 })
		n := 1
		for ; send(t, s, event(n, sinks.Created, fmt.Sprint("e", n), `{}`))[0].Outcome == sinks.OutcomeDelivered; n++ {
		}
		if reads := len(w.google.Calls(sheetstest.Read)); reads != 100 {
			t.Errorf("%d reads, want 100", reads)
		}
	})
}
