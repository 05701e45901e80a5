package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
)

const (
	// resultSize is what one result takes at most, in bytes: state, message, address, and
	// room for the rest.
	resultSize  = 9 << 10
	answerSize  = 64 << 10
	maxAnswer   = 4 << 20
	spareFields = 16 // fields of an answer that is newer than this program
)

// Deliver makes one attempt and tells of it in a. It returns when the attempt is over,
// soon after ctx ends at the latest.
func (i *Instance) Deliver(ctx context.Context, o *delivery.Outbound, a *delivery.Attempt) {
	i.DeliverBatch(ctx, []*delivery.Outbound{o}, []*delivery.Attempt{a})
}

// DeliverBatch makes one attempt of each of os, in one call as far as the limits allow,
// and tells in as[i] what became of os[i]. A delivery that may have killed a process
// goes alone.
func (i *Instance) DeliverBatch(ctx context.Context, os []*delivery.Outbound, as []*delivery.Attempt) {
	limits := i.Limits()
	for len(os) > 0 {
		n := together(os, limits)
		i.call(ctx, os[:n], as[:n])
		os, as = os[n:], as[n:]
	}
}

// together is how many of os go into the next call.
func together(os []*delivery.Outbound, l delivery.Limits) int {
	if os[0].Crashes > 0 {
		return 1
	}
	bytes := l.BatchBytes
	if bytes <= 0 {
		bytes = maxBatchBytes
	}
	n := 0
	for n < len(os) && n < max(l.Batch, 1) && os[n].Crashes == 0 {
		if bytes -= len(os[n].Payload); bytes < 0 && n > 0 {
			break
		}
		n++
	}
	return n
}

// call is one call of the plugin and all that belongs to it.
func (i *Instance) call(ctx context.Context, os []*delivery.Outbound, as []*delivery.Attempt) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(i.b.host.calls, func() { cancel(delivery.ErrShutdown) })()
	began := time.Now()
	for n, o := range os {
		as[n].Number, as[n].Started = o.Attempt, began.UTC()
	}
	all := func(judge func(a *delivery.Attempt)) {
		took := time.Since(began)
		for _, a := range as {
			judge(a)
			a.Duration = took
		}
	}
	r, err := i.begin(ctx, os[0].Crashes > 0)
	if err != nil {
		all(func(a *delivery.Attempt) { i.notBegun(ctx, a, err) })
		return
	}
	defer r.gate.leave()
	req, whole := i.request(os, as, time.Now())
	if !whole {
		all(func(a *delivery.Attempt) {
			a.Outcome, a.Code, a.Error = delivery.Rejected, delivery.CodeDamaged, "the stored payload is not one that this relay writes"
		})
		return
	}
	size := min(answerSize+len(os)*resultSize, maxAnswer)
	resp, err := r.child.Client().Deliver(ctx, req, bounded(size, len(os)*2+spareFields)...)
	if err != nil {
		failure := i.failure(ctx, r, err)
		all(failure)
		return
	}
	i.results(os, as, resp.GetResults())
	all(func(*delivery.Attempt) {})
}

var errDown = errors.New("the plugin is not ready")

// begin waits until the call may be made; its caller leaves the gate.
//
// Time spent waiting for a suspect that is delivered alone is not the delivery's fault: a
// call that would have less than half of its time left is not made.
func (i *Instance) begin(ctx context.Context, alone bool) (*run, error) {
	r := i.terms.Load().run
	if r == nil {
		return nil, errDown
	}
	began := time.Now()
	if err := r.gate.enter(ctx, alone); err != nil {
		return nil, err
	}
	deadline, ok := ctx.Deadline()
	if left := time.Until(deadline); r.gone() || ok && left < time.Since(began) {
		r.gate.leave()
		return nil, errDown
	}
	return r, nil
}

// notBegun judges an attempt of which the plugin knows nothing.
func (i *Instance) notBegun(ctx context.Context, a *delivery.Attempt, err error) {
	a.Outcome, a.Code, a.Error = delivery.Interrupted, delivery.CodePluginDown, i.Why()
	if errors.Is(context.Cause(ctx), delivery.ErrShutdown) {
		a.Code, a.Error = delivery.CodeInterrupted, delivery.ErrShutdown.Error()
		return
	}
	if ctx.Err() != nil || errors.Is(err, errDown) && i.Held() == "" {
		a.Error = "the sink plugin " + i.b.file.Sink + " was busy with deliveries that have to be alone, or has just ended; nothing was sent"
	}
}

// failure judges a call that failed, for all that it carried.
func (i *Instance) failure(ctx context.Context, r *run, err error) func(a *delivery.Attempt) {
	b, name := i.b, "the sink plugin "+i.b.file.Sink
	cause := context.Cause(ctx)
	switch {
	case errors.Is(cause, delivery.ErrShutdown):
		return func(a *delivery.Attempt) {
			a.Outcome, a.Code, a.Error = delivery.Interrupted, delivery.CodeInterrupted, delivery.ErrShutdown.Error()
		}
	case r.gone() && b.endedOnPurpose(r):
		return func(a *delivery.Attempt) {
			a.Outcome, a.Code, a.Error = delivery.Interrupted, delivery.CodePluginDown, name+" was stopped while it had the delivery"
		}
	case r.gone():
		b.lose(r, "")
		text := name + " ended while it had the delivery: " + b.died(r).Error()
		report := crashReport(r)
		return func(a *delivery.Attempt) {
			a.Outcome, a.Code, a.Error = delivery.Crashed, delivery.CodePluginCrash, text
			a.Body, a.BodyTruncated = []byte(report), len(report) == maxCrashReport
		}
	case errors.Is(cause, context.DeadlineExceeded), isTimeout(err):
		return func(a *delivery.Attempt) {
			a.Outcome, a.Code, a.Error = delivery.Retry, delivery.CodeTimeout, name+" did not answer in time"
		}
	case cause != nil:
		return func(a *delivery.Attempt) {
			a.Outcome, a.Code, a.Error = delivery.Interrupted, delivery.CodeInterrupted, "the attempt was cancelled"
		}
	}
	text := fmt.Sprintf("%s did not deliver: %s", name, b.words(err))
	return func(a *delivery.Attempt) {
		a.Outcome, a.Code, a.Error = delivery.Retry, delivery.CodeNoResult, text
	}
}

// endedOnPurpose reports whether the host ended the process because nobody needed it.
func (b *binary) endedOnPurpose(r *run) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return r.why == "" && (b.state == StateDraining || b.state == stateStopped)
}

// results puts each answer to its delivery. A delivery without exactly one answer is
// tried again.
func (i *Instance) results(os []*delivery.Outbound, as []*delivery.Attempt, list []*sinkpb.Result) {
	at := make(map[string]int, len(os))
	for n, o := range os {
		at[o.DeliveryID] = n
	}
	answers := make([]int, len(os))
	unknown := 0
	for _, res := range list {
		n, ok := at[res.GetDeliveryId()]
		if !ok {
			unknown++
			continue
		}
		if answers[n]++; answers[n] == 1 {
			i.result(res, as[n])
		}
	}
	wrong := 0
	for n, a := range as {
		if answers[n] == 1 {
			continue
		}
		wrong++
		text := fmt.Sprintf("the sink plugin %s gave %d results for this delivery instead of one", i.b.file.Sink, answers[n])
		if answers[n] == 0 {
			text = fmt.Sprintf("the sink plugin %s gave no result for this delivery", i.b.file.Sink)
		}
		*a = delivery.Attempt{Number: a.Number, Started: a.Started, Signatures: a.Signatures,
			Outcome: delivery.Retry, Code: delivery.CodeNoResult, Error: text}
	}
	if wrong > 0 || unknown > 0 {
		i.b.complain("a sink plugin breaks the contract: its results do not match the deliveries; ask its author",
			"webhook", i.opts.Webhook, "deliveries", len(os), "results", len(list), "without_one_result", wrong, "unknown", unknown)
	}
}
