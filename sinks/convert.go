package sinks

import (
	"context"
	"errors"
	"math"
	"net"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
)

// Limits of the contract on what a sink answers.
const (
	maxMessage = 2 << 10
	maxCode    = 64
	maxState   = 4 << 10
	maxAddress = 2 << 10
)

// fromDeliveries makes of what travels what an author sees. Nothing is copied: a
// request belongs to its call.
func fromDeliveries(request []*sinkpb.Delivery) []Delivery {
	ds := make([]Delivery, len(request))
	for n, p := range request {
		fromDelivery(&ds[n], p)
	}
	return ds
}

func fromDelivery(d *Delivery, p *sinkpb.Delivery) {
	d.ID = p.GetId()
	d.Webhook = p.GetWebhook()
	d.EventID = p.GetEventId()
	d.Event = p.GetEvent()
	d.Timestamp = fromTime(p.GetTimestamp())
	d.Helper = Helper{ID: p.GetHelper().GetId(), Name: p.GetHelper().GetName(), Command: p.GetHelper().GetCommand()}
	d.Entry = Entry{ID: p.GetEntry().GetId(), CreatedAt: fromTime(p.GetEntry().GetCreatedAt()), Data: p.GetEntry().GetDataJson()}
	if user := p.GetUser(); user != nil {
		d.User = &User{ID: user.GetId()}
	}
	d.Attempt = int(p.GetAttempt())
	d.Payload = p.GetPayload()
	d.Headers = p.GetHeaders()
	if state := p.GetState(); len(state) > 0 { // empty is none
		d.State = state
	}
	d.Sequence = p.GetSequence()
	d.Test = p.GetTest()
}

// fromTime keeps the zero time for one that is not given.
func fromTime(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

// toOutcome is a table and no arithmetic: neither numbering depends on the other.
func toOutcome(o Outcome) sinkpb.Outcome {
	switch o {
	case OutcomeDelivered:
		return sinkpb.Outcome_OUTCOME_DELIVERED
	case OutcomeSkipped:
		return sinkpb.Outcome_OUTCOME_SKIPPED
	case OutcomeRateLimited:
		return sinkpb.Outcome_OUTCOME_RATE_LIMITED
	case OutcomeRejected:
		return sinkpb.Outcome_OUTCOME_REJECTED
	case OutcomeMisconfigured:
		return sinkpb.Outcome_OUTCOME_MISCONFIGURED
	}
	return sinkpb.Outcome_OUTCOME_RETRY
}

// toResult is what became of one delivery, within the limits of the contract. mask
// hides the secrets of the settings.
func toResult(id string, receipt Receipt, err error, mask *masker) *sinkpb.Result {
	v := VerdictOf(err)
	r := &sinkpb.Result{
		DeliveryId: id,
		Outcome:    toOutcome(v.Outcome),
		Code:       cleanCode(v.Code),
		Message:    mask.text(receipt.Message),
		State:      receipt.State,
		StatusCode: toStatus(receipt.Status),
	}
	if err != nil {
		r.Message = mask.error(err)
		if receipt.Message != "" {
			r.Message += ": " + mask.text(receipt.Message)
		}
		if r.StatusCode == 0 {
			r.StatusCode = toStatus(v.Status)
		}
		if r.Code == "" && v.Outcome == OutcomeRetry && isTimeout(err) {
			r.Code = "timeout"
		}
	}
	r.Message = cutBytes(valid(r.Message), maxMessage)
	if after := min(v.After, longestPause); after > 0 {
		r.RetryAfter = durationpb.New(after)
	}
	if address := valid(mask.text(receipt.RemoteURL)); len(address) <= maxAddress { // a part of an address leads nowhere
		r.RemoteUrl = address
	}
	if len(r.State) > maxState {
		return &sinkpb.Result{DeliveryId: id, Outcome: sinkpb.Outcome_OUTCOME_RETRY, Code: "state_too_large",
			Message: "the sink answered with a state of more than 4 KiB", StatusCode: r.StatusCode}
	}
	return r
}

func isTimeout(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout()
}

func toStatus(status int) uint32 {
	if status < 0 || status > 999 {
		return 0
	}
	return uint32(status)
}

// cleanCode makes a word for metrics of whatever a code is.
func cleanCode(code string) string {
	word := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '_':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '_'
	}, code)
	return word[:min(len(word), maxCode)]
}

// valid makes a text that protobuf takes: it refuses a whole answer over one bad byte.
func valid(text string) string { return strings.ToValidUTF8(text, "�") }

func toCapabilities(c Capabilities) *sinkpb.Capabilities {
	return &sinkpb.Capabilities{
		Events:          c.Events,
		MaxBatch:        toUint32(c.MaxBatch),
		MaxBatchBytes:   toUint32(c.MaxBatchBytes),
		MaxConcurrency:  toUint32(c.MaxConcurrency),
		OrderedPerEntry: c.OrderedPerEntry || c.UsesState,
		Idempotent:      c.Idempotent,
		UsesState:       c.UsesState,
		MaxPerSecond:    c.MaxPerSecond,
		Burst:           toUint32(c.Burst),
	}
}

func toUint32(n int) uint32 { return uint32(min(max(n, 0), math.MaxInt32)) }

func toDiagnostics(list []Diagnostic, mask *masker) []*sinkpb.Diagnostic {
	out := make([]*sinkpb.Diagnostic, len(list))
	for i, d := range list {
		out[i] = &sinkpb.Diagnostic{
			Severity: sinkpb.Severity_SEVERITY_ERROR,
			Path:     valid(d.Path),
			Summary:  cutBytes(valid(mask.text(d.Summary)), maxMessage),
			Detail:   cutBytes(valid(mask.text(d.Detail)), maxMessage),
		}
		if d.Warning {
			out[i].Severity = sinkpb.Severity_SEVERITY_WARNING
		}
	}
	return out
}

// diagnose makes findings of an error: one for each [SettingError] in it, else one
// about the settings as a whole.
func diagnose(err error, mask *masker) []Diagnostic {
	var list []Diagnostic
	var walk func(err error)
	walk = func(err error) {
		if e, ok := err.(*SettingError); ok {
			list = append(list, Diagnostic{Path: e.Path, Summary: mask.error(e.Err)})
			return
		}
		switch e := err.(type) {
		case interface{ Unwrap() error }:
			if inner := e.Unwrap(); inner != nil {
				walk(inner)
			}
		case interface{ Unwrap() []error }:
			for _, inner := range e.Unwrap() {
				walk(inner)
			}
		}
	}
	walk(err)
	if len(list) == 0 {
		return []Diagnostic{{Summary: mask.error(err)}}
	}
	return list
}
