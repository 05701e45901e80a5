package api

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

// ruleText is the rule that decided after attempt t, as a sentence that says
// what the receiver or the sink did and how to have it otherwise.
func ruleText(t *delivery.Attempt) string {
	text := ruleSentence(t)
	if t.State == delivery.Pending && t.RetryAfter > 0 && t.NextIn > 0 {
		text += fmt.Sprintf("; it asked for %s with Retry-After, which can lengthen the wait up to 1h and never shortens it", t.RetryAfter)
	}
	return text
}

func ruleSentence(t *delivery.Attempt) string {
	what := happened(t)
	said := what + ": " // what the sink called it, if anything
	if t.Status == 0 && t.Code == "" {
		said = ""
	}
	switch t.Rule {
	case delivery.RuleDelivered:
		if t.Status == 0 {
			return "the sink says that it has arrived"
		}
		return what + ": the receiver accepted it"
	case delivery.RuleSkipped:
		return "the sink had nothing to do for this event, which counts as success"
	case delivery.RuleRedirect:
		return what + ": redirects are final and never followed, because a followed POST becomes an empty GET; set url to where it points"
	case delivery.RuleClientError:
		return fmt.Sprintf("%s: 4xx is final; add %d to retry.also_on to retry it", what, t.Status)
	case delivery.RuleAlsoOn:
		return fmt.Sprintf("%s: retried because retry.also_on lists %d", what, t.Status)
	case delivery.RuleServerError:
		return what + ": 5xx is retried"
	case delivery.RuleNetwork:
		return what + ": errors of the network are retried"
	case delivery.RuleSinkRetry:
		return said + "the sink asked for another attempt"
	case delivery.RuleRejected:
		if t.Code == delivery.CodeForbiddenAddr {
			return what + ": refused for good; if the address is meant, name its host or network in egress.allow"
		}
		return said + "refused for good"
	case delivery.RuleExhausted:
		return said + "it would be retried, but retry.schedule is used up"
	case delivery.RuleRateLimited:
		return said + "the sink asked the whole webhook to pause; no attempt is used up"
	case delivery.RuleMisconfigured:
		return said + "something has to be put right, in the settings or at the service, so the webhook is held and tried every 5 minutes and at each `peanuts-relay reload`; no attempt is used up"
	case delivery.RuleCrashed:
		return fmt.Sprintf("%s: it goes again at once and alone; no attempt is used up, but after %d such crashes it fails", what, delivery.MaxCrashes)
	case delivery.RulePoison:
		return fmt.Sprintf("%s, %d times: it is taken for the cause and not sent any more", what, delivery.MaxCrashes)
	case delivery.RuleInterrupted:
		return "the daemon stopped during the attempt, which is not counted"
	case delivery.RuleDamaged:
		return "the stored payload no longer matches its checksum, so it is not sent"
	case delivery.RuleDropped:
		return "an operator discarded it"
	}
	return what
}

// happened is what an attempt met, in few words.
func happened(t *delivery.Attempt) string {
	if t.Status != 0 && (t.Code == "" || t.Code == delivery.CodeStatus || t.Code == delivery.CodeRedirect) {
		return fmt.Sprintf("HTTP %d", t.Status)
	}
	switch t.Code {
	case "":
		return "the sink gave no code"
	case delivery.CodeTimeout:
		return "no complete answer within retry.timeout"
	case delivery.CodeDNS:
		return "the host name did not resolve"
	case delivery.CodeConnect:
		return "no connection could be made"
	case delivery.CodeTLS:
		return "the TLS handshake failed"
	case delivery.CodeConnection:
		return "the connection broke"
	case delivery.CodeProtocol:
		return "the answer was not HTTP or beyond the limits"
	case delivery.CodeForbiddenAddr:
		return "the host resolved to an address that must not be dialled"
	case delivery.CodeProxy:
		return "the proxy refused or failed"
	case delivery.CodePanic:
		return "the sink failed internally"
	case delivery.CodePluginCrash:
		return "the process of the sink died while it had the delivery"
	case delivery.CodePluginDown:
		return "the process of the sink was not ready, so nothing was sent"
	case delivery.CodeNoResult:
		return "the sink gave no usable result for the delivery"
	}
	return "error " + string(t.Code)
}

// brief is what a sink said, as it fits into a sentence.
func brief(text string) string {
	text, _, _ = strings.Cut(text, "\n")
	if runes := []rune(text); len(runes) > 200 {
		text = string(runes[:199]) + "…"
	}
	return text
}

// heldText says why a lane makes no attempts, and what ends that.
func heldText(l LaneState) string {
	switch l.Hold {
	case "":
		return ""
	case delivery.HoldDisabled:
		return "the webhook is disabled (enabled: false); its deliveries go on when it is enabled"
	case delivery.HoldRemoved:
		text := "the webhook is no longer in the configuration; its deliveries go on when its id returns, or can be dropped"
		if !l.HoldUntil.IsZero() {
			text += "; those that still wait at " + rest.At(l.HoldUntil).String() + " fail then"
		}
		return text
	case delivery.HoldReturned:
		return "the webhook came back with another sink or host while deliveries waited; they go on after `peanuts-relay enable`, or can be dropped"
	case delivery.HoldMisconfigured:
		text := "its sink says that something has to be put right, in its settings or at the service"
		if l.HoldWhy != "" {
			text += ": " + brief(l.HoldWhy)
		}
		text += "; it is tried again every 5 minutes and at each `peanuts-relay reload`"
		if !l.HoldUntil.IsZero() {
			text += ", next at " + rest.At(l.HoldUntil).String()
		}
		return text + ", and its deliveries go on when that succeeds"
	case delivery.HoldPluginDown:
		text := "its plugin is not ready"
		if l.HoldWhy != "" {
			text += ": " + brief(l.HoldWhy)
		}
		return text + "; its deliveries go on when the plugin is ready"
	case delivery.HoldRateLimited:
		return "its sink asked for a pause; its deliveries go on by themselves"
	case delivery.HoldStorage:
		return "the disk is nearly full, so that outcomes could not be recorded; its deliveries go on when there is room"
	}
	return string(l.Hold)
}

// explain says why a delivery is where it is and what comes next.
func (v *view) explain(s *queue.Summary, d *rest.DeliveryDetail, attempts []delivery.Attempt) []string {
	var last *delivery.Attempt
	if len(attempts) > 0 {
		last = &attempts[len(attempts)-1]
	}
	var text []string
	switch d.Status {
	case rest.StatusSuccess:
		text = append(text, delivered(s, last))
	case rest.StatusFailed:
		text = append(text, gaveUp(s, last), again(d))
	case rest.StatusInFlight:
		text = append(text, fmt.Sprintf("Attempt %d is under way.", s.Attempts+1))
	case rest.StatusHeld:
		text = append(text, "Held because "+heldText(v.lane(s.Lane).LaneState)+".", "Nothing is lost and no attempt is used up while it is held.")
	case rest.StatusPending:
		if d.WaitsFor == "" {
			text = append(text, v.waiting(s, last))
		}
	}
	if d.WaitsFor != "" {
		text = append(text, fmt.Sprintf("Waits for %s, an earlier delivery of the same entry: this webhook delivers the events of an entry in order, so it is attempted when that one has succeeded or failed for good, or was dropped.", d.WaitsFor))
	}
	if last != nil && last.Message == delivery.UnverifiedMessage {
		text = append(text, "In the last attempt the receiver's certificate was not verified, because tls.insecure_skip_verify is set: whoever was on the way can have read it, and can have answered it.")
	}
	if s.Unstable {
		text = append(text, "A number in the payload loses digits when JavaScript parses it, so a receiver that signs JSON.stringify(JSON.parse(body)) finds another signature; one that signs the raw body does not.")
	}
	return text
}

func (v *view) waiting(s *queue.Summary, last *delivery.Attempt) string {
	if last == nil {
		return fmt.Sprintf("Not attempted yet: it is due now and waits for its turn on webhook %s.", v.lane(s.Lane).Shown.ID)
	}
	if s.Next.IsZero() || !s.Next.After(v.api.Now()) {
		return fmt.Sprintf("Attempt %d is due now and waits for its turn; the last one: %s.", s.Attempts+1, ruleText(last))
	}
	in := s.Next.Sub(v.api.Now()).Round(time.Second)
	return fmt.Sprintf("Attempt %d comes at %s (in %s); the last one: %s.", s.Attempts+1, rest.At(s.Next), in, ruleText(last))
}

func gaveUp(s *queue.Summary, last *delivery.Attempt) string {
	switch {
	case s.Code == delivery.CodeDropped:
		return "Discarded by an operator" + at(s.Finished) + "."
	case s.Code == delivery.CodeRemoved:
		return "Given up" + at(s.Finished) + ": its webhook left the configuration and did not come back in time."
	case last == nil:
		return "Given up" + at(s.Finished) + "."
	}
	return fmt.Sprintf("Given up%s after %d %s: %s.", at(s.Finished), s.Attempts, plural(s.Attempts, "attempt"), ruleText(last))
}

func delivered(s *queue.Summary, last *delivery.Attempt) string {
	if last == nil {
		return "Delivered" + at(s.Finished) + "."
	}
	return fmt.Sprintf("Delivered%s by attempt %d: %s.", at(s.Finished), last.Number, ruleText(last))
}

// again says whether a failed delivery can be put back.
func again(d *rest.DeliveryDetail) string {
	if d.PayloadExpired {
		return "Its payload is gone, so it cannot be retried."
	}
	return fmt.Sprintf("It is kept with its payload: POST /v1/deliveries/%s/retry (peanuts-relay retry %s) sends it again.", d.ID, d.ID)
}

func at(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return " at " + rest.At(t).String()
}

func plural(n int, noun string) string {
	if n == 1 {
		return noun
	}
	return noun + "s"
}

// explainSkip says why webhook w got no delivery of an event of a type.
func explainSkip(w Webhook, reason delivery.SkipReason, eventType string) string {
	switch {
	case reason == delivery.SkipDisabled && w.isRemoved():
		return fmt.Sprintf("webhook %s was disabled when the event came, and has left the configuration since", w.Shown.ID)
	case reason == delivery.SkipDisabled && w.Shown.Enabled:
		return fmt.Sprintf("webhook %s was disabled when the event came, and has been enabled since", w.Shown.ID)
	case reason == delivery.SkipDisabled:
		return fmt.Sprintf("webhook %s is disabled (enabled: false)", w.Shown.ID)
	case w.isRemoved():
		return fmt.Sprintf("webhook %s did not listen to %s when the event came, and has left the configuration since", w.Shown.ID, eventType)
	case slices.Contains(w.Shown.Events, eventType):
		return fmt.Sprintf("webhook %s did not listen to %s when the event came, and does so since", w.Shown.ID, eventType)
	case len(w.Shown.Events) == 0:
		return fmt.Sprintf("webhook %s listens to no events", w.Shown.ID)
	}
	return fmt.Sprintf("webhook %s listens to %s only", w.Shown.ID, strings.Join(w.Shown.Events, ", "))
}
