package retry

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"pgregory.net/rapid"
)

var standard = Policy{Schedule: []time.Duration{time.Minute, 5 * time.Minute, 30 * time.Minute}}

func TestResponseTable(t *testing.T) {
	also := Policy{Schedule: standard.Schedule, AlsoOn: []int{408, 429}}
	two := Policy{Schedule: []time.Duration{2 * time.Hour}, AlsoOn: []int{429}}
	for _, row := range []struct {
		name   string
		policy Policy
		in     delivery.Attempt
		tries  int
		state  delivery.State
		rule   delivery.Rule
		next   time.Duration
	}{
		{"2xx", standard, delivery.Attempt{Outcome: delivery.Delivered, Status: 204}, 1, delivery.Success, delivery.RuleDelivered, 0},
		{"2xx on the last try", standard, delivery.Attempt{Outcome: delivery.Delivered, Status: 200}, 4, delivery.Success, delivery.RuleDelivered, 0},
		{"sink had nothing to do", standard, delivery.Attempt{Outcome: delivery.Skipped}, 1, delivery.Success, delivery.RuleSkipped, 0},
		{"3xx", standard, delivery.Attempt{Outcome: delivery.Rejected, Code: delivery.CodeRedirect, Status: 302}, 1, delivery.Failed, delivery.RuleRedirect, 0},
		{"3xx is not for also_on", Policy{Schedule: standard.Schedule, AlsoOn: []int{302}},
			delivery.Attempt{Outcome: delivery.Rejected, Code: delivery.CodeRedirect, Status: 302}, 1, delivery.Failed, delivery.RuleRedirect, 0},
		{"4xx", standard, delivery.Attempt{Outcome: delivery.Rejected, Code: delivery.CodeStatus, Status: 404}, 1, delivery.Failed, delivery.RuleClientError, 0},
		{"429 without also_on, Retry-After or not", standard,
			delivery.Attempt{Outcome: delivery.Rejected, Code: delivery.CodeStatus, Status: 429, RetryAfter: time.Hour}, 1, delivery.Failed, delivery.RuleClientError, 0},
		{"408 in also_on", also, delivery.Attempt{Outcome: delivery.Rejected, Code: delivery.CodeStatus, Status: 408}, 1, delivery.Pending, delivery.RuleAlsoOn, time.Minute},
		{"408 ignores Retry-After", also, delivery.Attempt{Outcome: delivery.Rejected, Code: delivery.CodeStatus, Status: 408, RetryAfter: 10 * time.Minute},
			1, delivery.Pending, delivery.RuleAlsoOn, time.Minute},
		{"429 in also_on lengthened", also, delivery.Attempt{Outcome: delivery.Rejected, Code: delivery.CodeStatus, Status: 429, RetryAfter: 10 * time.Minute},
			2, delivery.Pending, delivery.RuleAlsoOn, 10 * time.Minute},
		{"429 in also_on, never shortened", also, delivery.Attempt{Outcome: delivery.Rejected, Code: delivery.CodeStatus, Status: 429, RetryAfter: time.Second},
			3, delivery.Pending, delivery.RuleAlsoOn, 30 * time.Minute},
		{"429 in also_on, capped", also, delivery.Attempt{Outcome: delivery.Rejected, Code: delivery.CodeStatus, Status: 429, RetryAfter: math.MaxInt64},
			1, delivery.Pending, delivery.RuleAlsoOn, time.Hour},
		{"the cap does not shorten the schedule", two, delivery.Attempt{Outcome: delivery.Rejected, Code: delivery.CodeStatus, Status: 429, RetryAfter: math.MaxInt64},
			1, delivery.Pending, delivery.RuleAlsoOn, 2 * time.Hour},
		{"429 in also_on, last try", also, delivery.Attempt{Outcome: delivery.Rejected, Code: delivery.CodeStatus, Status: 429}, 4, delivery.Failed, delivery.RuleExhausted, 0},
		{"403 beside also_on", also, delivery.Attempt{Outcome: delivery.Rejected, Code: delivery.CodeStatus, Status: 403}, 1, delivery.Failed, delivery.RuleClientError, 0},
		{"forbidden address", standard, delivery.Attempt{Outcome: delivery.Rejected, Code: delivery.CodeForbiddenAddr}, 1, delivery.Failed, delivery.RuleRejected, 0},
		{"damaged payload", standard, delivery.Attempt{Outcome: delivery.Rejected, Code: delivery.CodeDamaged}, 1, delivery.Failed, delivery.RuleDamaged, 0},
		{"a sink refuses with its own word", standard, delivery.Attempt{Outcome: delivery.Rejected, Code: "no_text"}, 1, delivery.Failed, delivery.RuleRejected, 0},
		{"5xx", standard, delivery.Attempt{Outcome: delivery.Retry, Code: delivery.CodeStatus, Status: 500}, 1, delivery.Pending, delivery.RuleServerError, time.Minute},
		{"500 ignores Retry-After", standard, delivery.Attempt{Outcome: delivery.Retry, Code: delivery.CodeStatus, Status: 500, RetryAfter: time.Hour},
			1, delivery.Pending, delivery.RuleServerError, time.Minute},
		{"503 with Retry-After", standard, delivery.Attempt{Outcome: delivery.Retry, Code: delivery.CodeStatus, Status: 503, RetryAfter: 90 * time.Second},
			1, delivery.Pending, delivery.RuleServerError, 90 * time.Second},
		{"503 with a negative Retry-After", standard, delivery.Attempt{Outcome: delivery.Retry, Code: delivery.CodeStatus, Status: 503, RetryAfter: math.MinInt64},
			1, delivery.Pending, delivery.RuleServerError, time.Minute},
		{"second failure", standard, delivery.Attempt{Outcome: delivery.Retry, Code: delivery.CodeTimeout}, 2, delivery.Pending, delivery.RuleNetwork, 5 * time.Minute},
		{"third failure", standard, delivery.Attempt{Outcome: delivery.Retry, Code: delivery.CodeConnect}, 3, delivery.Pending, delivery.RuleNetwork, 30 * time.Minute},
		{"fourth failure", standard, delivery.Attempt{Outcome: delivery.Retry, Code: delivery.CodeDNS}, 4, delivery.Failed, delivery.RuleExhausted, 0},
		{"no schedule", Policy{}, delivery.Attempt{Outcome: delivery.Retry, Code: delivery.CodeTLS}, 1, delivery.Failed, delivery.RuleExhausted, 0},
		{"panic", standard, delivery.Attempt{Outcome: delivery.Retry, Code: delivery.CodePanic}, 1, delivery.Pending, delivery.RuleSinkRetry, time.Minute},
		{"a sink that speaks no HTTP asks for time", standard, delivery.Attempt{Outcome: delivery.Retry, Code: "busy", RetryAfter: 2 * time.Minute},
			1, delivery.Pending, delivery.RuleSinkRetry, 2 * time.Minute},
		{"unspecified outcome", standard, delivery.Attempt{}, 1, delivery.Pending, delivery.RuleSinkRetry, time.Minute},
		{"unknown outcome", standard, delivery.Attempt{Outcome: 99}, 4, delivery.Failed, delivery.RuleExhausted, 0},
		{"rate limited", standard, delivery.Attempt{Outcome: delivery.RateLimited, Status: 429, RetryAfter: time.Minute}, 1, delivery.Pending, delivery.RuleRateLimited, 0},
		{"rate limited on the last try", standard, delivery.Attempt{Outcome: delivery.RateLimited}, 4, delivery.Pending, delivery.RuleRateLimited, 0},
		{"misconfigured", standard, delivery.Attempt{Outcome: delivery.Misconfigured, Status: 410}, 4, delivery.Pending, delivery.RuleMisconfigured, 0},
		{"interrupted", standard, delivery.Attempt{Outcome: delivery.Interrupted, Code: delivery.CodeInterrupted}, 4, delivery.Pending, delivery.RuleInterrupted, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			a := row.in
			Decide(&row.policy, &a, row.tries, 1)
			if a.State != row.state || a.Rule != row.rule || a.NextIn != row.next {
				t.Errorf("got %v %q in %v, want %v %q in %v", a.State, a.Rule, a.NextIn, row.state, row.rule, row.next)
			}
		})
	}
}

func TestACrashIsNotCountedUntilTheThird(t *testing.T) {
	for crashes, want := range map[int]delivery.Attempt{
		1: {State: delivery.Pending, Rule: delivery.RuleCrashed},
		2: {State: delivery.Pending, Rule: delivery.RuleCrashed},
		3: {State: delivery.Failed, Rule: delivery.RulePoison, Code: delivery.CodePluginCrash},
		9: {State: delivery.Failed, Rule: delivery.RulePoison, Code: delivery.CodePluginCrash},
	} {
		a := delivery.Attempt{Outcome: delivery.Crashed, RetryAfter: time.Hour}
		Decide(&standard, &a, 4, crashes)
		if a.State != want.State || a.Rule != want.Rule || a.Code != want.Code || a.NextIn != 0 {
			t.Errorf("crash %d: %+v", crashes, a)
		}
		if Counts(&a) != (want.State == delivery.Failed) {
			t.Errorf("crash %d counts: %v", crashes, Counts(&a))
		}
	}
	for _, o := range []delivery.Outcome{delivery.Delivered, delivery.Retry, delivery.Rejected, delivery.RateLimited} {
		with, without := delivery.Attempt{Outcome: o}, delivery.Attempt{Outcome: o}
		Decide(&standard, &with, 1, 7)
		Decide(&standard, &without, 1, 0)
		if with.State != without.State || with.Rule != without.Rule {
			t.Errorf("former crashes decide what follows %v", o)
		}
	}
}

func TestWhatDecideFoundBeforeIsOverwritten(t *testing.T) {
	a := delivery.Attempt{Outcome: delivery.Delivered, State: delivery.Failed, Rule: delivery.RuleExhausted, NextIn: time.Hour}
	Decide(&standard, &a, 1, 1)
	if a.State != delivery.Success || a.Rule != delivery.RuleDelivered || a.NextIn != 0 {
		t.Errorf("left over: %v %q %v", a.State, a.Rule, a.NextIn)
	}
}

func anyPolicy(t *rapid.T) *Policy {
	return &Policy{
		Schedule: rapid.SliceOfN(rapid.Map(rapid.Int64Range(0, int64(24*time.Hour)), func(n int64) time.Duration { return time.Duration(n) }), 0, 6).Draw(t, "schedule"),
		AlsoOn:   rapid.SliceOfN(rapid.IntRange(400, 499), 0, 4).Draw(t, "also_on"),
	}
}

func anyAttempt(t *rapid.T) delivery.Attempt {
	return delivery.Attempt{
		Outcome:    delivery.Outcome(rapid.Uint8().Draw(t, "outcome") % 10),
		Status:     rapid.OneOf(rapid.SampledFrom([]int{0, 200, 301, 404, 408, 429, 500, 503}), rapid.Int()).Draw(t, "status"),
		Code:       rapid.SampledFrom([]delivery.Code{"", delivery.CodeStatus, delivery.CodeRedirect, delivery.CodeTimeout, delivery.CodePanic, "own"}).Draw(t, "code"),
		RetryAfter: time.Duration(rapid.Int64().Draw(t, "retry_after")),
	}
}

// What a receiver asks for changes neither the state nor the rule, never
// shortens the wait and lengthens it to at most an hour.
func TestRetryAfterOnlyLengthensAndIsCapped(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, a, tries := anyPolicy(t), anyAttempt(t), rapid.IntRange(-1, 8).Draw(t, "tries")
		with, without := a, a
		without.RetryAfter = 0
		Decide(p, &with, tries, 1)
		Decide(p, &without, tries, 1)
		if with.State != without.State || with.Rule != without.Rule {
			t.Fatalf("Retry-After changed the decision: %v %q and %v %q", with.State, with.Rule, without.State, without.Rule)
		}
		if with.NextIn < without.NextIn || with.NextIn > max(without.NextIn, MaxRetryAfter) {
			t.Fatalf("wait %v with Retry-After %v, %v without", with.NextIn, a.RetryAfter, without.NextIn)
		}
	})
}

// Whatever the receiver does, a delivery ends after at most len(schedule)+1
// counted attempts, each wait is the schedule's own when nobody asks for more,
// and every decision has a name.
func TestEveryDeliveryEndsAndEveryDecisionIsNamed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := anyPolicy(t)
		asks := rapid.Bool().Draw(t, "asks")
		tries, crashes := 0, 0
		for range 40 {
			a := anyAttempt(t)
			if !asks {
				a.RetryAfter = 0
			}
			if a.Outcome == delivery.Crashed {
				crashes++
			}
			Decide(p, &a, tries+1, crashes)
			if a.Rule == "" || a.State == 0 || a.NextIn < 0 {
				t.Fatalf("undecided: %+v", a)
			}
			if crashes >= delivery.MaxCrashes && a.State == delivery.Pending && a.Outcome == delivery.Crashed {
				t.Fatalf("%d crashes did not end it: %+v", crashes, a)
			}
			if !Counts(&a) {
				if a.State != delivery.Pending || a.NextIn != 0 {
					t.Fatalf("an uncounted attempt moved the delivery: %+v", a)
				}
				continue
			}
			tries++
			if a.State != delivery.Pending {
				if a.Outcome == delivery.Rejected && slices.Contains(p.AlsoOn, a.Status) && a.Code == delivery.CodeStatus && tries <= len(p.Schedule) {
					t.Fatalf("also_on %v did not retry %d", p.AlsoOn, a.Status)
				}
				break
			}
			if tries > len(p.Schedule) {
				t.Fatalf("retry after %d tries with %d in the schedule", tries, len(p.Schedule))
			}
			if !asks && a.NextIn != p.Schedule[tries-1] {
				t.Fatalf("wait %v, schedule says %v", a.NextIn, p.Schedule[tries-1])
			}
		}
		if tries > len(p.Schedule)+1 {
			t.Fatalf("%d attempts with a schedule of %d", tries, len(p.Schedule))
		}
	})
}
