package sinks

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
)

// fill gives every field of a message a value, messages within included, and calls each
// with the path of every field that it set.
func fill(m protoreflect.Message, path string, each func(path string, clear func())) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		at := path + string(f.Name())
		switch {
		case f.IsMap():
			m.Mutable(f).Map().Set(protoreflect.ValueOfString("name").MapKey(), protoreflect.ValueOfString("value"))
		case f.IsList():
			m.Mutable(f).List().Append(protoreflect.ValueOfString("item"))
		case f.Message() != nil:
			fill(m.Mutable(f).Message(), at+".", each)
		default:
			m.Set(f, scalar(f))
		}
		each(at, func() { m.Clear(f) })
	}
}

func scalar(f protoreflect.FieldDescriptor) protoreflect.Value {
	switch f.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString("text")
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte("bytes"))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(7)
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(7)
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(7)
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(7)
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(7.5)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(1)
	}
	panic(fmt.Sprintf("%s: no value for %s", f.FullName(), f.Kind()))
}

// zeroFields are the paths of the fields within v that have their zero value.
func zeroFields(v reflect.Value, path string) (zero []string) {
	if v.Kind() == reflect.Pointer && !v.IsNil() {
		v = v.Elem()
	}
	if v.Kind() != reflect.Struct || v.Type() == reflect.TypeFor[time.Time]() {
		if v.IsZero() {
			return []string{path}
		}
		return nil
	}
	for i := range v.NumField() {
		zero = append(zero, zeroFields(v.Field(i), path+"."+v.Type().Field(i).Name)...)
	}
	return zero
}

// TestEveryFieldOfADeliveryIsCarried fails when either side gets a field that the other
// has not, or that fromDelivery forgets.
func TestEveryFieldOfADeliveryIsCarried(t *testing.T) {
	convert := func(p *sinkpb.Delivery) (d Delivery) {
		fromDelivery(&d, p)
		return d
	}
	full := &sinkpb.Delivery{}
	fill(full.ProtoReflect(), "", func(string, func()) {})
	if zero := zeroFields(reflect.ValueOf(convert(full)), "Delivery"); len(zero) > 0 {
		t.Errorf("nothing arrives in %q", zero)
	}
	fields := 0
	for n := 0; ; n++ {
		// The nth field of all is taken away: what arrives must differ.
		less, at, i := &sinkpb.Delivery{}, "", 0
		var take func()
		fill(less.ProtoReflect(), "", func(path string, clear func()) {
			if i == n {
				at, take = path, clear
			}
			i++
		})
		if take == nil {
			break
		}
		take()
		fields++
		if reflect.DeepEqual(convert(less), convert(full)) {
			t.Errorf("%s is not carried", at)
		}
	}
	if fields < 20 {
		t.Errorf("only %d fields were tried", fields)
	}
}

// emptyFields are the paths of the fields within m that are not set.
func emptyFields(m protoreflect.Message, path string) (empty []string) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if at := path + string(f.Name()); !m.Has(f) {
			empty = append(empty, at)
		}
	}
	return empty
}

// fillStruct gives every field of a struct a value.
func fillStruct(v reflect.Value) {
	for _, f := range v.Fields() {
		switch f.Kind() {
		case reflect.String:
			f.SetString("text")
		case reflect.Bool:
			f.SetBool(true)
		case reflect.Int:
			f.SetInt(7)
		case reflect.Float64:
			f.SetFloat(7.5)
		case reflect.Slice:
			f.Set(reflect.MakeSlice(f.Type(), 1, 1))
		default:
			panic(fmt.Sprintf("no value for %s", f.Type()))
		}
	}
}

// carried fills a struct and converts it: every field of the message must be set, and
// every field of the struct must make a difference.
func carried[T any, M proto.Message](t *testing.T, convert func(T) M) {
	t.Helper()
	var full T
	fillStruct(reflect.ValueOf(&full).Elem())
	message := convert(full)
	if empty := emptyFields(message.ProtoReflect(), fmt.Sprintf("%T.", message)); len(empty) > 0 {
		t.Errorf("nothing arrives in %q", empty)
	}
	for i := range reflect.TypeFor[T]().NumField() {
		less := full
		reflect.ValueOf(&less).Elem().Field(i).SetZero()
		if proto.Equal(convert(less), message) {
			t.Errorf("%T.%s is not carried", full, reflect.TypeFor[T]().Field(i).Name)
		}
	}
}

func TestEveryFieldOfAnAnswerIsCarried(t *testing.T) {
	verdict := &Verdict{Outcome: OutcomeRejected, Code: "code", After: time.Second, Status: 400, err: errors.New("because")}
	carried(t, func(r Receipt) *sinkpb.Result { return toResult("id", r, verdict, nil) })
	carried(t, func(c Capabilities) *sinkpb.Capabilities {
		p := toCapabilities(c)
		if c.UsesState && !c.OrderedPerEntry { // it is implied
			p.OrderedPerEntry = false
		}
		return p
	})
	carried(t, func(d Diagnostic) *sinkpb.Diagnostic { return toDiagnostics([]Diagnostic{d}, nil)[0] })
	carried(t, func(about struct{ Name, Version, Summary, Homepage string }) *sinkpb.DescribeResponse {
		k, err := Plugin[struct{}]{Name: "a" + about.Name, Version: about.Version, Summary: about.Summary, Homepage: about.Homepage,
			Open: func(context.Context, Env, struct{}) (Sink, error) { return nil, nil }}.kit()
		if err != nil {
			t.Fatal(err)
		}
		return k.about
	})
}

func TestEveryPartOfAVerdictIsCarried(t *testing.T) {
	full := Verdict{OutcomeRejected, "code", time.Second, 400, errors.New("because")}
	want := toResult("id", Receipt{}, &full, nil)
	for field := range reflect.TypeFor[Verdict]().Fields() {
		less := full
		switch name := field.Name; name {
		case "Outcome":
			less.Outcome = OutcomeSkipped
		case "Code":
			less.Code = ""
		case "After":
			less.After = 0
		case "Status":
			less.Status = 0
		case "err":
			less.err = nil
		default:
			t.Errorf("nobody knows how Verdict.%s is carried", name)
		}
		if proto.Equal(toResult("id", Receipt{}, &less, nil), want) {
			t.Errorf("Verdict.%s is not carried", field.Name)
		}
	}
	seen := map[sinkpb.Outcome]Outcome{}
	for o := OutcomeDelivered; o.String() != "unknown"; o++ {
		if other, ok := seen[toOutcome(o)]; ok {
			t.Errorf("%s and %s are both carried as %s", o, other, toOutcome(o))
		}
		seen[toOutcome(o)] = o
	}
	if want := len(sinkpb.Outcome_name) - 1; len(seen) != want {
		t.Errorf("%d outcomes are carried, the contract has %d", len(seen), want)
	}
	if toOutcome(0) != sinkpb.Outcome_OUTCOME_RETRY || toOutcome(99) != sinkpb.Outcome_OUTCOME_RETRY {
		t.Error("an outcome that is none is not a retry")
	}
}

type countingSink struct{ calls int }

func (s *countingSink) Deliver(context.Context, *Delivery) (Receipt, error) {
	s.calls++
	return Receipt{}, nil
}

func TestWhatTheTimeDoesNotReachIsARetry(t *testing.T) {
	s := &countingSink{}
	i := newInstance(s, Env{}, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	for _, r := range i.deliver(ctx, []*sinkpb.Delivery{{Id: "a"}, {Id: "b"}}) {
		if r.GetOutcome() != sinkpb.Outcome_OUTCOME_RETRY || r.GetCode() != "timeout" || r.GetDeliveryId() == "" {
			t.Errorf("result %v", r)
		}
	}
	if s.calls > 0 {
		t.Errorf("%d calls after the end of the time", s.calls)
	}
}

// TestADeliveryCostsLittle bounds what the package itself allocates for each delivery:
// neither reflection nor JSON has a place on this path.
func TestADeliveryCostsLittle(t *testing.T) {
	const batch = 64
	request := make([]*sinkpb.Delivery, batch)
	for n := range request {
		request[n] = &sinkpb.Delivery{}
		fill(request[n].ProtoReflect(), "", func(string, func()) {})
	}
	i := newInstance(&countingSink{}, Env{}, nil)
	got := testing.AllocsPerRun(20, func() { i.deliver(t.Context(), request) }) / batch
	// One for the result, one for the user, one for the closure that guards it.
	if got > 4 {
		t.Errorf("%.1f allocations for each delivery", got)
	}
}

func BenchmarkDeliver(b *testing.B) {
	p := &sinkpb.Delivery{Payload: make([]byte, 1024)}
	fill(p.ProtoReflect(), "", func(string, func()) {})
	i := newInstance(&countingSink{}, Env{}, nil)
	request := []*sinkpb.Delivery{p, p, p, p, p, p, p, p}
	b.ReportAllocs()
	for b.Loop() {
		i.deliver(b.Context(), request)
	}
}
