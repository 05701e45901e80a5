package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/peanutsapp/peanuts-relay/plugins/slack/slacktest"
	"github.com/peanutsapp/peanuts-relay/sinks"
)

// persist delivers as the relay does: again after a pause, until it is not told to pause.
func persist(t *testing.T, sink sinks.Sink, d *sinks.Delivery) error {
	for range 1000 {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		_, err := sink.Deliver(ctx, d)
		cancel()
		v := sinks.VerdictOf(err)
		if v.Outcome != sinks.OutcomeRateLimited {
			return err
		}
		time.Sleep(v.After)
	}
	return fmt.Errorf("paused a thousand times")
}

// TestOneMessageASecondAndChannel: several webhooks share a token and a channel, which
// some call by its name. The service refuses what comes faster.
func TestOneMessageASecondAndChannel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := workspace(slacktest.Options{})
		p := newPacer(time.Second)
		settings := []string{botSettings, `{"token":"` + botToken + `","channel":"general"}`, botSettings, botSettings, botSettings, botSettings}
		// The first message tells that the name and the id are one channel.
		if err := persist(t, connectTo(t, s, p, botSettings), of(sinks.Created, `{"n":0}`)); err != nil {
			t.Fatal(err)
		}
		settings = append(settings, `{"token":"`+botToken+`","channel":"`+general+`"}`)
		var wg sync.WaitGroup
		for i, one := range settings {
			sink := connectTo(t, s, p, one)
			wg.Go(func() {
				for j := range 10 {
					if err := persist(t, sink, of(sinks.Created, fmt.Sprintf(`{"webhook":%d,"n":%d}`, i, j))); err != nil {
						t.Error(err)
					}
				}
			})
		}
		begun := time.Now()
		wg.Wait()
		if n := len(s.Messages(general)); n != 71 {
			t.Errorf("%d messages", n)
		}
		if took := time.Since(begun); took > 2*70*time.Second {
			t.Errorf("70 messages took %v", took)
		}
		for _, c := range s.Calls() {
			if c.Status != 200 || c.Error != "" {
				t.Errorf("%s: %d %s: the sink was too fast", c.Method, c.Status, c.Error)
			}
		}
	})
}

func TestChannelsDoNotWaitForEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := workspace(slacktest.Options{})
		p := newPacer(time.Second)
		begun := time.Now()
		for i := range 20 {
			id := fmt.Sprintf("C0%d", i)
			s.SetChannel(slacktest.Channel{ID: id})
			deliver(t, connectTo(t, s, p, `{"token":"`+botToken+`","channel":"`+id+`"}`), of(sinks.Created, lunch), nil)
		}
		deliver(t, connectTo(t, s, p, hookSettings), of(sinks.Created, lunch), nil)
		if took := time.Since(begun); took != 0 {
			t.Errorf("took %v", took)
		}
	})
}

// TestEditsStayWithinTheirTier: 50 a minute for all channels, although each channel
// would take 60.
func TestEditsStayWithinTheirTier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := workspace(slacktest.Options{})
		p := newPacer(time.Second)
		sink := connectTo(t, s, p, botSettings)
		_, state := deliver(t, sink, of(sinks.Created, lunch), nil)
		for i := range 120 {
			d := of(sinks.Updated, fmt.Sprintf(`{"n":%d}`, i))
			d.State = state
			if err := persist(t, sink, d); err != nil {
				t.Fatal(err)
			}
		}
		for _, c := range s.Calls() {
			if c.Error != "" {
				t.Errorf("%s: %s", c.Method, c.Error)
			}
		}
		if m := only(t, s); m.Edits != 120 {
			t.Errorf("%d edits", m.Edits)
		}
	})
}

func TestWhoeverWouldWaitLongIsPausedAndClaimsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPacer(time.Second)
		for i := range 4 { // at 0, 1, 2 and 3 s
			go func() { _ = p.take(t.Context(), nil, slot{"channel", time.Second}) }()
			synctest.Wait()
			_ = i
		}
		err := p.take(t.Context(), nil, slot{"channel", time.Second})
		if v := sinks.VerdictOf(err); v.Outcome != sinks.OutcomeRateLimited || v.After != 4*time.Second {
			t.Errorf("%v %v", v.After, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		time.Sleep(1500 * time.Millisecond) // the turn after next is in 2.5 s
		ctx2, cancel2 := context.WithTimeout(t.Context(), time.Second)
		defer cancel2()
		if err := p.take(ctx2, nil, slot{"channel", time.Second}); sinks.VerdictOf(err).Outcome != sinks.OutcomeRateLimited {
			t.Errorf("beyond the deadline: %v", err)
		}
		if err := p.take(ctx, nil, slot{"channel", time.Second}); err == nil {
			t.Error("an attempt that is over went on")
		}
		begun := time.Now()
		if err := p.take(t.Context(), nil, slot{"channel", time.Second}); err != nil || time.Since(begun) != 2500*time.Millisecond {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
	})
}

// TestAPauseThatSlackAsksForHoldsAllWebhooksOfTheChannel: the others are told to wait as
// long; the one that asked is paused by the relay, and tries when it is called.
func TestAPauseThatSlackAsksForHoldsAllWebhooksOfTheChannel(t *testing.T) {
	for _, c := range []struct{ settings, method string }{{botSettings, postMessage}, {hookSettings, hookPath}} {
		synctest.Test(t, func(t *testing.T) {
			s := workspace(slacktest.Options{})
			p := newPacer(time.Second)
			one, other := connectTo(t, s, p, c.settings), connectTo(t, s, p, c.settings)
			s.Break(slacktest.Fault{Method: c.method, Status: 429, RetryAfter: "30", Error: "ratelimited"})
			if _, err := one.Deliver(t.Context(), of(sinks.Created, lunch)); sinks.VerdictOf(err).After != 30*time.Second {
				t.Errorf("%v", err)
			}
			calls := len(s.Calls())
			_, err := other.Deliver(t.Context(), of(sinks.Created, lunch))
			if v := sinks.VerdictOf(err); v.Outcome != sinks.OutcomeRateLimited || v.After != 30*time.Second {
				t.Errorf("%v %v", v.After, err)
			}
			if n := strings.Count(fmt.Sprint(methods(s)), c.method); n != 1 || len(s.Calls()) > calls+1 {
				t.Errorf("%d calls: %s", n, methods(s))
			}
			time.Sleep(time.Second)
			if _, err := one.Deliver(t.Context(), of(sinks.Created, lunch)); err != nil {
				t.Errorf("the webhook that was told: %v", err)
			}
			time.Sleep(29 * time.Second)
			if _, err := other.Deliver(t.Context(), of(sinks.Created, lunch)); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAnAttemptThatIsInterruptedWhileItWaitsEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPacer(time.Second)
		if err := p.take(t.Context(), nil, slot{"channel", time.Second}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(100*time.Millisecond, cancel)
		begun := time.Now()
		if err := p.take(ctx, nil, slot{"channel", time.Second}); err == nil || time.Since(begun) != 100*time.Millisecond {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
	})
}

func TestKeysOfThePastAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPacer(time.Second)
		for i := range 10 * maxKeys {
			if err := p.take(t.Context(), nil, slot{fmt.Sprint(i), time.Second}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		if len(p.free) > maxKeys {
			t.Errorf("%d keys", len(p.free))
		}
	})
}
