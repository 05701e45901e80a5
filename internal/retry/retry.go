// Package retry decides what follows an attempt. It is the only place that
// knows the response table and the schedule.
//
// Guarantee: [Decide] is a pure function of the policy, the attempt and the
// number of tries. Every attempt gets a state and the name of the rule that
// decided. A delivery is attempted at most len(Schedule)+1 times per schedule;
// what a receiver asks for can only lengthen a wait, and by no more than
// [MaxRetryAfter]; no value that a receiver or a sink supplies overflows
// anything.
package retry

import (
	"slices"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/planted"
)

// MaxRetryAfter caps the wait that a receiver may ask for with Retry-After, or
// a sink with a rate limit.
const MaxRetryAfter = time.Hour

// Policy is how one webhook retries. It is immutable and may be shared.
type Policy struct {
	// Schedule is the wait before each retry, counted from the end of the
	// failure before it. Empty: one attempt and no retry.
	Schedule []time.Duration
	// AlsoOn lists the HTTP status codes that are retried although the response
	// table calls them final.
	AlsoOn []int
	// Timeout bounds one attempt; 0 leaves the choice to the caller.
	Timeout time.Duration
}

// Decide fills in Rule, State and NextIn of a. tries is the number of counted
// attempts of the schedule under way, this one included; less than 1 is taken
// as 1. crashes is how often the sink's process died with the delivery, and
// matters to [delivery.Crashed] alone, which it includes. An attempt that does
// not count (see [Counts]) stays Pending without a time: when it goes on is a
// matter of its lane.
func Decide(p *Policy, a *delivery.Attempt, tries, crashes int) {
	a.NextIn = 0
	switch a.Outcome {
	case delivery.Delivered:
		a.State, a.Rule = delivery.Success, delivery.RuleDelivered
	case delivery.Skipped:
		a.State, a.Rule = delivery.Success, delivery.RuleSkipped
	case delivery.RateLimited:
		a.State, a.Rule = delivery.Pending, delivery.RuleRateLimited
	case delivery.Misconfigured:
		a.State, a.Rule = delivery.Pending, delivery.RuleMisconfigured
	case delivery.Interrupted:
		a.State, a.Rule = delivery.Pending, delivery.RuleInterrupted
	case delivery.Crashed:
		a.State, a.Rule = delivery.Pending, delivery.RuleCrashed
		if crashes >= delivery.MaxCrashes {
			a.State, a.Rule, a.Code = delivery.Failed, delivery.RulePoison, delivery.CodePluginCrash
		}
	case delivery.Rejected:
		if a.Code == delivery.CodeStatus && (planted.RetryOf4xx || slices.Contains(p.AlsoOn, a.Status)) {
			again(p, a, tries, delivery.RuleAlsoOn)
			return
		}
		a.State, a.Rule = delivery.Failed, rejectedRule(a)
	default: // Retry, and what a sink left unsaid: losing it would be worse
		again(p, a, tries, retryRule(a))
	}
}

// Counts reports whether an attempt, as it was decided, uses up a try or ends
// the delivery.
func Counts(a *delivery.Attempt) bool {
	if a.State != delivery.Pending {
		return true
	}
	switch a.Outcome {
	case delivery.RateLimited, delivery.Misconfigured, delivery.Interrupted, delivery.Crashed:
		return false
	}
	return true
}

func again(p *Policy, a *delivery.Attempt, tries int, rule delivery.Rule) {
	tries = max(tries, 1)
	if tries > len(p.Schedule) {
		a.State, a.Rule = delivery.Failed, delivery.RuleExhausted
		return
	}
	a.State, a.Rule = delivery.Pending, rule
	a.NextIn = max(p.Schedule[tries-1], 0)
	if heedsRetryAfter(a.Status) {
		a.NextIn = max(a.NextIn, min(a.RetryAfter, MaxRetryAfter))
	}
}

// heedsRetryAfter reports whether the wait asked for counts. RFC 9110 section
// 10.2.3 defines Retry-After for 503 and RFC 6585 section 4 for 429. Status 0
// is a sink that speaks no HTTP: it asks only on purpose.
func heedsRetryAfter(status int) bool {
	return status == 429 || status == 503 || status == 0
}

func rejectedRule(a *delivery.Attempt) delivery.Rule {
	switch {
	case a.Code == delivery.CodeRedirect:
		return delivery.RuleRedirect
	case a.Code == delivery.CodeDamaged:
		return delivery.RuleDamaged
	case a.Code == delivery.CodeStatus && a.Status >= 400 && a.Status < 500:
		return delivery.RuleClientError
	}
	return delivery.RuleRejected
}

func retryRule(a *delivery.Attempt) delivery.Rule {
	switch a.Code {
	case delivery.CodeStatus:
		if a.Status >= 500 && a.Status < 600 {
			return delivery.RuleServerError
		}
	case delivery.CodeTimeout, delivery.CodeDNS, delivery.CodeConnect, delivery.CodeTLS,
		delivery.CodeConnection, delivery.CodeProtocol, delivery.CodeProxy:
		return delivery.RuleNetwork
	}
	return delivery.RuleSinkRetry
}
