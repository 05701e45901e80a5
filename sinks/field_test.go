package sinks_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/peanutsapp/peanuts-relay/sinks"
)

func TestFieldsKeepTheirOrderAndTheirNumbers(t *testing.T) {
	e := sinks.Entry{Data: []byte(` {"z": 12345678901234567890, "a": 1.10, "b": null, "text": "\u00e9 \"x\"", "yes": true, "list": [1,  "a"], "in": {"y": 1, "x": 2}, "": ""} `)}
	fields, err := e.Fields()
	if err != nil {
		t.Fatal(err)
	}
	want := [][2]string{{"z", "12345678901234567890"}, {"a", "1.10"}, {"b", ""}, {"text", `é "x"`}, {"yes", "true"}, {"list", `[1,"a"]`}, {"in", `{"y":1,"x":2}`}, {"", ""}}
	for i, f := range fields {
		if i >= len(want) || f.Name != want[i][0] || f.Text() != want[i][1] {
			t.Errorf("field %d is %q: %q", i, f.Name, f.Text())
		}
	}
	if len(fields) != len(want) {
		t.Errorf("%d fields, want %d", len(fields), len(want))
	}
	for _, none := range []string{"", "{}"} {
		if f, err := (sinks.Entry{Data: []byte(none)}).Fields(); err != nil || len(f) > 0 {
			t.Errorf("%q: %v, %v", none, f, err)
		}
	}
	for _, bad := range []string{"null", "[]", "1", `"a"`, "{", `{"a"}`, `{"a":}`, `{"a":1,}`, `{"a":1}}`, `{"a":1} 2`, "{1:2}"} {
		if f, err := (sinks.Entry{Data: []byte(bad)}).Fields(); err == nil {
			t.Errorf("%q: %v", bad, f)
		}
	}
	if text := (sinks.Field{Value: []byte("[")}).Text() + (sinks.Field{Value: []byte(`"`)}).Text(); text != `["` {
		t.Errorf("a value that is no JSON is %q", text)
	}
}

func FuzzFields(f *testing.F) {
	for _, seed := range []string{`{"a":1,"b":"x","c":[1,{"d":null}]}`, `{"a":1e400}`, `{"a":"\ud800"}`, `{"a":1,"a":2}`, `{`, `[]`, "{\"\xff\":1}"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		fields, err := sinks.Entry{Data: data}.Fields()
		if (err == nil) != (len(data) == 0 || json.Valid(data) && bytes.TrimSpace(data)[0] == '{') {
			t.Fatalf("%q: %v", data, err)
		}
		for _, field := range fields {
			if !json.Valid(field.Value) || !bytes.Contains(data, field.Value) {
				t.Errorf("%q is not as it was sent", field.Value)
			}
			_ = field.Text()
		}
	})
}

func TestTruncateCutsAtRunes(t *testing.T) {
	for _, row := range []struct {
		text  string
		runes int
		want  string
	}{
		{"", 0, ""}, {"", 5, ""}, {"abc", 0, ""}, {"abc", -1, ""}, {"abc", 3, "abc"}, {"abc", 4, "abc"}, {"abcd", 3, "ab…"}, {"abc", 1, "…"},
		{"ééé", 3, "ééé"}, {"éééé", 3, "éé…"}, {"日本語", 2, "日…"}, {"a\xffb\xff", 2, "a…"}, {"ab\xff", 3, "ab\xff"},
	} {
		got := sinks.Truncate(row.text, row.runes)
		if got != row.want || utf8.RuneCountInString(got) > max(row.runes, 0) {
			t.Errorf("Truncate(%q, %d) = %q, want %q", row.text, row.runes, got, row.want)
		}
	}
	long := strings.Repeat("é", 1000)
	if got := sinks.Truncate(long, 999); utf8.RuneCountInString(got) != 999 || !utf8.ValidString(got) {
		t.Errorf("cut to %d runes", utf8.RuneCountInString(got))
	}
}
