package sinkpb

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"testing"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"pgregory.net/rapid"
)

// quick are the messages that have code of their own, each with its two functions.
var quick = map[string]struct {
	empty  func() proto.Message
	encode func(m proto.Message) (b []byte, ok bool)
	decode func(b []byte) (m proto.Message, ok bool)
}{
	"request": {
		func() proto.Message { return new(DeliverRequest) },
		func(m proto.Message) ([]byte, bool) {
			size, ok := sizeRequest(m.(*DeliverRequest))
			if !ok {
				return nil, false
			}
			return exactly(size, appendRequest(nil, m.(*DeliverRequest))), true
		},
		func(b []byte) (proto.Message, bool) {
			m := new(DeliverRequest)
			return m, decodeRequest(b, m)
		},
	},
	"response": {
		func() proto.Message { return new(DeliverResponse) },
		func(m proto.Message) ([]byte, bool) {
			size, ok := sizeResponse(m.(*DeliverResponse))
			if !ok {
				return nil, false
			}
			return exactly(size, appendResponse(nil, m.(*DeliverResponse))), true
		},
		func(b []byte) (proto.Message, bool) {
			m := new(DeliverResponse)
			return m, decodeResponse(b, m)
		},
	},
}

func exactly(size int, b []byte) []byte {
	if len(b) != size {
		panic(fmt.Sprintf("measured %d bytes, appended %d", size, len(b)))
	}
	return b
}

// fill sets every field of m, and of every message in it, to something that is not zero.
func fill(m protoreflect.Message) {
	fields := m.Descriptor().Fields()
	for n := range fields.Len() {
		f := fields.Get(n)
		switch {
		case f.IsMap():
			m.Mutable(f).Map().Set(protoreflect.ValueOfString("name").MapKey(), protoreflect.ValueOfString("välue"))
		case f.IsList():
			for range 2 {
				fill(m.Mutable(f).List().AppendMutable().Message())
			}
		case f.Kind() == protoreflect.MessageKind:
			fill(m.Mutable(f).Message())
		default:
			m.Set(f, something(f, int64(n+1)))
		}
	}
}

func something(f protoreflect.FieldDescriptor, n int64) protoreflect.Value {
	switch f.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(fmt.Sprintf("täxt %d", n))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte{0xff, byte(n)})
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(1)
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(math.MaxUint32)
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(math.MaxUint64)
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(-int32(n))
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(-n)
	}
	panic("a kind of field that this test does not know: " + f.Kind().String())
}

// TestEveryFieldOfTheContractIsKnown fails for a field that is new: it would travel, and
// slowly.
func TestEveryFieldOfTheContractIsKnown(t *testing.T) {
	for name, q := range quick {
		t.Run(name, func(t *testing.T) {
			want := q.empty()
			fill(want.ProtoReflect())
			standard, err := proto.MarshalOptions{Deterministic: true}.Marshal(want)
			if err != nil {
				t.Fatal(err)
			}
			if b, ok := q.encode(want); !ok || !bytes.Equal(b, standard) {
				t.Errorf("encoded %t as\n%x, want\n%x", ok, b, standard)
			}
			if got, ok := q.decode(standard); !ok || !proto.Equal(got, want) {
				t.Errorf("decoded %t as\n%v, want\n%v", ok, got, want)
			}
		})
	}
}

// anything sets fields of m as they come, unknown ones among them when unknown is set.
func anything(t *rapid.T, m protoreflect.Message, unknown bool) {
	fields := m.Descriptor().Fields()
	for n := range fields.Len() {
		f := fields.Get(n)
		name := string(f.FullName())
		switch {
		case rapid.IntRange(0, 3).Draw(t, name+" is set") == 0:
		case f.IsMap():
			for k, v := range rapid.MapOfN(rapid.String(), rapid.String(), 0, 3).Draw(t, name) {
				m.Mutable(f).Map().Set(protoreflect.ValueOfString(k).MapKey(), protoreflect.ValueOfString(v))
			}
		case f.IsList():
			for range rapid.IntRange(0, 3).Draw(t, name) {
				anything(t, m.Mutable(f).List().AppendMutable().Message(), unknown)
			}
		case f.Kind() == protoreflect.MessageKind:
			anything(t, m.Mutable(f).Message(), unknown)
		default:
			m.Set(f, drawn(t, f))
		}
	}
	if unknown && rapid.IntRange(0, 9).Draw(t, "unknown field") == 0 {
		num := protowire.Number(rapid.IntRange(15, 4000).Draw(t, "number"))
		m.SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, num, protowire.VarintType), 7))
	}
}

func drawn(t *rapid.T, f protoreflect.FieldDescriptor) protoreflect.Value {
	name := string(f.FullName())
	switch f.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(rapid.String().Draw(t, name))
	case protoreflect.BytesKind:
		size := rapid.SampledFrom([]int{0, 1, 200, largeDelivery}).Draw(t, name)
		return protoreflect.ValueOfBytes(bytes.Repeat([]byte{0xfe}, size))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(rapid.Bool().Draw(t, name))
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(rapid.Int32().Draw(t, name)))
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(rapid.Uint32().Draw(t, name))
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(rapid.Uint64().Draw(t, name))
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(rapid.Int32().Draw(t, name))
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(rapid.Int64().Draw(t, name))
	}
	panic("a kind of field that this test does not know: " + f.Kind().String())
}

func TestWhatTravelsIsProtobuf(t *testing.T) {
	for name, q := range quick {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				unknown := rapid.Bool().Draw(t, "a newer contract")
				want := q.empty()
				anything(t, want.ProtoReflect(), unknown)
				encoded, err := Codec{}.Marshal(want)
				if err != nil {
					t.Fatal(err)
				}
				b := encoded.Materialize()
				encoded.Free()
				got := q.empty()
				if err := proto.Unmarshal(b, got); err != nil || !proto.Equal(got, want) {
					t.Fatalf("protobuf decodes\n%v, want\n%v: %v", got, want, err)
				}
				standard, err := proto.Marshal(want)
				if err != nil || len(standard) != len(b) {
					t.Fatalf("%d bytes, protobuf makes %d: %v", len(b), len(standard), err)
				}
				got = q.empty()
				if err := (Codec{}).Unmarshal(mem.BufferSlice{mem.SliceBuffer(standard)}, got); err != nil || !proto.Equal(got, want) {
					t.Fatalf("decoded\n%v, want\n%v: %v", got, want, err)
				}
				if _, ok := q.encode(want); !unknown && !ok {
					t.Fatal("it was left to protobuf")
				}
				if _, ok := q.decode(standard); !unknown && !ok {
					t.Fatal("it was left to protobuf")
				}
			})
		})
	}
}

// TestAMessageThatProtobufRefusesIsRefused is about texts that are not UTF-8.
func TestAMessageThatProtobufRefusesIsRefused(t *testing.T) {
	bad := "\xff"
	for name, m := range map[string]proto.Message{
		"instance":  &DeliverRequest{Instance: bad},
		"id":        &DeliverRequest{Deliveries: []*Delivery{{Id: bad}}},
		"entry":     &DeliverRequest{Deliveries: []*Delivery{{Entry: &Entry{Id: bad}}}},
		"helper":    &DeliverRequest{Deliveries: []*Delivery{{Helper: &Helper{Name: bad}}}},
		"user":      &DeliverRequest{Deliveries: []*Delivery{{User: &User{Id: bad}}}},
		"header":    &DeliverRequest{Deliveries: []*Delivery{{Headers: map[string]string{"a": bad}}}},
		"name":      &DeliverRequest{Deliveries: []*Delivery{{Headers: map[string]string{bad: "a"}}}},
		"message":   &DeliverResponse{Results: []*Result{{Message: bad}}},
		"the other": &DescribeResponse{Name: bad},
	} {
		if _, err := (Codec{}).Marshal(m); err == nil {
			t.Errorf("%s: encoded", name)
		}
	}
	if _, err := (Codec{}).Marshal(&DeliverRequest{Deliveries: []*Delivery{nil}}); err != nil {
		t.Errorf("a delivery that is nil: %v", err)
	}
}

// TestWhatWasDecodedIsItsOwn writes over what was received, and into one delivery.
func TestWhatWasDecodedIsItsOwn(t *testing.T) {
	for _, size := range []int{10, 2 * largeDelivery} {
		want := &DeliverRequest{Instance: "i"}
		for n := range 3 {
			want.Deliveries = append(want.Deliveries, &Delivery{Id: fmt.Sprint("id-", n), Payload: bytes.Repeat([]byte{'p'}, size),
				Entry: &Entry{Id: "e", DataJson: []byte("{}")}, Headers: map[string]string{"h": "v"}, State: []byte("s")})
		}
		b, err := proto.Marshal(want)
		if err != nil {
			t.Fatal(err)
		}
		got := &DeliverRequest{}
		if err := (Codec{}).Unmarshal(mem.BufferSlice{mem.SliceBuffer(b)}, got); err != nil {
			t.Fatal(err)
		}
		clear(b)
		first := got.Deliveries[0]
		for _, s := range [][]byte{first.Payload, first.Entry.DataJson, first.State} {
			_ = append(s, "much more than there was room for"...)
			for i := range s {
				s[i] = 'x'
			}
		}
		copy(want.Deliveries[0].Payload, strings.Repeat("x", size))
		copy(want.Deliveries[0].Entry.DataJson, "xx")
		copy(want.Deliveries[0].State, "x")
		if !proto.Equal(got, want) {
			t.Errorf("decoded %v", got)
		}
	}
}

// FuzzDecode compares with protobuf's decoder: the same messages, and the same refused.
func FuzzDecode(f *testing.F) {
	for _, q := range quick {
		m := q.empty()
		fill(m.ProtoReflect())
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(append(b, b...))                         // merged
		f.Add(b[:len(b)-1])                            // broken off
		f.Add(append(b, 0x82, 0x00, 0x00))             // a tag of more bytes than it needs
		f.Add(append(b, 0x7a, 0x01, 0x00))             // an unknown field
		f.Add(append(b, 0x0a, 0x02, 0x0a, 0xff, 0xff)) // no UTF-8
	}
	f.Add([]byte{})
	f.Add([]byte{0x12, 0x06, 0x2a, 0x00, 0x2a, 0x02, 0x08, 0x01})         // a time twice
	f.Add([]byte{0x12, 0x04, 0x5a, 0x00, 0x52, 0x00})                     // empty header, empty payload
	f.Add([]byte("\x0a\x0b\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")) // an outcome below 0
	f.Fuzz(func(t *testing.T, b []byte) {
		for name, q := range quick {
			want, got := q.empty(), q.empty()
			wrong := proto.Unmarshal(b, want)
			err := Codec{}.Unmarshal(mem.BufferSlice{mem.SliceBuffer(b)}, got)
			if (err == nil) != (wrong == nil) {
				t.Fatalf("%s: error %v, protobuf's %v", name, err, wrong)
			}
			if err == nil && !proto.Equal(got, want) {
				t.Fatalf("%s: decoded\n%v, want\n%v", name, got, want)
			}
		}
	})
}

// TestDecodingABatchAllocatesLittle keeps the reason for this code: protobuf makes 25
// allocations a delivery.
func TestDecodingABatchAllocatesLittle(t *testing.T) {
	r := &DeliverRequest{Instance: "i"}
	for range 50 {
		d := &Delivery{}
		fill(d.ProtoReflect())
		r.Deliveries = append(r.Deliveries, d)
	}
	b, err := proto.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(10, func() {
		if !decodeRequest(b, new(DeliverRequest)) {
			t.Error("it was left to protobuf")
		}
	}); n > 4*50+10 {
		t.Errorf("%v allocations for 50 deliveries", n)
	}
}
