package event

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"
)

var testNow = time.Date(2025, 1, 15, 14, 32, 0, 123_987_654, time.FixedZone("", 3600))

// withData is an event around an entry's data.
func withData(data string) string { return dataBefore + data + dataAfter }

const (
	dataBefore = `{"event":"entry.updated","helper":"h","entry":{"id":"e","data":`
	dataAfter  = `}}`
)

func mustParse(t testing.TB, body string) *Input {
	t.Helper()
	in, err := Parse([]byte(body), testNow)
	if err != nil {
		t.Fatalf("Parse(%s): %v", clip(body), err)
	}
	return in
}

// refusal is Parse's error as its own type.
func refusal(t *testing.T, body string) *Error {
	t.Helper()
	in, err := Parse([]byte(body), testNow)
	e, ok := errors.AsType[*Error](err)
	if !ok || in != nil {
		t.Fatalf("Parse(%q) = %v, %v; want an *Error alone", clip(body), in, err)
	}
	return e
}

func TestTheSmallestEventGetsDefaults(t *testing.T) {
	in := mustParse(t, ` {"event":"entry.deleted", "helper":"expenses", "entry":{"id":"e-1"}}`+"\r\n\t")
	now := time.Date(2025, 1, 15, 13, 32, 0, 123_000_000, time.UTC)
	if in.Type != Deleted || in.HelperID != "expenses" || in.EntryID != "e-1" || in.ID != "" || in.HasUser || in.UserID != "" ||
		string(in.Data) != "{}" || in.Unstable || !in.Timestamp.Equal(now) || !in.CreatedAt.Equal(now) {
		t.Errorf("got %+v with data %s", in, in.Data)
	}
	if in.Timestamp.Location() != time.UTC {
		t.Errorf("timestamp is in %v", in.Timestamp.Location())
	}
}

func TestAllFieldsAreRead(t *testing.T) {
	in := mustParse(t, `{"user":{"id":"user-456"},"timestamp":"2025-01-15T15:32:00.9999+01:00","id":"my:own/id~","entry":
		{"data":{"amount":42.50},"created_at":"2024-12-31T23:59:59Z","id":"entry \u00e9 \ud83d\ude00\n"},
		"helper":{"command":"/x","id":"expenses","name":"\ud800"},"\u0065vent":"user.created"}`)
	if in.Type != "user.created" || in.HelperID != "expenses" || in.EntryID != "entry é 😀\n" || in.ID != "my:own/id~" ||
		!in.HasUser || in.UserID != "user-456" || string(in.Data) != `{"amount":42.5}` {
		t.Errorf("got %+v with data %s", in, in.Data)
	}
	if got := string(appendTime(nil, in.Timestamp)) + string(appendTime(nil, in.CreatedAt)); got !=
		`"2025-01-15T14:32:00.999Z""2024-12-31T23:59:59.000Z"` {
		t.Errorf("times are %s", got)
	}
}

func TestAnInputKeepsNoReferenceToTheBody(t *testing.T) {
	body := []byte(`{"event":"entry.created","helper":"h","entry":{"id":"abc","data":{"k":"value"}},"user":{"id":"u"},"id":"i"}`)
	in, err := Parse(body, testNow)
	if err != nil {
		t.Fatal(err)
	}
	for i := range body {
		body[i] = 'X'
	}
	if in.Type != Created || in.EntryID != "abc" || in.UserID != "u" || in.ID != "i" || string(in.Data) != `{"k":"value"}` {
		t.Errorf("after the body was overwritten: %+v, data %s", in, in.Data)
	}
}

func TestANullUserIsNoUser(t *testing.T) {
	in := mustParse(t, `{"event":"a.b","helper":"h","user":null,"entry":{"id":"e","data":{"user":null}}}`)
	if in.HasUser || string(in.Data) != `{"user":null}` {
		t.Errorf("got %+v", in)
	}
}

// TestBrokenTextsAreRefusedAtTheByte has «» around the byte that the error must
// name, or «» alone at the end of the text. It is long because it is a table.
func TestBrokenTextsAreRefusedAtTheByte(t *testing.T) {
	deep := func(n int, inner string) string { return strings.Repeat("[", n) + inner + strings.Repeat("]", n) }
	for _, row := range []struct{ name, code, body string }{
		{"nothing", CodeInvalidJSON, `«»`},
		{"only space", CodeInvalidJSON, " \n«»"},
		{"byte order mark", CodeInvalidJSON, "«\xef»\xbb\xbf{}"},
		{"a word", CodeInvalidJSON, `«h»ello`},
		{"half a word", CodeInvalidJSON, `{"user":nul«}»`},
		{"cut word", CodeInvalidJSON, `{"user":nul«»`},
		{"misspelled word", CodeInvalidJSON, withData(`{"a":t«R»UE}`)},
		{"cut after the brace", CodeInvalidJSON, `{«»`},
		{"cut after a key", CodeInvalidJSON, `{"event"«»`},
		{"cut after a colon", CodeInvalidJSON, `{"event":«»`},
		{"cut in a string", CodeInvalidJSON, `{"event":"entry«»`},
		{"cut after a backslash", CodeInvalidJSON, `{"event":"entry\«»`},
		{"cut in an escape", CodeInvalidJSON, `{"event":"entry\u00«»`},
		{"no colon", CodeInvalidJSON, `{"event" «"»entry.created"}`},
		{"no comma", CodeInvalidJSON, `{"event":"a.b" «"»helper":"h"}`},
		{"trailing comma", CodeInvalidJSON, `{"event":"a.b",«}»`},
		{"trailing comma in a list", CodeInvalidJSON, withData(`{"a":[1,«]»}`)},
		{"two commas", CodeInvalidJSON, withData(`{"a":1,«,»"b":2}`)},
		{"mismatched bracket", CodeInvalidJSON, withData(`{"a":[1«}»`)},
		{"single quotes", CodeInvalidJSON, `{«'»event':'a.b'}`},
		{"bare key", CodeInvalidJSON, `{«e»vent:"a.b"}`},
		{"comment", CodeInvalidJSON, `{«/»* hi */"event":"a.b"}`},
		{"NaN", CodeInvalidJSON, withData(`{"a":«N»aN}`)},
		{"infinity", CodeInvalidJSON, withData(`{"a":-«I»nfinity}`)},
		{"plus sign", CodeInvalidJSON, withData(`{"a":«+»1}`)},
		{"leading zero", CodeInvalidJSON, withData(`{"a":«0»1}`)},
		{"leading zero after the sign", CodeInvalidJSON, withData(`{"a":-«0»0}`)},
		{"no digit before the point", CodeInvalidJSON, withData(`{"a":«.»5}`)},
		{"no digit after the point", CodeInvalidJSON, withData(`{"a":1.«}»`)},
		{"no digit in the exponent", CodeInvalidJSON, withData(`{"a":1e+«,»`)},
		{"hexadecimal", CodeInvalidJSON, withData(`{"a":0«x»10}`)},
		{"raw control character", CodeInvalidJSON, withData("{\"a\":\"x«\n»\"}")},
		{"raw NUL", CodeInvalidJSON, withData("{\"a\":\"«\x00»\"}")},
		{"unknown escape", CodeInvalidJSON, withData(`{"a":"«\»x41"}`)},
		{"escape that is not hexadecimal", CodeInvalidJSON, withData(`{"a":"«\»u12g4"}`)},
		{"escape cut by the quote", CodeInvalidJSON, withData(`{"a":"«\»u12"}`)},
		{"another kind of space", CodeInvalidJSON, "{«\u00a0»}"},
		{"vertical tab", CodeInvalidJSON, "{«\v»}"},
		{"trailing brace", CodeInvalidJSON, withData(`{}`) + `«}»`},
		{"trailing NUL", CodeInvalidJSON, withData(`{}`) + "«\x00»"},
		{"a second event", CodeInvalidJSON, withData(`{}`) + "\n«{»}"},
		{"a list and a rest", CodeInvalidJSON, `[] «x»`},

		{"stray byte in a string", CodeInvalidUTF8, withData("{\"a\":\"ab«\xff»\"}")},
		{"stray continuation in a key", CodeInvalidUTF8, withData("{\"«\x80»\":1}")},
		{"overlong", CodeInvalidUTF8, withData("{\"a\":\"«\xc0»\x80\"}")},
		{"encoded surrogate", CodeInvalidUTF8, withData("{\"a\":\"«\xed»\xa0\x80\"}")},
		{"beyond Unicode", CodeInvalidUTF8, withData("{\"a\":\"«\xf4»\x90\x80\x80\"}")},
		{"cut character", CodeInvalidUTF8, withData("{\"a\":\"«\xe2»\x82\"}")},
		{"in a field's value", CodeInvalidUTF8, "{\"event\":\"«\xff»\"}"},
		{"between tokens", CodeInvalidUTF8, "{«\xff»}"},
		{"after the end", CodeInvalidUTF8, withData(`{}`) + "«\xfe»"},

		{"duplicate", CodeDuplicateKey, withData(`{"a":1,«"»a":1}`)},
		{"duplicate by escape", CodeDuplicateKey, withData(`{"a":1,"b":2, «"»\u0061":3}`)},
		{"duplicate by other escapes", CodeDuplicateKey, withData(`{"\/\ud83d\ude00\n":1,«"»/😀\u000A":3}`)},
		{"duplicate empty key", CodeDuplicateKey, withData(`{"":1,«"»":1}`)},
		{"duplicate number", CodeDuplicateKey, withData(`{"10":1,"b":0,«"»1\u0030":1}`)},
		{"duplicate lone surrogate", CodeDuplicateKey, withData(`{"\uD800":1,«"»\ud800":1}`)},
		{"duplicate __proto__", CodeDuplicateKey, withData(`{"__proto__":1,«"»__proto__":1}`)},
		{"duplicate in a list", CodeDuplicateKey, withData(`{"a":[{"b":1},{"b":1,«"»b":2}]}`)},
		{"duplicate field", CodeDuplicateKey, `{"event":"a.b","helper":"h",«"»event":"a.b"}`},
		{"duplicate field by escape", CodeDuplicateKey, `{"event":"a.b","helper":"h",«"»\u0065vent":"a.b"}`},
		{"duplicate entry.id", CodeDuplicateKey, `{"entry":{"id":"1",«"»id":"1"}}`},
		{"duplicate beneath an unknown field", CodeDuplicateKey, `{"x":{"a":1,«"»a":2}}`},

		{"65 levels of lists", CodeTooDeep, withData(`{"a":` + strings.Repeat("[", 61) + `«[»`)},
		{"65 levels of objects", CodeTooDeep, withData(`{"a":` + strings.Repeat(`{"a":`, 61) + `«{»`)},
		{"a bomb of brackets", CodeTooDeep, strings.Repeat("[", 64) + "«[»" + strings.Repeat("[", 1<<20)},
		{"65 levels of nothing", CodeTooDeep, withData(`{"a":` + deep(61, "«[»]") + `}`)},

		{"unknown field", CodeUnknownField, `{«"»foo":1}`},
		{"unknown field of entry", CodeUnknownField, `{"entry":{"id":"e", «"»foo":{"x":[1e3]}}}`},
		{"unknown field before a missing one", CodeUnknownField, `{"event":1,«"»foo":1}`},
		{"the first of two unknown fields", CodeUnknownField, `{«"»foo":1,"bar":2}`},
		{"broken text behind an unknown field", CodeInvalidJSON, `{"foo":1,"bar":«x»}`},
		{"broken text behind a wrong type", CodeInvalidJSON, `{"event":1,"helper":[1«»`},
	} {
		at := strings.Index(row.body, "«")
		body := strings.NewReplacer("«", "", "»", "").Replace(row.body)
		e := refusal(t, body)
		if e.Code != row.code || e.Offset != int64(at) || e.Status != 400 {
			t.Errorf("%s: %d %s at byte %d, want 400 %s at byte %d: %s", row.name, e.Status, e.Code, e.Offset, row.code, at, e.Message)
		}
		if !strings.HasSuffix(e.Message, ")") && e.Suggestion == "" || len(e.Message) > 300 {
			t.Errorf("%s: message %q", row.name, e.Message)
		}
	}
}

// TestEventsThatSayTheWrongThingAreRefusedByField is long because it is a table.
func TestEventsThatSayTheWrongThingAreRefusedByField(t *testing.T) {
	entry := func(s string) string { return `{"event":"a.b","helper":"h","entry":` + s + `}` }
	extra := func(s string) string { return `{"event":"a.b","helper":"h","entry":{"id":"e"},` + s + `}` }
	x := func(n int) string { return strings.Repeat("x", n) }
	for _, row := range []struct{ code, field, body string }{
		{CodeWrongType, "", `[]`},
		{CodeWrongType, "", `null`},
		{CodeWrongType, "", ` "event" `},
		{CodeWrongType, "", `12e3`},

		{CodeMissingField, "event", `{}`},
		{CodeMissingField, "event", `{"helper":"h","entry":{"id":"e"}}`},
		{CodeMissingField, "event", `{"event":"","helper":"h","entry":{"id":"e"}}`},
		{CodeWrongType, "event", `{"event":null,"helper":"h","entry":{"id":"e"}}`},
		{CodeWrongType, "event", `{"event":["a.b"],"helper":"h","entry":{"id":"e"}}`},

		{CodeMissingField, "helper", `{"event":"a.b","entry":{"id":"e"}}`},
		{CodeMissingField, "helper", `{"event":"a.b","helper":"","entry":{"id":"e"}}`},
		{CodeMissingField, "helper.id", `{"event":"a.b","helper":{},"entry":{"id":"e"}}`},
		{CodeMissingField, "helper.id", `{"event":"a.b","helper":{"name":"x"},"entry":{"id":"e"}}`},
		{CodeMissingField, "helper.id", `{"event":"a.b","helper":{"id":""},"entry":{"id":"e"}}`},
		{CodeWrongType, "helper", `{"event":"a.b","helper":7,"entry":{"id":"e"}}`},
		{CodeWrongType, "helper", `{"event":"a.b","helper":null,"entry":{"id":"e"}}`},
		{CodeWrongType, "helper.id", `{"event":"a.b","helper":{"id":7},"entry":{"id":"e"}}`},
		{CodeWrongType, "helper.name", `{"event":"a.b","helper":{"id":"h","name":null},"entry":{"id":"e"}}`},
		{CodeWrongType, "helper.command", `{"event":"a.b","helper":{"id":"h","command":false},"entry":{"id":"e"}}`},
		{CodeTooLong, "helper", `{"event":"a.b","helper":"` + x(65) + `","entry":{"id":"e"}}`},
		{CodeTooLong, "helper.id", `{"event":"a.b","helper":{"id":"` + x(65) + `"},"entry":{"id":"e"}}`},
		{CodeBadID, "helper", `{"event":"a.b","helper":"\udc00","entry":{"id":"e"}}`},

		{CodeMissingField, "entry.id", `{"event":"a.b","helper":"h"}`},
		{CodeMissingField, "entry.id", entry(`{}`)},
		{CodeMissingField, "entry.id", entry(`{"id":""}`)},
		{CodeMissingField, "entry.id", entry(`{"data":{"id":"e"}}`)},
		{CodeWrongType, "entry", entry(`"e"`)},
		{CodeWrongType, "entry", entry(`null`)},
		{CodeWrongType, "entry.id", entry(`{"id":12}`)},
		{CodeWrongType, "entry.id", entry(`{"id":null}`)},
		{CodeWrongType, "entry.id", entry(`{"id":{"a":"b"}}`)},
		{CodeTooLong, "entry.id", entry(`{"id":"` + x(1025) + `"}`)},
		{CodeTooLong, "entry.id", entry(`{"id":"` + strings.Repeat(`\u00e9`, 513) + `"}`)},
		{CodeBadID, "entry.id", entry(`{"id":"a\ud83d"}`)},
		{CodeWrongType, "entry.data", entry(`{"id":"e","data":[]}`)},
		{CodeWrongType, "entry.data", entry(`{"id":"e","data":null}`)},
		{CodeWrongType, "entry.data", entry(`{"id":"e","data":"{}"}`)},
		{CodeWrongType, "entry.created_at", entry(`{"id":"e","created_at":1736951520}`)},
		{CodeWrongType, "entry.created_at", entry(`{"id":"e","created_at":null}`)},
		{CodeBadTime, "entry.created_at", entry(`{"id":"e","created_at":"yesterday"}`)},

		{CodeWrongType, "timestamp", extra(`"timestamp":0`)},
		{CodeBadTime, "timestamp", extra(`"timestamp":""`)},
		{CodeWrongType, "user", extra(`"user":"u"`)},
		{CodeMissingField, "user.id", extra(`"user":{}`)},
		{CodeMissingField, "user.id", extra(`"user":{"id":""}`)},
		{CodeWrongType, "user.id", extra(`"user":{"id":5}`)},
		{CodeTooLong, "user.id", extra(`"user":{"id":"` + x(1025) + `"}`)},
		{CodeWrongType, "id", extra(`"id":5`)},
		{CodeBadID, "id", extra(`"id":""`)},
		{CodeBadID, "id", extra(`"id":"a b"`)},
		{CodeBadID, "id", extra(`"id":"é"`)},
		{CodeBadID, "id", extra(`"id":"\u007f"`)},
		{CodeBadID, "id", extra(`"id":"` + x(256) + `"`)},
		{CodeWrongType, "event", `{"event":1,"helper":2,"entry":3}`},
	} {
		e := refusal(t, row.body)
		if e.Status != 422 || e.Code != row.code || e.Field != row.field || e.Offset != -1 {
			t.Errorf("%s: %d %s field %q offset %d, want 422 %s field %q: %s",
				clip(row.body), e.Status, e.Code, e.Field, e.Offset, row.code, row.field, e.Message)
		}
		if e.Error() != e.Message || !strings.HasPrefix(e.Message, row.field) {
			t.Errorf("%s: message %q", clip(row.body), e.Message)
		}
	}
}

func TestLimitsAreInclusive(t *testing.T) {
	x := func(n int) string { return strings.Repeat("x", n) }
	in := mustParse(t, `{"id":"`+x(MaxIDLen)+`","event":"a.b","helper":"`+x(MaxHelperIDLen)+`","entry":{"id":"`+x(MaxEntryIDLen)+
		`"},"user":{"id":"`+x(MaxUserIDLen)+`"}}`)
	if len(in.ID) != MaxIDLen || len(in.HelperID) != MaxHelperIDLen || len(in.EntryID) != MaxEntryIDLen || len(in.UserID) != MaxUserIDLen {
		t.Errorf("lengths %d %d %d %d", len(in.ID), len(in.HelperID), len(in.EntryID), len(in.UserID))
	}
	// The event, the entry and the data are three levels.
	deepest := `{"a":` + strings.Repeat(`[`, MaxDepth-3) + strings.Repeat(`]`, MaxDepth-3) + `}`
	if in := mustParse(t, withData(deepest)); string(in.Data) != deepest {
		t.Errorf("64 levels became %s", in.Data)
	}
}

func TestUnknownFieldsComeWithASuggestion(t *testing.T) {
	for _, row := range []struct{ field, suggestion, body string }{
		{"Event", "event", `{"Event":"a.b"}`},
		{"timestmap", "timestamp", `{"timestmap":"x"}`},
		{"helpers", "helper", `{"helpers":{}}`},
		{"data", "entry.data", `{"data":{}}`},
		{"created_at", "entry.created_at", `{"created_at":{}}`},
		{"entry.dat", "entry.data", `{"entry":{"dat":{}}}`},
		{"entry.createdAt", "entry.created_at", `{"entry":{"createdAt":{}}}`},
		{"entry.amount", "", `{"entry":{"amount":{}}}`},
		{"user.ID", "user.id", `{"user":{"ID":1}}`},
		{"user.name", "helper.name", `{"user":{"name":1}}`},
		{"helper.command ", "helper.command", `{"helper":{"command ":1}}`},
		{"zzz", "", `{"zzz":1}`},
		{`a\"b`, "", `{"a\u0022b":1}`},
	} {
		e := refusal(t, row.body)
		if e.Code != CodeUnknownField || e.Field != row.field || e.Suggestion != row.suggestion ||
			!strings.Contains(e.Message, `"`+row.field+`"`) || !strings.Contains(e.Message, row.suggestion) {
			t.Errorf("%s: %s field %q suggestion %q: %s", row.body, e.Code, e.Field, e.Suggestion, e.Message)
		}
	}
}

func TestErrorsDoNotRepeatALongBody(t *testing.T) {
	long := strings.Repeat("é", 100_000)
	for _, body := range []string{
		`{"` + long + `":1}`,
		withData(`{"` + long + `":1,"` + long + `":1}`),
		`{"event":"a.b","helper":"h","entry":{"id":"e","created_at":"` + long + `"}}`,
		`{"event":"a.b","helper":"` + long + `","entry":{"id":"e"}}`,
	} {
		if e := refusal(t, body); len(e.Message) > 400 || strings.ContainsRune(e.Message, '\uFFFD') {
			t.Errorf("message of %d bytes: %.500s", len(e.Message), e.Message)
		}
	}
}

func TestTimesAreThoseOfRFC3339(t *testing.T) {
	for _, row := range []struct{ in, want string }{
		{"2025-01-15T14:32:00Z", "2025-01-15T14:32:00.000Z"},
		{"2025-01-15t14:32:00z", "2025-01-15T14:32:00.000Z"},
		{"2025-01-15T14:32:00.1Z", "2025-01-15T14:32:00.100Z"},
		{"2025-01-15T14:32:00.1239999999999999999999999Z", "2025-01-15T14:32:00.123Z"},
		{"1969-12-31T23:59:59.9996Z", "1969-12-31T23:59:59.999Z"},
		{"2025-01-15T14:32:00+05:30", "2025-01-15T09:02:00.000Z"},
		{"2025-01-01T00:00:00-23:59", "2025-01-01T23:59:00.000Z"},
		{"2025-01-15T14:32:00-00:00", "2025-01-15T14:32:00.000Z"},
		{"2024-02-29T00:00:00Z", "2024-02-29T00:00:00.000Z"},
		{"0000-01-01T00:00:00Z", "0000-01-01T00:00:00.000Z"},
		{"0000-02-29T12:00:00.5Z", "0000-02-29T12:00:00.500Z"},
		{"9999-12-31T23:59:59.999Z", "9999-12-31T23:59:59.999Z"},
		{"1990-12-31T23:59:60Z", "1991-01-01T00:00:00.000Z"},
		{"1990-12-31T15:59:60.25-08:00", "1991-01-01T00:00:00.250Z"},
		{"0000-01-01T00:00:00+00:01", ""},
		{"9999-12-31T23:59:59-00:01", ""},
		{"9999-12-31T23:59:60Z", ""},
		{"2025-06-30T12:59:60Z", ""},
		{"2025-02-29T00:00:00Z", ""},
		{"2025-04-31T00:00:00Z", ""},
		{"2025-00-01T00:00:00Z", ""},
		{"2025-13-01T00:00:00Z", ""},
		{"2025-01-00T00:00:00Z", ""},
		{"2025-01-01T24:00:00Z", ""},
		{"2025-01-01T00:60:00Z", ""},
		{"2025-01-01T00:00:61Z", ""},
		{"2025-01-01T00:00:00", ""},
		{"2025-01-01T00:00:00.Z", ""},
		{"2025-01-01T00:00:00,5Z", ""},
		{"2025-01-01T00:00:00+0100", ""},
		{"2025-01-01T00:00:00+24:00", ""},
		{"2025-01-01T00:00:00+01:60", ""},
		{"2025-01-01T00:00:00Z ", ""},
		{"2025-01-01 00:00:00Z", ""},
		{"2025-01-01", ""},
		{"20250101T000000Z", ""},
		{"+02025-01-01T00:00:00Z", ""},
		{"-2025-01-01T00:00:00Z", ""},
		{"２025-01-01T00:00:00Z", ""},
		{"", ""},
	} {
		got, ok := parseTime([]byte(row.in))
		if ok != (row.want != "") || ok && string(appendTime(nil, got)) != `"`+row.want+`"` {
			t.Errorf("%q = %s, %v; want %q", row.in, appendTime(nil, got), ok, row.want)
		}
	}
}

func TestAnEscapedTimeIsRead(t *testing.T) {
	in := mustParse(t, `{"event":"a.b","helper":"h","entry":{"id":"e","created_at":"2025-01-15T14:32:00\u005a"}}`)
	if got := appendTime(nil, in.CreatedAt); string(got) != `"2025-01-15T14:32:00.000Z"` {
		t.Errorf("got %s", got)
	}
}

func TestAPayloadGivenBackIsTheSamePayload(t *testing.T) {
	h := &Helper{ID: "expenses", Name: `Daily "Expenses" & more`, Command: "/expenses", Fields: []Field{{"7", Number}, {"note", String}}}
	for _, body := range []string{
		`{"event":"entry.created","helper":"expenses","entry":{"id":"e","data":{"b":1e2,"3":null}},"user":{"id":"u\u0000"}}`,
		`{"event":"entry.deleted","helper":"expenses","entry":{"id":"\"\\","created_at":"1999-01-01T00:00:00+09:00"},"timestamp":"0000-01-01T00:00:00Z"}`,
		`{"event":"x.y","helper":"expenses","entry":{"id":"e","data":{"n":12345678901234567890,"s":"\udfff\u2028"}}}`,
	} {
		first, _ := Encode(nil, mustParse(t, body), h, FormatPeanuts, "")
		again := mustParse(t, string(first))
		second, _ := Encode(nil, again, h, FormatPeanuts, "")
		if !bytes.Equal(first, second) {
			t.Errorf("payload\n%s became\n%s", first, second)
		}
	}
}
