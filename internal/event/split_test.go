package event

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"
	"testing"
	"time"
	"unicode/utf8"
)

func TestSplitFindsWhatEncodeWrote(t *testing.T) {
	h := &Helper{ID: "ex", Name: "Daily \"Expenses\" \u2028 ü", Command: "/ex", Fields: []Field{{Name: "note", Type: String}}}
	at := time.Date(2025, 1, 15, 14, 32, 0, 123e6, time.UTC)
	in := &Input{Type: Created, HelperID: "ex", EntryID: "e\\1\n", UserID: "u \"1\"", HasUser: true, Timestamp: at, CreatedAt: at.Add(-time.Hour),
		Data: []byte(`{"7":1,"data":{"id":"inner","a":[1,"}]"]},"n":12345678901234567890}`)}
	payload, _ := Encode(nil, in, h, FormatPeanuts, "")
	got, ok := Split(payload)
	want := Parts{Type: Created, Timestamp: at, EntryID: in.EntryID, CreatedAt: in.CreatedAt, UserID: in.UserID, HasUser: true,
		Data: []byte(`{"7":1,"data":{"id":"inner","a":[1,"}]"]},"n":12345678901234567890,"note":null}`)}
	want.Helper.ID, want.Helper.Name, want.Helper.Command = h.ID, h.Name, h.Command
	if !ok || !reflect.DeepEqual(got, want) {
		t.Errorf("of %s\ngot  %+v\nwant %+v", payload, got, want)
	}
	if i := bytes.Index(payload, got.Data); &payload[i] != &got.Data[0] {
		t.Error("the data was copied")
	}

	in.HasUser, in.Type = false, Deleted
	if got, ok = Split(first(Encode(nil, in, h, FormatPeanuts, ""))); !ok || got.HasUser || got.UserID != "" || got.Type != Deleted {
		t.Errorf("without a user: %+v, %v", got, ok)
	}
	got, ok = Split(first(Encode(nil, in, h, FormatEvent, "evt_1")))
	if !ok || got.ID != "evt_1" || got.Type != Deleted || !got.Timestamp.Equal(at) || !got.CreatedAt.IsZero() ||
		string(got.Data) != `{"7":1,"id":"e\\1\n","data":{"id":"inner","a":[1,"}]"]},"n":12345678901234567890}` {
		t.Errorf("of the other format: %+v, %s, %v", got, got.Data, ok)
	}
}

func first(payload []byte, _ int) []byte { return payload }

func TestSplitReplacesWhatUTF8CannotSay(t *testing.T) {
	got, ok := Split([]byte(`{"event":"x.y","timestamp":"2025-01-15T14:32:00.000Z","entry":{"id":"a\ud800b\ud83d\ude00\/","data":{},"created_at":"2025-01-15T14:32:00.000Z"}}`))
	if !ok || got.EntryID != "a\uFFFDb\U0001F600/" {
		t.Errorf("got %q, %v", got.EntryID, ok)
	}
}

func TestSplitRefusesWhatIsNoPayload(t *testing.T) {
	for _, text := range []string{"", "{", "{}", "[]", `{"event":"a.b"}`, `{"event":1,"timestamp":"2025-01-15T14:32:00.000Z","entry":{"data":{}}}`,
		`{"event":"a.b","timestamp":"yesterday","entry":{"data":{}}}`, `{"event":"a.b","timestamp":"2025-01-15T14:32:00.000Z","entry":{"data":7}}`,
		`{"event":"a.b","timestamp":"2025-01-15T14:32:00.000Z","entry":{"id":"\x","data":{}}}`} {
		if got, ok := Split([]byte(text)); ok {
			t.Errorf("%s was taken for %+v", text, got)
		}
	}
}

// FuzzSplit compares with encoding/json wherever that takes the text for JSON, and
// otherwise asks only that nothing panics.
func FuzzSplit(f *testing.F) {
	f.Add([]byte(`{"event":"entry.created","timestamp":"2025-01-15T14:32:00.000Z","helper":{"id":"h","name":"n\u0001","command":""},"entry":{"id":"e","data":{"a":1},"created_at":"2025-01-15T14:32:00.000Z"},"user":{"id":"u"}}`))
	f.Add([]byte(`{"id":"evt_1","type":"a.b","created_at":"2025-01-15T14:32:00.000Z","data":{"id":"e"}}`))
	f.Add([]byte(`{"event":"\`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		p, ok := Split(payload)
		for _, text := range []string{p.Type, p.ID, p.Helper.ID, p.Helper.Name, p.Helper.Command, p.EntryID, p.UserID} {
			if !utf8.ValidString(text) {
				t.Fatalf("%q is not UTF-8", text)
			}
		}
		in, err := Parse(payload, time.Now())
		if !ok || err != nil || in.ID != "" {
			return
		}
		var canonical bytes.Buffer
		if json.Compact(&canonical, payload) != nil || !bytes.Equal(canonical.Bytes(), payload) || slices.Contains(payload, '\\') {
			return // spaces and escapes are what Encode does not write
		}
		if in.Type != p.Type || in.EntryID != p.EntryID || in.UserID != p.UserID || in.HasUser != p.HasUser {
			t.Fatalf("of %s: %+v, Parse has %+v", payload, p, in)
		}
	})
}
