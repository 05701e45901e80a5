package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/secret"
	"github.com/peanutsapp/peanuts-relay/internal/signing"
	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
)

// answering is a version whose Deliver answers what it is told to.
func answering(answer func(ctx context.Context, c *fakeChild, req *sinkpb.DeliverRequest) (*sinkpb.DeliverResponse, error)) *version {
	return &version{name: "fake", caps: &sinkpb.Capabilities{MaxBatch: 100}, on: func(ctx context.Context, c *fakeChild, call string, req any) (any, error) {
		if call != "deliver" {
			return nil, nil
		}
		resp, err := answer(ctx, c, req.(*sinkpb.DeliverRequest))
		if resp == nil {
			return nil, err
		}
		return resp, err
	}}
}

func outbounds(n int) (os []*delivery.Outbound, as []*delivery.Attempt) {
	for i := range n {
		os, as = append(os, outbound(fmt.Sprint(i))), append(as, &delivery.Attempt{})
	}
	return os, as
}

func TestWhatAPluginAnswersBecomesAnAttempt(t *testing.T) {
	const ms = time.Millisecond
	for name, row := range map[string]struct {
		res  *sinkpb.Result
		want delivery.Attempt
	}{
		"delivered": {&sinkpb.Result{Outcome: 1, Code: "ignored", Message: "row\t12\x1b[1m", State: []byte("r12"), RemoteUrl: "https://example.com/row/12?a=b", StatusCode: 201},
			delivery.Attempt{Outcome: delivery.Delivered, Message: "row 12?[1m", EntryState: []byte("r12"), RemoteURL: "https://example.com/row/12?a=b", Status: 201}},
		"skipped": {&sinkpb.Result{Outcome: 2, Message: "nothing to do"}, delivery.Attempt{Outcome: delivery.Skipped, Message: "nothing to do"}},
		"retry": {&sinkpb.Result{Outcome: 3, Code: "Quota-Exceeded", Message: "later", RetryAfter: durationpb.New(90 * time.Second), StatusCode: 503, State: []byte("x")},
			delivery.Attempt{Outcome: delivery.Retry, Code: "quota_exceeded", Error: "later", RetryAfter: 90 * time.Second, Status: 503}},
		"rate limited":  {&sinkpb.Result{Outcome: 4, RetryAfter: durationpb.New(2500 * ms)}, delivery.Attempt{Outcome: delivery.RateLimited, Error: "the sink plugin fake gave no reason", RetryAfter: 2500 * ms}},
		"rejected":      {&sinkpb.Result{Outcome: 5, Code: "too_large", Message: "413"}, delivery.Attempt{Outcome: delivery.Rejected, Code: "too_large", Error: "413"}},
		"misconfigured": {&sinkpb.Result{Outcome: 6, Code: "revoked", Message: "the token tok-12345 was revoked"}, delivery.Attempt{Outcome: delivery.Misconfigured, Code: "revoked", Error: "the token ******** was revoked"}},
		"no outcome":    {&sinkpb.Result{Message: "m"}, delivery.Attempt{Outcome: delivery.Retry, Code: delivery.CodeNoResult, Error: "the sink plugin fake gave a result without a known outcome; m"}},
		"newer outcome": {&sinkpb.Result{Outcome: 99}, delivery.Attempt{Outcome: delivery.Retry, Code: delivery.CodeNoResult, Error: "the sink plugin fake gave a result without a known outcome;"}},
		"reserved code": {&sinkpb.Result{Outcome: 5, Code: "damaged", Message: "m"}, delivery.Attempt{Outcome: delivery.Rejected, Code: "sink_damaged", Error: "m"}},
		"long code":     {&sinkpb.Result{Outcome: 3, Code: strings.Repeat("ä", 100), Message: "m"}, delivery.Attempt{Outcome: delivery.Retry, Code: delivery.Code(strings.Repeat("_", 32)), Error: "m"}},
		"status beyond": {&sinkpb.Result{Outcome: 3, StatusCode: 4e9, Message: "m"}, delivery.Attempt{Outcome: delivery.Retry, Error: "m"}},
		"negative wait": {&sinkpb.Result{Outcome: 3, RetryAfter: durationpb.New(-time.Hour), Message: "m"}, delivery.Attempt{Outcome: delivery.Retry, Error: "m"}},
		"endless wait":  {&sinkpb.Result{Outcome: 3, RetryAfter: &durationpb.Duration{Seconds: 3e11}, Message: "m"}, delivery.Attempt{Outcome: delivery.Retry, Error: "m", RetryAfter: 24 * time.Hour}},
		"invalid wait":  {&sinkpb.Result{Outcome: 3, RetryAfter: &durationpb.Duration{Seconds: 1, Nanos: -5}, Message: "m"}, delivery.Attempt{Outcome: delivery.Retry, Error: "m"}},
		"large state": {&sinkpb.Result{Outcome: 1, State: make([]byte, 4<<10+1), StatusCode: 200},
			delivery.Attempt{Outcome: delivery.Retry, Code: delivery.CodeNoResult, Status: 200, Error: "the sink plugin fake gave a state of more than 4 KiB, which is not kept"}},
		"long message":       {&sinkpb.Result{Outcome: 1, Message: strings.Repeat("m", 1<<20)}, delivery.Attempt{Outcome: delivery.Delivered, Message: strings.Repeat("m", 2<<10) + "…"}},
		"script address":     {&sinkpb.Result{Outcome: 1, RemoteUrl: "javascript:alert(1)"}, delivery.Attempt{Outcome: delivery.Delivered}},
		"address with login": {&sinkpb.Result{Outcome: 1, RemoteUrl: "https://u:p@example.com/"}, delivery.Attempt{Outcome: delivery.Delivered}},
		"long address":       {&sinkpb.Result{Outcome: 1, RemoteUrl: "https://example.com/" + strings.Repeat("a", 2<<10)}, delivery.Attempt{Outcome: delivery.Delivered}},
		"secret in address":  {&sinkpb.Result{Outcome: 1, RemoteUrl: "https://example.com/tok-12345"}, delivery.Attempt{Outcome: delivery.Delivered, RemoteURL: "https://example.com/********"}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.disk.put(path, answering(func(_ context.Context, _ *fakeChild, req *sinkpb.DeliverRequest) (*sinkpb.DeliverResponse, error) {
					row.res.DeliveryId = req.GetDeliveries()[0].GetId()
					return &sinkpb.DeliverResponse{Results: []*sinkpb.Result{row.res}}, nil
				}))
				i := r.openWebhook(InstanceOptions{Secrets: func([]byte) []secret.String { return []secret.String{secret.New("tok-12345")} }})
				got := deliverOne(t.Context(), i, outbound("1"))
				want := row.want
				want.Number, want.Started, want.Duration = 1, got.Started, got.Duration
				if fmt.Sprintf("%+v", *got) != fmt.Sprintf("%+v", want) {
					t.Errorf("\ngot  %+v\nwant %+v", *got, want)
				}
			})
		})
	}
}

func TestResultsThatDoNotMatchCostOnlyTheDeliveriesConcerned(t *testing.T) {
	for name, row := range map[string]struct {
		change func(rs []*sinkpb.Result) []*sinkpb.Result
		bad    string // indexes
	}{
		"too few": {func(rs []*sinkpb.Result) []*sinkpb.Result { return rs[1:] }, "0"},
		"none":    {func([]*sinkpb.Result) []*sinkpb.Result { return nil }, "0 1 2"},
		"one too many": {func(rs []*sinkpb.Result) []*sinkpb.Result {
			return append(rs, &sinkpb.Result{DeliveryId: "x", Outcome: 1})
		}, ""},
		"twice":      {func(rs []*sinkpb.Result) []*sinkpb.Result { return append(rs, rs[2]) }, "2"},
		"of another": {func(rs []*sinkpb.Result) []*sinkpb.Result { rs[1].DeliveryId = "x"; return rs }, "1"},
		"reversed":   {func(rs []*sinkpb.Result) []*sinkpb.Result { slices.Reverse(rs); return rs }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.disk.put(path, answering(func(_ context.Context, _ *fakeChild, req *sinkpb.DeliverRequest) (*sinkpb.DeliverResponse, error) {
					var rs []*sinkpb.Result
					for _, d := range req.GetDeliveries() {
						rs = append(rs, &sinkpb.Result{DeliveryId: d.GetId(), Outcome: 1, Message: d.GetId()})
					}
					return &sinkpb.DeliverResponse{Results: row.change(rs)}, nil
				}))
				i := r.openWebhook(InstanceOptions{})
				os, as := outbounds(3)
				i.DeliverBatch(t.Context(), os, as)
				var bad []string
				for n, a := range as {
					switch {
					case a.Outcome == delivery.Retry && a.Code == delivery.CodeNoResult && a.Message == "" && strings.Contains(a.Error, "fake gave"):
						bad = append(bad, fmt.Sprint(n))
					case a.Outcome != delivery.Delivered || a.Message != os[n].DeliveryID:
						t.Errorf("attempt %d: %+v", n, a)
					}
				}
				if strings.Join(bad, " ") != row.bad {
					t.Errorf("without a usable result: %v, want %s", bad, row.bad)
				}
				if broken := name != "reversed"; strings.Contains(r.log.String(), "breaks the contract") != broken {
					t.Errorf("the log is\n%s", r.log)
				}
			})
		})
	}
}

func TestAFailedCallIsToldInWords(t *testing.T) {
	for name, row := range map[string]struct {
		err  error
		want delivery.Attempt
	}{
		"too large":   {status.Error(codes.ResourceExhausted, "grpc: received message larger than max (9 vs. 4)"), delivery.Attempt{Outcome: delivery.Retry, Code: delivery.CodeNoResult, Error: "the sink plugin fake did not deliver: its answer, or what it was sent, is larger than allowed"}},
		"unknown":     {status.Error(codes.Unknown, "boom tok-12345\n"), delivery.Attempt{Outcome: delivery.Retry, Code: delivery.CodeNoResult, Error: "the sink plugin fake did not deliver: it answered with an error: boom ********"}},
		"no words":    {status.Error(codes.Internal, ""), delivery.Attempt{Outcome: delivery.Retry, Code: delivery.CodeNoResult, Error: "the sink plugin fake did not deliver: it answered with an error and no words"}},
		"no call":     {status.Error(codes.Unimplemented, "x"), delivery.Attempt{Outcome: delivery.Retry, Code: delivery.CodeNoResult, Error: "the sink plugin fake did not deliver: it does not know this call"}},
		"no instance": {status.Error(codes.NotFound, "x"), delivery.Attempt{Outcome: delivery.Retry, Code: delivery.CodeNoResult, Error: "the sink plugin fake did not deliver: it does not know the instance of the webhook"}},
		"refused":     {status.Error(codes.Unavailable, "x"), delivery.Attempt{Outcome: delivery.Retry, Code: delivery.CodeNoResult, Error: "the sink plugin fake did not deliver: the connection to it broke, or it takes no calls"}},
		"its timeout": {status.Error(codes.DeadlineExceeded, "x"), delivery.Attempt{Outcome: delivery.Retry, Code: delivery.CodeTimeout, Error: "the sink plugin fake did not answer in time"}},
		"too many":    {status.Error(codes.Internal, "grpc: failed to unmarshal the received message: "+errTooMany.Error()), delivery.Attempt{Outcome: delivery.Retry, Code: delivery.CodeNoResult, Error: "the sink plugin fake did not deliver: its answer has far too many parts"}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, r *rig) {
				r.disk.put(path, answering(func(context.Context, *fakeChild, *sinkpb.DeliverRequest) (*sinkpb.DeliverResponse, error) {
					return nil, row.err
				}))
				i := r.openWebhook(InstanceOptions{Secrets: func([]byte) []secret.String { return []secret.String{secret.New("tok-12345")} }})
				os, as := outbounds(2)
				i.DeliverBatch(t.Context(), os, as)
				for _, a := range as {
					if a.Outcome != row.want.Outcome || a.Code != row.want.Code || a.Error != row.want.Error {
						t.Errorf("\ngot  %+v\nwant %+v", *a, row.want)
					}
				}
			})
		})
	}
}

func TestTheEndOfTheContextEndsAnAttempt(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.disk.put(path, answering(func(ctx context.Context, _ *fakeChild, _ *sinkpb.DeliverRequest) (*sinkpb.DeliverResponse, error) {
			<-ctx.Done()
			return nil, status.FromContextError(ctx.Err()).Err()
		}))
		i := r.openWebhook(InstanceOptions{})
		if a := deliverOne(t.Context(), i, outbound("1")); a.Outcome != delivery.Retry || a.Code != delivery.CodeTimeout || a.Duration != 30*time.Second {
			t.Errorf("a deadline: %+v", a)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(delivery.ErrShutdown) })
		if a := deliverOne(ctx, i, outbound("2")); a.Outcome != delivery.Interrupted || a.Code != delivery.CodeInterrupted {
			t.Errorf("a shutdown: %+v", a)
		}
		if a := deliverOne(ctx, i, outbound("3")); a.Outcome != delivery.Interrupted || a.Code != delivery.CodeInterrupted {
			t.Errorf("after a shutdown: %+v", a)
		}
		ctx, cancel = context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(errors.New("somebody went away")) })
		if a := deliverOne(ctx, i, outbound("4")); a.Outcome != delivery.Interrupted || a.Code != delivery.CodeInterrupted {
			t.Errorf("cancelled: %+v", a)
		}
	})
}

func TestACrashIsEverybodysWhoWasInFlightAndThenEachGoesAlone(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		var sentAlone atomic.Int64
		r.disk.put(path, answering(func(_ context.Context, c *fakeChild, req *sinkpb.DeliverRequest) (*sinkpb.DeliverResponse, error) {
			if req.GetDeliveries()[0].GetId() == "del_other" {
				time.Sleep(time.Second) // it is in flight when the others end
			}
			time.Sleep(time.Second)
			if slices.ContainsFunc(req.GetDeliveries(), func(d *sinkpb.Delivery) bool { return d.GetId() == "del_1" }) {
				c.crash()
			}
			if c.busiest() == 1 && len(req.GetDeliveries()) == 1 {
				sentAlone.Add(1)
			}
			return nil, nil
		}))
		i, j := r.openWebhook(InstanceOptions{}), r.openWebhook(InstanceOptions{Webhook: "c.d"})
		os, as := outbounds(4)
		bystander := &delivery.Attempt{}
		var wg sync.WaitGroup
		wg.Go(func() { i.DeliverBatch(t.Context(), os, as) })
		wg.Go(func() { j.Deliver(t.Context(), outbound("other"), bystander) })
		wg.Wait()
		for _, a := range append(as, bystander) {
			if a.Outcome != delivery.Crashed || a.Code != delivery.CodePluginCrash || !strings.HasPrefix(string(a.Body), "panic: oh no") ||
				a.Error != "the sink plugin fake ended while it had the delivery: exited with status 2; its last words: panic: oh no" {
				t.Errorf("in flight: %+v", a)
			}
		}
		if i.Held() != delivery.HoldPluginDown {
			t.Errorf("held %q", i.Held())
		}
		time.Sleep(2 * time.Second)
		for _, o := range os {
			o.Crashes = 1
		}
		innocent := slices.Concat(os[:1], os[2:])
		as = []*delivery.Attempt{{}, {}, {}}
		i.DeliverBatch(t.Context(), innocent, as)
		for _, a := range as {
			if a.Outcome != delivery.Delivered {
				t.Errorf("alone: %+v", a)
			}
		}
		if sentAlone.Load() != 3 {
			t.Errorf("%d went alone", sentAlone.Load())
		}
		if a := deliverOne(t.Context(), i, os[1]); a.Outcome != delivery.Crashed {
			t.Errorf("the one that did it: %+v", a)
		}
	})
}

func TestASuspectIsAloneInTheWholePlugin(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		var active, beside atomic.Int64
		r.disk.put(path, answering(func(_ context.Context, _ *fakeChild, req *sinkpb.DeliverRequest) (*sinkpb.DeliverResponse, error) {
			n := active.Add(1)
			defer active.Add(-1)
			suspect := strings.HasPrefix(req.GetDeliveries()[0].GetId(), "del_suspect")
			time.Sleep(50 * time.Millisecond)
			if suspect && (n != 1 || active.Load() != 1) {
				beside.Add(1)
			}
			return nil, nil
		}))
		is := []*Instance{r.openWebhook(InstanceOptions{Webhook: "a.b"}), r.openWebhook(InstanceOptions{Webhook: "c.d"}), r.openWebhook(InstanceOptions{Webhook: "e.f"})}
		var wg sync.WaitGroup
		var done atomic.Int64
		for n := range 60 {
			wg.Go(func() {
				time.Sleep(time.Duration(n%20) * 10 * time.Millisecond)
				o := outbound(fmt.Sprint("plain", n))
				if n%5 == 0 {
					o = outbound(fmt.Sprint("suspect", n))
					o.Crashes = 1
				}
				if a := deliverOne(t.Context(), is[n%3], o); a.Outcome == delivery.Delivered {
					done.Add(1)
				}
			})
		}
		wg.Wait()
		if beside.Load() != 0 || done.Load() != 60 || r.only().busiest() < 2 {
			t.Errorf("%d suspects were not alone, %d of 60 delivered, %d at once", beside.Load(), done.Load(), r.only().busiest())
		}
	})
}

func TestWhoeverWaitsForASuspectDoesNotPayForIt(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.disk.put(path, answering(func(ctx context.Context, _ *fakeChild, req *sinkpb.DeliverRequest) (*sinkpb.DeliverResponse, error) {
			if req.GetDeliveries()[0].GetId() == "del_suspect" {
				<-ctx.Done()
			}
			return nil, nil
		}))
		i := r.openWebhook(InstanceOptions{})
		suspect := outbound("suspect")
		suspect.Crashes = 2
		var wg sync.WaitGroup
		wg.Go(func() {
			if a := deliverOne(t.Context(), i, suspect); a.Outcome != delivery.Retry || a.Code != delivery.CodeTimeout {
				t.Errorf("the suspect: %+v", a)
			}
		})
		for n := range 3 {
			wg.Go(func() {
				time.Sleep(time.Duration(1+n*10) * time.Second)
				a := deliverOne(t.Context(), i, outbound("x"))
				// The last has waited for 9 s and has 21 left.
				if n < 2 && (a.Outcome != delivery.Interrupted || a.Code != delivery.CodePluginDown || !strings.Contains(a.Error, "nothing was sent")) ||
					n == 2 && a.Outcome != delivery.Delivered {
					t.Errorf("%d: %+v", n, a)
				}
			})
		}
		wg.Wait()
		if len(r.only().sent()) != 2 {
			t.Errorf("%d calls", len(r.only().sent()))
		}
	})
}

func TestACallNeverExceedsTheLimitsOfThePlugin(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		v := r.disk.put(path, answering(func(context.Context, *fakeChild, *sinkpb.DeliverRequest) (*sinkpb.DeliverResponse, error) {
			return nil, nil
		}))
		v.caps = &sinkpb.Capabilities{MaxBatch: 3, MaxBatchBytes: 1000}
		i := r.openWebhook(InstanceOptions{})
		os, as := outbounds(10)
		i.DeliverBatch(t.Context(), os, as)
		var sizes []int
		for _, b := range r.only().sent() {
			sizes = append(sizes, len(b.GetDeliveries()))
		}
		if fmt.Sprint(sizes) != "[3 3 3 1]" {
			t.Errorf("calls of %v", sizes)
		}
		large := outbound("large")
		large.Payload = []byte(strings.Replace(string(large.Payload), "42.5", strings.Repeat("9", 2000), 1))
		os, as = []*delivery.Outbound{outbound("1"), large, outbound("2"), outbound("3")}, []*delivery.Attempt{{}, {}, {}, {}}
		i.DeliverBatch(t.Context(), os, as)
		sizes = nil
		for _, b := range r.only().sent()[4:] {
			sizes = append(sizes, len(b.GetDeliveries()))
		}
		if fmt.Sprint(sizes) != "[1 1 2]" {
			t.Errorf("calls of %v", sizes)
		}
		for _, a := range as {
			if a.Outcome != delivery.Delivered {
				t.Errorf("%+v", a)
			}
		}
	})
}

func TestEveryAttemptIsSignedAnew(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.disk.put(path, answering(func(context.Context, *fakeChild, *sinkpb.DeliverRequest) (*sinkpb.DeliverResponse, error) {
			return nil, nil
		}))
		secrets := []secret.String{secret.New("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")}
		signer, err := signing.New([]signing.Spec{{Scheme: signing.Peanuts}, {Scheme: signing.Standard}}, secrets)
		if err != nil {
			t.Fatal(err)
		}
		i := r.openWebhook(InstanceOptions{Signer: signer})
		var stamps []string
		for range 2 {
			a := deliverOne(t.Context(), i, outbound("1"))
			batches := r.only().sent()
			sent := batches[len(batches)-1].GetDeliveries()[0].GetHeaders()
			if len(a.Signatures) != 4 || len(sent) != 4 {
				t.Fatalf("signatures %v, sent %v", a.Signatures, sent)
			}
			for _, h := range a.Signatures {
				if sent[h.Name] != h.Value {
					t.Errorf("%s was sent as %q, noted as %q", h.Name, sent[h.Name], h.Value)
				}
			}
			stamps = append(stamps, sent["webhook-timestamp"])
			time.Sleep(time.Minute)
		}
		if stamps[0] == stamps[1] {
			t.Errorf("both attempts are signed at %s", stamps[0])
		}
	})
}

func TestAPayloadThatIsNoneIsNotSent(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.disk.put(path, answering(func(context.Context, *fakeChild, *sinkpb.DeliverRequest) (*sinkpb.DeliverResponse, error) {
			return nil, nil
		}))
		i := r.openWebhook(InstanceOptions{})
		o := outbound("1")
		o.Payload = []byte(`{"event":`)
		if a := deliverOne(t.Context(), i, o); a.Outcome != delivery.Rejected || a.Code != delivery.CodeDamaged {
			t.Errorf("%+v", a)
		}
		if len(r.only().sent()) != 0 {
			t.Error("it was sent")
		}
	})
}

func TestAPluginThatIsBuggyAllTheTimeIsLoggedOnceAMinute(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.disk.put(path, answering(func(context.Context, *fakeChild, *sinkpb.DeliverRequest) (*sinkpb.DeliverResponse, error) {
			return &sinkpb.DeliverResponse{}, nil
		}))
		i := r.openWebhook(InstanceOptions{})
		for range 150 {
			deliverOne(t.Context(), i, outbound("1"))
			time.Sleep(time.Second)
		}
		if n := strings.Count(r.log.String(), "breaks the contract"); n != 3 {
			t.Errorf("%d lines", n)
		}
		synctest.Wait()
	})
}

func TestAnInterruptEndsTheCallsUnderWayAndLaterOnesAndLeavesThePlugin(t *testing.T) {
	bubble(t, func(t *testing.T, r *rig) {
		r.disk.put(path, answering(func(ctx context.Context, _ *fakeChild, _ *sinkpb.DeliverRequest) (*sinkpb.DeliverResponse, error) {
			<-ctx.Done()
			return nil, status.FromContextError(ctx.Err()).Err()
		}))
		i := r.openWebhook(InstanceOptions{})
		time.AfterFunc(time.Second, r.host.Interrupt)
		for _, row := range []struct {
			when string
			took time.Duration
		}{{"during the call", time.Second}, {"before it", 0}} {
			a := deliverOne(t.Context(), i, outbound("1"))
			if a.Outcome != delivery.Interrupted || a.Code != delivery.CodeInterrupted || a.Error != delivery.ErrShutdown.Error() || a.Duration != row.took {
				t.Errorf("%s: %+v", row.when, a)
			}
		}
		if len(r.disk.living()) != 1 {
			t.Error("the process was ended")
		}
	})
}
