package pluginhost

import (
	"bytes"
	"errors"
	"testing"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
)

func decode(data []byte, parts int, to any) error {
	c := codec{sinkpb.Codec{}, parts}
	return c.Unmarshal(mem.BufferSlice{mem.SliceBuffer(data)}, to)
}

// TestAnAnswerOfManyEmptyPartsIsNotDecoded: two million empty results take 4 MiB on the
// wire and hundreds decoded.
func TestAnAnswerOfManyEmptyPartsIsNotDecoded(t *testing.T) {
	empty := bytes.Repeat([]byte{0x0a, 0x00}, 2<<20)
	allocated := testing.AllocsPerRun(1, func() {
		if err := decode(empty, 200, &sinkpb.DeliverResponse{}); !errors.Is(err, errTooMany) {
			t.Errorf("got %v", err)
		}
	})
	if allocated > 100 {
		t.Errorf("%v allocations", allocated)
	}
}

func TestAnAnswerWithinItsBoundsIsDecoded(t *testing.T) {
	want := &sinkpb.DeliverResponse{Results: []*sinkpb.Result{{DeliveryId: "a", Outcome: 1, State: []byte("s")}, {DeliveryId: "b"}}}
	data, err := proto.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	got := &sinkpb.DeliverResponse{}
	if err := decode(data, 2, got); err != nil || !proto.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	for n := range data {
		_ = decode(data[:n], 2, &sinkpb.DeliverResponse{}) // broken off anywhere
	}
	if err := decode([]byte{0x0a, 0xff}, 2, got); err == nil || errors.Is(err, errTooMany) {
		t.Errorf("got %v", err)
	}
}
