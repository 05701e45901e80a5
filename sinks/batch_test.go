package sinks_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
	"github.com/peanutsapp/peanuts-relay/sinks"
)

func TestADeliveryThatABatchPanicsOverTakesNoOtherWithIt(t *testing.T) {
	quiet(t)
	for name, row := range map[string]struct {
		first error // of the delivery a, when it is alone
		want  string
		calls string
	}{
		"it alone fails":                        {nil, "a DELIVERED, b RETRY panic, c DELIVERED, d DELIVERED", "abcd a b c d"},
		"the others have outcomes of their own": {sinks.Reject("bad", nil), "a REJECTED bad, b RETRY panic, c DELIVERED, d DELIVERED", "abcd a b c d"},
		"the service wants a pause": {sinks.RateLimited(0, errors.New("slow down")),
			"a RATE_LIMITED rate_limited, b RATE_LIMITED rate_limited, c RATE_LIMITED rate_limited, d RATE_LIMITED rate_limited", "abcd a"},
	} {
		var calls []string
		client := serve(t, opens(batchSink{batch: func(ds []*sinks.Delivery) ([]sinks.Result, error) {
			var call strings.Builder
			for _, d := range ds {
				call.WriteString(d.ID)
			}
			calls = append(calls, call.String())
			if strings.Contains(call.String(), "b") {
				panic("over b")
			}
			results := make([]sinks.Result, len(ds))
			if call.String() == "a" {
				results[0].Err = row.first
			}
			return results, nil
		}}))
		configure(t, client, "a", "{}")
		r, err := client.Deliver(t.Context(), &sinkpb.DeliverRequest{Instance: "a", Deliveries: deliveries("a", "b", "c", "d")})
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(outcomes(r), ", "); got != row.want || strings.Join(calls, " ") != row.calls {
			t.Errorf("%s: %s after the calls %v", name, got, calls)
		}
	}
}

func TestMaxBatchIsForBatchSinks(t *testing.T) {
	closed := false
	p := opens(sink{close: func() error { closed = true; return nil }})
	p.Capabilities.MaxBatch = 10
	client := serve(t, p)
	r, err := client.Configure(t.Context(), &sinkpb.ConfigureRequest{Instance: "a", SettingsJson: []byte("{}")})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.GetDiagnostics()) != 1 || !strings.Contains(r.GetDiagnostics()[0].GetSummary(), "is no BatchSink") || !closed {
		t.Errorf("%v, closed: %v", r, closed)
	}
}
