package rest

import (
	"encoding/json"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestScalarsAsText(t *testing.T) {
	at := time.Date(2025, 1, 15, 15, 32, 0, 123_999_999, time.FixedZone("CET", 3600))
	for _, row := range []struct {
		in   any
		want string
	}{
		{At(at), `"2025-01-15T14:32:00.123Z"`},
		{Time{}, `null`},
		{Millis(0), `0`},
		{Millis(1500 * time.Microsecond), `1.5`},
		{Millis(1499 * time.Nanosecond), `0.001`},
		{Millis(time.Hour), `3600000`},
		{StatusCode(0), `null`},
		{StatusCode(503), `503`},
	} {
		if got, err := json.Marshal(row.in); err != nil || string(got) != row.want {
			t.Errorf("%v: got %s, %v, want %s", row.in, got, err, row.want)
		}
	}
	if s := (Time{}).String(); s != "" {
		t.Errorf("no time is shown as %q", s)
	}
}

func TestScalarsComeBack(t *testing.T) {
	type all struct {
		T Time
		M Millis
		C StatusCode
	}
	rapid.Check(t, func(t *rapid.T) {
		in := all{
			At(time.UnixMilli(rapid.Int64Range(1, 253402300799999).Draw(t, "ms")).UTC()),
			Millis(time.Duration(rapid.Int64Range(-1<<50, 1<<50).Draw(t, "us")) * time.Microsecond / 1000 * 1000),
			StatusCode(rapid.IntRange(0, 599).Draw(t, "code")),
		}
		in.M = Millis(in.M.Duration().Round(time.Microsecond))
		b, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		var out all
		if err := json.Unmarshal(b, &out); err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		if !out.T.Equal(in.T.Time) || out.C != in.C || (out.M-in.M).Duration().Abs() > time.Microsecond {
			t.Fatalf("%+v came back as %+v", in, out)
		}
	})
}

func FuzzScalars(f *testing.F) {
	for _, text := range []string{`null`, `"2025-01-15T14:32:00.000Z"`, `"2025-01-15T14:32:00+25:00"`, `1.5`, `1e308`, `-9e12`, `NaN`, `"x"`, `{}`, `503`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var at Time
		if json.Unmarshal(text, &at) == nil {
			again(t, at)
		}
		var m Millis
		if json.Unmarshal(text, &m) == nil {
			again(t, m)
		}
		var c StatusCode
		if json.Unmarshal(text, &c) == nil {
			again(t, c)
		}
	})
}

// again: what was decoded can be encoded, and that decodes.
func again[T any](t *testing.T, v T) {
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatalf("%v: %v", v, err)
	}
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
}
