package pluginhost

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/secret"
	"github.com/peanutsapp/peanuts-relay/internal/signing"
	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
	"github.com/peanutsapp/peanuts-relay/sinks"
)

// bare is an instance that converts and does nothing else.
func bare(t testing.TB) *Instance {
	t.Helper()
	signer, err := signing.New([]signing.Spec{{Scheme: signing.Hex}}, []secret.String{secret.New("0123456789abcdef")})
	if err != nil {
		t.Fatal(err)
	}
	h := New(Options{})
	i := h.newInstance(newBinary(h, file(), nil), InstanceOptions{File: file(), Webhook: "expenses.sheet", Signer: signer})
	return i
}

// each yields the fields of a message and of the messages in it.
func each(m protoreflect.Message, path string, yield func(path string, set bool)) {
	fields := m.Descriptor().Fields()
	for n := range fields.Len() {
		f := fields.Get(n)
		at := path + "." + string(f.Name())
		yield(at, m.Has(f))
		if f.Message() != nil && !f.IsList() && !f.IsMap() && m.Has(f) {
			each(m.Get(f).Message(), at, yield)
		}
	}
}

func fullOutbound() *delivery.Outbound {
	o := outbound("1")
	o.Test, o.Sequence, o.Attempt, o.Crashes, o.EntryState = true, 7, 3, 1, []byte("state")
	o.Payload = []byte(strings.ReplaceAll(string(o.Payload), ".000Z", ".123Z"))
	return o
}

func TestEveryFieldOfADeliveryIsCarriedAcross(t *testing.T) {
	i := bare(t)
	req, whole := i.request([]*delivery.Outbound{fullOutbound()}, []*delivery.Attempt{{}}, time.Now())
	if !whole || req.GetInstance() != i.id || i.id == "" {
		t.Fatalf("request %v", req)
	}
	n := 0
	each(req.GetDeliveries()[0].ProtoReflect(), "delivery", func(path string, set bool) {
		n++
		if !set {
			t.Errorf("%s is not set", path)
		}
	})
	if n < 20 {
		t.Errorf("only %d fields were seen", n)
	}
	d := req.GetDeliveries()[0]
	if d.GetTimestamp().AsTime() != time.Date(2025, 1, 15, 14, 32, 0, 123e6, time.UTC) || d.GetEntry().GetCreatedAt().AsTime().Minute() != 31 ||
		string(d.GetEntry().GetDataJson()) != `{"amount":42.5}` || d.GetHelper().GetName() != "Daily" || d.GetUser().GetId() != "u" {
		t.Errorf("got %v", d)
	}
}

func TestEveryFieldOfAnOutboundMatters(t *testing.T) {
	i := bare(t)
	convert := func(o *delivery.Outbound) string {
		req, _ := i.request([]*delivery.Outbound{o}, []*delivery.Attempt{{}}, time.Unix(1e9, 0))
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(req)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	before := convert(fullOutbound())
	for _, f := range reflect.VisibleFields(reflect.TypeFor[delivery.Outbound]()) {
		if f.Name == "Crashes" || f.Name == "Replayed" {
			continue // how the host sends it, not what; and no plugin gets what goes elsewhere
		}
		o := fullOutbound()
		change(reflect.ValueOf(o).Elem().FieldByIndex(f.Index))
		if f.Name == "Payload" {
			o.Payload = []byte(strings.Replace(string(fullOutbound().Payload), "42.5", "43", 1))
		}
		if convert(o) == before {
			t.Errorf("%s changes nothing of the request", f.Name)
		}
	}
}

// change gives a value another one.
func change(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(v.String() + "x")
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Slice:
		v.Set(reflect.AppendSlice(v, reflect.MakeSlice(v.Type(), 1, 1)))
	case reflect.Int:
		v.SetInt(v.Int() + 1)
	case reflect.Uint64:
		v.SetUint(v.Uint() + 1)
	default:
		panic("change does not know " + v.Kind().String())
	}
}

// fill sets a field of a message to something.
func fill(m protoreflect.Message, f protoreflect.FieldDescriptor) {
	switch {
	case f.IsList():
		l := m.Mutable(f).List()
		l.Append(protoreflect.ValueOfString("entry.created"))
	case f.Message() != nil:
		m.Set(f, protoreflect.ValueOfMessage(durationpb.New(time.Minute).ProtoReflect()))
	case f.Kind() == protoreflect.StringKind:
		m.Set(f, protoreflect.ValueOfString(map[protoreflect.Name]string{"remote_url": "https://example.com/", "path": "/a"}[f.Name()]+"x"))
	case f.Kind() == protoreflect.BytesKind:
		m.Set(f, protoreflect.ValueOfBytes([]byte("x")))
	case f.Kind() == protoreflect.Uint32Kind:
		m.Set(f, protoreflect.ValueOfUint32(7))
	case f.Kind() == protoreflect.DoubleKind:
		m.Set(f, protoreflect.ValueOfFloat64(7))
	case f.Kind() == protoreflect.BoolKind:
		m.Set(f, protoreflect.ValueOfBool(true))
	case f.Kind() == protoreflect.EnumKind:
		m.Set(f, protoreflect.ValueOfEnum(2))
	default:
		panic("fill does not know " + f.Kind().String())
	}
}

func TestEveryFieldOfAResultMatters(t *testing.T) {
	i := bare(t)
	fields := (&sinkpb.Result{}).ProtoReflect().Descriptor().Fields()
	for n := range fields.Len() {
		f := fields.Get(n)
		matters := false
		for outcome := range sinkpb.Outcome_name {
			convert := func(r *sinkpb.Result) string {
				a := &delivery.Attempt{}
				i.results([]*delivery.Outbound{{DeliveryID: "x"}}, []*delivery.Attempt{a}, []*sinkpb.Result{r})
				return fmt.Sprintf("%+v", a)
			}
			plain := &sinkpb.Result{DeliveryId: "x", Outcome: sinkpb.Outcome(outcome), Message: "m"}
			filled := proto.Clone(plain).(*sinkpb.Result)
			fill(filled.ProtoReflect(), f)
			if f.Name() == "delivery_id" {
				filled.DeliveryId = "y"
			}
			matters = matters || convert(plain) != convert(filled)
		}
		if !matters {
			t.Errorf("%s changes nothing of an attempt", f.Name())
		}
	}
}

func TestEveryFieldOfADiagnosticMatters(t *testing.T) {
	b := bare(t).b
	fields := (&sinkpb.Diagnostic{}).ProtoReflect().Descriptor().Fields()
	for n := range fields.Len() {
		d := &sinkpb.Diagnostic{}
		fill(d.ProtoReflect(), fields.Get(n))
		if got := b.diagnostics([]*sinkpb.Diagnostic{d, {}}); got[0] == got[1] {
			t.Errorf("%s changes nothing of a finding", fields.Get(n).Name())
		}
	}
}

func TestEveryCapabilityIsCarriedAcross(t *testing.T) {
	full := &sinkpb.Capabilities{}
	fields := full.ProtoReflect().Descriptor().Fields()
	for n := range fields.Len() {
		one := &sinkpb.Capabilities{}
		fill(one.ProtoReflect(), fields.Get(n))
		fill(full.ProtoReflect(), fields.Get(n))
		if reflect.DeepEqual(capabilities(one), capabilities(nil)) {
			t.Errorf("%s changes nothing", fields.Get(n).Name())
		}
	}
	for _, v := range []any{capabilities(full), limits(capabilities(full))} {
		for field, value := range reflect.ValueOf(v).Fields() {
			if value.IsZero() {
				t.Errorf("%T.%s is not set", v, field.Name)
			}
		}
	}
}

func TestWhatAPluginClaimsToBeAbleToIsBounded(t *testing.T) {
	all := ^uint32(0)
	got := capabilities(&sinkpb.Capabilities{MaxBatch: all, MaxBatchBytes: all, MaxConcurrency: all, Burst: all, MaxPerSecond: -1,
		Events: []string{"entry.created", "entry.created", "ENTRY", "", "a b.c", strings.Repeat("a.", 100) + "b", "entry.deleted"}})
	want := sinks.Capabilities{MaxBatch: 1000, MaxBatchBytes: 3 << 20, MaxConcurrency: 1024, Burst: 10_000, Events: []string{"entry.created", "entry.deleted"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
	nan := 0.0
	nan /= nan
	for _, rate := range []float64{nan, 1 / (nan * 0), -5} {
		if got := capabilities(&sinkpb.Capabilities{MaxPerSecond: rate}); got.MaxPerSecond != 0 {
			t.Errorf("a rate of %g is taken for %g", rate, got.MaxPerSecond)
		}
	}
	if l := limits(capabilities(nil)); l != (delivery.Limits{Batch: 1}) {
		t.Errorf("without capabilities: %+v", l)
	}
}

func TestFindingsOfAPluginAreCleaned(t *testing.T) {
	b := bare(t).b
	b.hide([]secret.String{secret.New("tok-12345")})
	got := b.diagnostics([]*sinkpb.Diagnostic{
		{Path: "/token", Summary: "tok-12345\x1b[0m is wrong", Detail: "not tok-12345"},
		{Path: "token", Summary: "no pointer", Severity: sinkpb.Severity_SEVERITY_WARNING},
		{Path: "/" + strings.Repeat("a", 2<<10), Severity: 99},
		{Path: "/tok-12345", Summary: strings.Repeat("s", 1000)},
		{Path: "/a\u009b2J\u202eb\x7f", Summary: "escapes"}, // CSI in one character, and a change of direction
	})
	want := []Diagnostic{
		{Path: "/token", Summary: "********?[0m is wrong", Detail: "not ********"},
		{Summary: "token: no pointer", Warning: true},
		{Summary: "/" + strings.Repeat("a", 99) + "…:"},
		{Path: "/********", Summary: strings.Repeat("s", 500) + "…"},
		{Summary: "/a?2J?b?: escapes"},
	}
	for n := range want {
		got[n].Summary = strings.TrimSpace(got[n].Summary)
		if got[n] != want[n] {
			t.Errorf("got  %+v\nwant %+v", got[n], want[n])
		}
	}
}

func TestPartsOfSecretsAreMaskedToo(t *testing.T) {
	b := bare(t).b
	b.hide([]secret.String{
		secret.New("https://user:hunter22@hooks.example.com/services/T0000000/B1111111?key=abcdef"),
		secret.New(`{"type":"service_account","client_email":"robot@example.com","private_key":"-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0B\nZZZZZZZZZZZZZZZZZZ\n-----END KEY-----\n"}`),
		secret.New("short"), secret.New("abc"),
	})
	for text, want := range map[string]string{
		"POST /services/T0000000/B1111111?key=abcdef failed": "POST ******** failed",
		"no such hook B1111111":                              "no such hook ********",
		"hunter22 and abcdef":                                "******** and ********",
		"bad line MIIEvQIBADANBgkqhkiG9w0B":                  "bad line ********",
		"share it with robot@example.com of service_account": "share it with robot@example.com of service_account",
		"short, abc":          "********, abc",
		"hooks.example.com":   "hooks.example.com",
		"-----BEGIN KEY-----": "-----BEGIN KEY-----",
		`"quoted\/services\/T0000000\/B1111111?key=abcdef"`: `"quoted********"`,
	} {
		if got := b.text(text, 1000); got != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
}

func TestAPayloadOfTheOtherFormatGetsItsHelperFromTheWebhook(t *testing.T) {
	i := bare(t)
	o := outbound("1")
	o.Payload = []byte(`{"id":"evt_1","type":"entry.created","created_at":"2025-01-15T14:32:00.000Z","data":{"id":"entry-1","amount":1}}`)
	req, whole := i.request([]*delivery.Outbound{o}, []*delivery.Attempt{{}}, time.Now())
	d := req.GetDeliveries()[0]
	if !whole || d.GetHelper().GetId() != "expenses" || d.GetEntry().GetId() != "entry-1" || string(d.GetEntry().GetDataJson()) != `{"id":"entry-1","amount":1}` || d.User != nil || d.GetEntry().CreatedAt != nil {
		t.Errorf("got %v", d)
	}
	i.opts.Helper = sinks.Helper{ID: "h", Name: "N", Command: "/n"}
	req, _ = i.request([]*delivery.Outbound{o}, []*delivery.Attempt{{}}, time.Now())
	if h := req.GetDeliveries()[0].GetHelper(); h.GetId() != "h" || h.GetName() != "N" || h.GetCommand() != "/n" {
		t.Errorf("got %v", h)
	}
}

func TestNoTextBreaksACall(t *testing.T) {
	i := bare(t)
	o := outbound("1")
	o.DeliveryID, o.EventID, o.EventType, o.EntryID, o.Webhook = "\xff", "\xff", "\xff", "\xff", "\xff"
	o.Payload = []byte("{\"event\":\"\xff\",\"timestamp\":\"2025-01-15T14:32:00.000Z\",\"helper\":{\"id\":\"\xff\",\"name\":\"\\ud800\"},\"entry\":{\"id\":\"\xff\",\"data\":{}},\"user\":{\"id\":\"\xff\"}}")
	req, _ := i.request([]*delivery.Outbound{o}, []*delivery.Attempt{{}}, time.Now())
	if _, err := proto.Marshal(req); err != nil {
		t.Error(err)
	}
}
