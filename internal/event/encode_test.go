package event

import (
	"fmt"
	"strings"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/id"
)

var placeholder = strings.Repeat("0", id.EventLen)

func TestThePeanutsPayloadIsTheDocumentedOne(t *testing.T) {
	const want = `{"event":"entry.created","timestamp":"2025-01-15T14:32:00.000Z","helper":{"id":"expenses","name":"Daily Expenses",` +
		`"command":"/expenses"},"entry":{"id":"entry-789-xyz","data":{"amount":42.5,"category":"Food & Dining","date":"2025-01-15"},` +
		`"created_at":"2025-01-15T14:32:00.000Z"},"user":{"id":"user-456"}}`
	h := &Helper{ID: "expenses", Name: "Daily Expenses", Command: "/expenses"}
	in := mustParse(t, `{"event":"entry.created","helper":"expenses","entry":{"id":"entry-789-xyz","created_at":"2025-01-15T14:32:00Z",
		"data":{"amount":42.50,"category":"Food \u0026 Dining","date":"2025-01-15"}},"user":{"id":"user-456"},"timestamp":"2025-01-15T14:32:00Z"}`)
	got, idAt := Encode(nil, in, h, FormatPeanuts, "evt_ignored")
	if string(got) != want || idAt != 0 {
		t.Errorf("got %s (id at %d), want\n%s", got, idAt, want)
	}
	again, _ := Encode([]byte("before"), mustParse(t, want), h, FormatPeanuts, "")
	if string(again) != "before"+want {
		t.Errorf("the payload given back became %s", again)
	}
}

func TestAPayloadWithoutUserAndCommand(t *testing.T) {
	in := mustParse(t, `{"event":"user.created","helper":"h","entry":{"id":"\ud83d\ude00\u0001\"","created_at":"2000-02-29T00:00:00Z"},
		"timestamp":"2001-01-01T00:00:00Z"}`)
	got, _ := Encode(nil, in, &Helper{ID: "h", Name: "a\"\n<b>"}, FormatPeanuts, "")
	if want := `{"event":"user.created","timestamp":"2001-01-01T00:00:00.000Z","helper":{"id":"h","name":"a\"\n<b>","command":""},` +
		`"entry":{"id":"😀\u0001\"","data":{},"created_at":"2000-02-29T00:00:00.000Z"}}`; string(got) != want {
		t.Errorf("got %s, want\n%s", got, want)
	}
}

func TestTheEventEnvelope(t *testing.T) {
	in := mustParse(t, `{"event":"payment.failed","helper":"h","entry":{"id":"e\"1","data":{"b":1}},"timestamp":"2025-01-15T14:32:00Z"}`)
	for _, row := range []struct{ id, want string }{
		{"", placeholder}, {"evt_my-own-id", "evt_my-own-id"}, {`a"\b`, `a\"\\b`},
	} {
		got, idAt := Encode(nil, in, &Helper{ID: "h"}, FormatEvent, row.id)
		if want := `{"id":"` + row.want + `","type":"payment.failed","created_at":"2025-01-15T14:32:00.000Z","data":{"id":"e\"1","b":1}}`; string(got) != want {
			t.Errorf("got %s, want\n%s", got, want)
		}
		if row.id != "" && idAt != 0 || row.id == "" && string(got[idAt:idAt+id.EventLen]) != placeholder {
			t.Errorf("event id %q: id at %d in %s", row.id, idAt, got)
		}
	}
	if got, idAt := Encode([]byte("before"), in, &Helper{}, FormatEvent, ""); string(got[idAt:idAt+id.EventLen]) != placeholder {
		t.Errorf("behind other bytes the id is not at %d", idAt)
	}
}

func TestWhatEncodingAddsToTheData(t *testing.T) {
	for _, row := range []struct{ fields, data, peanuts, event string }{
		{"", `{}`, `{}`, `{"id":"E"}`},
		{"", `{"a":1}`, `{"a":1}`, `{"id":"E","a":1}`},
		{"", `{"5":1}`, `{"5":1}`, `{"5":1,"id":"E"}`},
		{"", `{"5":1,"7":2,"a":3}`, `{"5":1,"7":2,"a":3}`, `{"5":1,"7":2,"id":"E","a":3}`},
		{"", `{"a":1,"id":7,"b":2}`, `{"a":1,"id":7,"b":2}`, `{"a":1,"id":7,"b":2}`},
		{"", `{"a":{"id":1}}`, `{"a":{"id":1}}`, `{"id":"E","a":{"id":1}}`},
		{"a", `{"a":null}`, `{"a":null}`, `{"id":"E","a":null}`},
		{"b a", `{}`, `{"b":null,"a":null}`, `{"id":"E","b":null,"a":null}`},
		{"b a", `{"a":1}`, `{"a":1,"b":null}`, `{"id":"E","a":1,"b":null}`},
		{"a b", `{"x":[{"b":1},"}",{}]}`, `{"x":[{"b":1},"}",{}],"a":null,"b":null}`, `{"id":"E","x":[{"b":1},"}",{}],"a":null,"b":null}`},
		{"a 10 9", `{}`, `{"9":null,"10":null,"a":null}`, `{"9":null,"10":null,"id":"E","a":null}`},
		{"10 a 8", `{"x":1,"9":2}`, `{"8":null,"9":2,"10":null,"x":1,"a":null}`, `{"8":null,"9":2,"10":null,"id":"E","x":1,"a":null}`},
		{"8", `{"9":2}`, `{"8":null,"9":2}`, `{"8":null,"9":2,"id":"E"}`},
		{"9", `{"8":2}`, `{"8":2,"9":null}`, `{"8":2,"9":null,"id":"E"}`},
		{"4294967295 08", `{"4294967294":2}`, `{"4294967294":2,"4294967295":null,"08":null}`, `{"4294967294":2,"id":"E","4294967295":null,"08":null}`},
		{"id a", `{}`, `{"id":null,"a":null}`, `{"id":"E","a":null}`},
		{"a id", `{"a":1,"id":"own"}`, `{"a":1,"id":"own"}`, `{"a":1,"id":"own"}`},
		{`q"u \u00 \`, `{"q\"u":1}`, `{"q\"u":1,"\\u00":null,"\\":null}`, `{"id":"E","q\"u":1,"\\u00":null,"\\":null}`},
		{`\n`, `{"\n":1}`, `{"\n":1,"\\n":null}`, `{"id":"E","\n":1,"\\n":null}`},
		{"é 😀", `{"\u00e9":1}`, `{"é":1,"😀":null}`, `{"id":"E","é":1,"😀":null}`},
		{"__proto__", `{}`, `{"__proto__":null}`, `{"id":"E","__proto__":null}`},
	} {
		h := &Helper{ID: "h"}
		for name := range strings.FieldsSeq(row.fields) {
			h.Fields = append(h.Fields, Field{Name: name, Type: String})
		}
		body := func(typ string) string {
			return `{"event":"` + typ + `","helper":"h","entry":{"id":"E","data":` + row.data + `}}`
		}
		peanuts, _ := Encode(nil, mustParse(t, body(Created)), h, FormatPeanuts, "")
		_, rest, _ := strings.Cut(string(peanuts), `"entry":{"id":"E","data":`)
		if got, _, _ := strings.Cut(rest, `,"created_at"`); got != row.peanuts {
			t.Errorf("fields %s, data %s: payload has %s, want %s", row.fields, row.data, got, row.peanuts)
		}
		if again, _ := Encode(nil, mustParse(t, string(peanuts)), h, FormatPeanuts, ""); string(again) != string(peanuts) {
			t.Errorf("fields %s: the payload given back changed to %s", row.fields, again)
		}
		event, _ := Encode(nil, mustParse(t, body(Created)), h, FormatEvent, "x")
		if _, got, _ := strings.Cut(string(event), `,"data":`); got != row.event+"}" {
			t.Errorf("fields %s, data %s: event has %s, want %s}", row.fields, row.data, got, row.event)
		}
		in := mustParse(t, body(Updated))
		updated, _ := Encode(nil, in, h, FormatPeanuts, "")
		if !strings.Contains(string(updated), `"data":`+string(in.Data)+`,"created_at"`) {
			t.Errorf("an update of %s became %s", row.data, updated)
		}
	}
}

func TestMoreFieldsThanUsual(t *testing.T) {
	h := &Helper{ID: "h"}
	var want strings.Builder
	for i := range 100 {
		h.Fields = append(h.Fields, Field{Name: fmt.Sprintf("f%02d", i), Type: Number})
		if i != 50 {
			fmt.Fprintf(&want, `,"f%02d":null`, i)
		}
	}
	got, _ := Encode(nil, mustParse(t, `{"event":"entry.created","helper":"h","entry":{"id":"e","data":{"f50":1}}}`), h, FormatPeanuts, "")
	if !strings.Contains(string(got), `{"f50":1`+want.String()+`}`) {
		t.Errorf("got %s", got)
	}
	if h.Fields[0].Name != "f00" || h.Fields[99].Name != "f99" {
		t.Error("the helper was modified")
	}
}

func TestCheckKnowsTheHelpersEvents(t *testing.T) {
	h := &Helper{ID: "shop", Events: []string{"user.created", "payment.failed"}}
	for _, row := range []struct {
		typ        string
		ok         bool
		suggestion string
	}{
		{Created, true, ""}, {Updated, true, ""}, {Deleted, true, ""}, {"user.created", true, ""}, {"payment.failed", true, ""},
		{"entry.create", false, "entry.created"}, {"Entry.Created", false, "entry.created"}, {"updated", false, "entry.updated"},
		{"payment.fialed", false, "payment.failed"}, {"invoice.paid", false, ""}, {"entry.created ", false, "entry.created"},
	} {
		err := (&Input{Type: row.typ, Data: []byte("{}")}).Check(h)
		if row.ok {
			if err != nil {
				t.Errorf("%s: %v", row.typ, err)
			}
			continue
		}
		e, ok := err.(*Error)
		if !ok || e.Status != 422 || e.Code != CodeUnknownEvent || e.Field != "event" || e.Offset != -1 || e.Suggestion != row.suggestion ||
			!strings.Contains(e.Message, "user.created") || !strings.Contains(e.Message, `"shop"`) {
			t.Errorf("%s: %+v", row.typ, err)
		}
	}
	if err := (&Input{Type: "user.created", Data: []byte("{}")}).Check(&Helper{}); err == nil {
		t.Error("a type that another helper declares is accepted")
	}
}

func TestCheckComparesValuesWithTheFields(t *testing.T) {
	types := []FieldType{Number, String, Boolean, List, Object}
	values := map[FieldType][]string{
		Number: {"0", "-1.5", "1e400"}, String: {`""`, `"1"`}, Boolean: {"true", "false"}, List: {"[]", `[1]`}, Object: {"{}", `{"a":[]}`},
	}
	for _, declared := range types {
		h := &Helper{ID: "h", Fields: []Field{{"other", String}, {`f"`, declared}}}
		for _, came := range types {
			for _, v := range values[came] {
				err := mustParse(t, withData(`{"undeclared":[],"f\u0022":`+v+`,"z":1}`)).Check(h)
				if declared == came {
					if err != nil {
						t.Errorf("%s for %s: %v", v, declared, err)
					}
					continue
				}
				e, ok := err.(*Error)
				if !ok || e.Status != 422 || e.Code != CodeFieldType || e.Field != `entry.data.f"` || e.Offset != -1 ||
					!strings.Contains(e.Message, "is "+article(string(came))) || !strings.Contains(e.Message, "declares "+article(string(declared))) {
					t.Errorf("%s for %s: %+v", v, declared, err)
				}
			}
		}
		for _, data := range []string{`{}`, `{"f\"":null}`, `{"x":{"f\"":[[]]},"y":["f\""]}`, `{"F\"":[{}]}`} {
			if err := mustParse(t, withData(data)).Check(h); err != nil {
				t.Errorf("%s: %v", data, err)
			}
		}
	}
}

func TestASampleFitsItsHelper(t *testing.T) {
	h := &Helper{ID: "expenses", Name: "Daily Expenses", Events: []string{"user.created"}, Fields: []Field{
		{"amount", Number}, {"category", String}, {"date", String}, {"paid", Boolean}, {"tags", List}, {"7", Number},
		{"created_at", String}, {"contact-email", String}, {`odd"name`, String}, {"place", Object}, {"title", String}, {"n", Number}, {"dueDate", String}, {"unitURL", String}}}
	in := Sample(h, Created, "test_1", testNow)
	const data = `{"7":1,"amount":42.5,"category":"Food & Dining","date":"2025-01-15","paid":true,"tags":["sample"],` +
		`"created_at":"2025-01-15T13:32:00.123Z","contact-email":"sample@example.com","odd\"name":"Sample odd\"name",` +
		`"place":{"sample":true},"title":"Sample title","n":1,"dueDate":"2025-01-15","unitURL":"https://example.com/sample?a=1&b=2"}`
	if string(in.Data) != data {
		t.Errorf("data is %s, want\n%s", in.Data, data)
	}
	if again := Sample(h, Created, "test_1", testNow); string(again.Data) != data || again.Timestamp != in.Timestamp {
		t.Error("a second sample differs")
	}
	for _, typ := range h.Types() {
		for _, helper := range []*Helper{h, {ID: "bare", Events: []string{typ}}} {
			in := Sample(helper, typ, "test_1", testNow)
			if err := in.Check(helper); err != nil {
				t.Errorf("%s of %s: %v", typ, helper.ID, err)
			}
			payload, _ := Encode(nil, in, helper, FormatPeanuts, "")
			back, err := Parse(payload, testNow)
			if err != nil || back.EntryID != "test_1" || back.HelperID != helper.ID || !back.HasUser || string(back.Data) != string(in.Data) || len(back.Data) < 10 {
				t.Errorf("%s of %s: %s is read back as %+v, %v", typ, helper.ID, payload, back, err)
			}
		}
	}
}
