package event

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"math"
	"math/big"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/peanutsapp/peanuts-relay/internal/testhost"
)

// plain is a JSON number, told without any of the code under test: digits
// without zeros at either end, times ten to the power. Zero has no digits.
type plain struct {
	negative bool
	digits   string
	power    string
}

func plainOf(number string) plain {
	unsigned, negative := strings.CutPrefix(number, "-")
	mantissa, exponent, _ := strings.Cut(strings.ToLower(unsigned), "e")
	whole, fraction, _ := strings.Cut(mantissa, ".")
	power, ok := new(big.Int).SetString("0"+strings.TrimPrefix(exponent, "+"), 10)
	if minus, found := strings.CutPrefix(exponent, "-"); found {
		power, ok = new(big.Int).SetString("-"+minus, 10)
	}
	if !ok {
		panic("no number: " + number)
	}
	digits := strings.TrimLeft(whole+fraction, "0")
	short := strings.TrimRight(digits, "0")
	if short == "" {
		return plain{power: "0"}
	}
	power.Add(power, big.NewInt(int64(len(digits)-len(short)-len(fraction))))
	return plain{negative, short, power.String()}
}

// inJavaScript is what JavaScript writes for a number: encoding/json writes a
// float64 in ECMAScript's form, which is documented there. ok is false for what
// becomes infinite.
func inJavaScript(number string) (text string, ok bool) {
	p := plainOf(number)
	if p.digits == "" {
		return "0", true
	}
	// strconv stops to read exponents at some size.
	first, _ := new(big.Int).SetString(p.power, 10)
	first.Add(first, big.NewInt(int64(len(p.digits))))
	if first.CmpAbs(big.NewInt(400)) > 0 {
		return "0", first.Sign() < 0
	}
	f, err := strconv.ParseFloat("0."+p.digits+"e"+first.String(), 64)
	if err != nil {
		return "", false
	}
	if p.negative {
		f = -f
	}
	if f == 0 {
		return "0", true // without its sign
	}
	b, err := json.Marshal(f)
	if err != nil {
		panic(err)
	}
	return string(b), true
}

// survives reports whether JavaScript keeps a number's decimal value.
func survives(number string) bool {
	text, ok := inJavaScript(number)
	return ok && plainOf(text) == plainOf(number)
}

func isNumber(s string) bool {
	return s != "" && (s[0] == '-' || isDigit(s[0])) && isDigit(s[len(s)-1]) && json.Valid([]byte(s))
}

func FuzzNumber(f *testing.F) {
	for _, seed := range []string{"0", "-0.0", "45.00", "1e2", "12345678901234567890", "1E400", "1e-400", "0.1", "5e-324", "1e21", "1e-7",
		"9007199254740993", "1e999999999", "0.30000000000000004", "123456789012345.6e-3", "1.7976931348623158e308", "2.5e-324"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, token string) {
		if !isNumber(token) || len(token) > 5000 {
			return
		}
		out, exact := appendNumber(nil, []byte(token))
		if exact != survives(token) {
			t.Fatalf("%s is exact: %v, want %v", token, exact, survives(token))
		}
		want := token
		if exact {
			want, _ = inJavaScript(token)
		}
		if string(out) != want {
			t.Fatalf("%s became %s, want %s", token, out, want)
		}
		again, exactAgain := appendNumber(nil, out)
		if !bytes.Equal(again, out) || exactAgain != exact {
			t.Fatalf("%s became %s, and then %s", token, out, again)
		}
	})
}

func TestDoublesOfAllSizesKeepTheirShortestForm(t *testing.T) {
	g := testhost.Chance(t)
	for range 15_000 {
		f := math.Float64frombits(g.Uint64())
		if math.IsNaN(f) || math.IsInf(f, 0) {
			continue
		}
		want, err := json.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, format := range []byte("eEfg") {
			token := strconv.FormatFloat(f, format, -1, 64)
			if got, exact := appendNumber(nil, []byte(token)); string(got) != string(want) || !exact {
				t.Fatalf("%s became %s, exact %v; want %s", token, got, exact, want)
			}
		}
		// All of a double's digits denote it too, but not in the shortest form.
		token := strconv.FormatFloat(f, 'e', 30, 64)
		if got, exact := appendNumber(nil, []byte(token)); exact != survives(token) || !exact && string(got) != token {
			t.Fatalf("%s became %s, exact %v", token, got, exact)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{benchEvent, withData(`{"b":[1e2,{"2":0,"1":-0}],"\u0061":"\ud800\ud83d\ude00"}`), `{"event":"a.b","helper":{"id":"h","name":"x","command":""},` +
		`"entry":{"id":"\u2028","data":{"__proto__":12345678901234567890}},"user":null,"id":"i","timestamp":"2025-01-15T14:32:00+01:00"}`,
		withData(`{"a":1,"a":2}`), `[]`, `{"Event":1}`, withData(`{"a":` + strings.Repeat("[", 70)), "{\"event\":\"\xff\"}"} {
		f.Add([]byte(seed))
	}
	codes := map[string]int{CodeInvalidJSON: 400, CodeInvalidUTF8: 400, CodeDuplicateKey: 400, CodeTooDeep: 400, CodeUnknownField: 400,
		CodeMissingField: 422, CodeWrongType: 422, CodeTooLong: 422, CodeBadID: 422, CodeBadTime: 422}
	f.Fuzz(func(t *testing.T, body []byte) {
		in, err := Parse(body, testNow)
		if err != nil {
			e, ok := errors.AsType[*Error](err)
			if !ok || codes[e.Code] != e.Status || e.Message == "" || len(e.Message) > 600 || !utf8.ValidString(e.Message) ||
				(e.Status == 400) != (e.Offset >= 0) || e.Offset > int64(len(body)) {
				t.Fatalf("Parse(%q): %+v", body, err)
			}
			if json.Valid(body) && e.Code == CodeInvalidJSON {
				t.Fatalf("Parse(%q): %v, but it is JSON", body, err)
			}
			return
		}
		checkAccepted(t, body, in)
	})
}

// checkAccepted compares an accepted event with what encoding/json reads, and
// with what its own payload says.
func checkAccepted(t *testing.T, body []byte, in *Input) {
	var sent struct {
		Event any
		Entry struct {
			ID   any
			Data map[string]any
		}
	}
	decode(t, body, &sent)
	if sent.Event != in.Type || sent.Entry.ID != in.EntryID {
		t.Fatalf("%q was read as %+v", body, in)
	}
	var kept map[string]any
	decode(t, in.Data, &kept)
	unstable := false
	if sent.Entry.Data == nil {
		sent.Entry.Data = map[string]any{}
	}
	if !same(sent.Entry.Data, kept, &unstable) {
		t.Fatalf("data of %q became %s", body, in.Data)
	}
	if unstable != in.Unstable {
		t.Fatalf("%q: unstable is %v, want %v", body, in.Unstable, unstable)
	}

	// A name with every kind of character, and no field of it.
	h := &Helper{ID: in.HelperID, Name: "<\u2028\x00\">", Fields: []Field{{"7", Number}, {"none", List}}}
	for _, format := range []Format{FormatPeanuts, FormatEvent} {
		payload, _ := Encode(nil, in, h, format, in.ID)
		if !json.Valid(payload) || !utf8.Valid(payload) {
			t.Fatalf("%q became %q", body, payload)
		}
		if format == FormatEvent {
			continue
		}
		again, err := Parse(payload, testNow.Add(1))
		if err != nil {
			t.Fatalf("payload %s of %q: %v", payload, body, err)
		}
		if in.Type != Created && !bytes.Equal(again.Data, in.Data) {
			t.Fatalf("data %s became %s", in.Data, again.Data)
		}
		if second, _ := Encode(nil, again, h, format, ""); !bytes.Equal(payload, second) {
			t.Fatalf("payload\n%s became\n%s", payload, second)
		}
	}
}

func decode(t *testing.T, text []byte, v any) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(v); err != nil {
		t.Fatalf("encoding/json refuses %q: %v", text, err)
	}
}

// same compares values, numbers by what they denote, and notes a number that
// JavaScript would change.
func same(a, b any, unstable *bool) bool {
	switch a := a.(type) {
	case map[string]any:
		b, ok := b.(map[string]any)
		return ok && slices.Equal(slices.Sorted(maps.Keys(a)), slices.Sorted(maps.Keys(b))) && allSame(maps.All(a), func(k string) any { return b[k] }, unstable)
	case []any:
		b, ok := b.([]any)
		return ok && len(a) == len(b) && allSame(slices.All(a), func(i int) any { return b[i] }, unstable)
	case json.Number:
		b, ok := b.(json.Number)
		if !survives(string(a)) {
			*unstable = true
		}
		return ok && plainOf(string(a)) == plainOf(string(b))
	}
	return reflect.DeepEqual(a, b)
}

func allSame[K any](seq func(func(K, any) bool), other func(K) any, unstable *bool) bool {
	for k, v := range seq {
		if !same(v, other(k), unstable) {
			return false
		}
	}
	return true
}
