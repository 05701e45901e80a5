package pluginhost

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc/mem"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/secret"
	"github.com/peanutsapp/peanuts-relay/internal/signing"
	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
)

// benchBatch is 50 deliveries of 350 bytes, as the other benchmarks have them.
func benchBatch() (os []*delivery.Outbound, as []*delivery.Attempt) {
	const payload = `{"event":"entry.created","timestamp":"2025-01-15T10:30:00.000Z","helper":{"id":"bench","name":"Daily Expenses","command":"/expenses"},` +
		`"entry":{"id":"entry-0000002a-00000007-1736937000000000","data":{"amount":42.5,"category":"Food & Dining","description":"Team lunch at Olive Garden",` +
		`"date":"2025-01-15"},"created_at":"2025-01-15T10:30:00.000Z"},"user":{"id":"user-1"}}`
	for n := range 50 {
		os = append(os, &delivery.Outbound{DeliveryID: fmt.Sprintf("dlv_0123456789abcdef%04d", n), EventID: fmt.Sprintf("evt_0123456789abcdef%04d", n),
			EventType: "entry.created", EntryID: "entry-0000002a-00000007-1736937000000000", Webhook: "bench.main", Attempt: 1, Payload: []byte(payload), Sequence: uint64(n + 1)})
		as = append(as, &delivery.Attempt{})
	}
	return os, as
}

// BenchmarkCall is the processor time of one call of 50 in this process, without the
// transport: what a delivery costs beside that is a fiftieth of each.
func BenchmarkCall(b *testing.B) {
	signer, err := signing.New([]signing.Spec{{Scheme: signing.Peanuts}}, []secret.String{secret.New("a-secret-of-the-benchmark")})
	if err != nil {
		b.Fatal(err)
	}
	i := &Instance{id: "bench.main#1", opts: InstanceOptions{Webhook: "bench.main", Signer: signer}}
	os, as := benchBatch()
	now := time.Now()
	req, whole := i.request(os, as, now)
	if !whole {
		b.Fatal("the payload was not taken apart")
	}
	resp := &sinkpb.DeliverResponse{}
	for _, o := range os {
		resp.Results = append(resp.Results, &sinkpb.Result{DeliveryId: o.DeliveryID, Outcome: sinkpb.Outcome_OUTCOME_DELIVERED})
	}
	encoded, err := sinkpb.Codec{}.Marshal(req)
	if err != nil {
		b.Fatal(err)
	}
	wire := encoded.Materialize()
	rows := map[string]func(){
		"request": func() { i.request(os, as, now) },
		"encode": func() {
			encoded, err := sinkpb.Codec{}.Marshal(req)
			if err != nil {
				b.Fatal(err)
			}
			encoded.Free()
		},
		"decode in the plugin": func() {
			if err := (sinkpb.Codec{}).Unmarshal(mem.BufferSlice{mem.SliceBuffer(wire)}, new(sinkpb.DeliverRequest)); err != nil {
				b.Fatal(err)
			}
		},
		"results": func() { i.results(os, as, resp.GetResults()) },
	}
	for _, name := range []string{"request", "encode", "decode in the plugin", "results"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				rows[name]()
			}
		})
	}
}
