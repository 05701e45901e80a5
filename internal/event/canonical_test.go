package event

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestDataIsWrittenAsJavaScriptWouldWriteIt(t *testing.T) {
	for _, row := range []struct{ in, want string }{
		{`{}`, `{}`},
		{" { } ", `{}`},
		{"{ \"a\" :\t[ ] ,\r\n\"b\" : { } }", `{"a":[],"b":{}}`},
		{`{"a":[true,false,null,"",[[]],{"b":{}}]}`, `{"a":[true,false,null,"",[[]],{"b":{}}]}`},

		// Integer-like keys.
		{`{"b":1,"10":2,"a":3,"9":4,"0":5}`, `{"0":5,"9":4,"10":2,"b":1,"a":3}`},
		{`{"2":{"b":1,"1":{"z":0,"0":0}},"1":[{"x":0,"3":0}]}`, `{"1":[{"3":0,"x":0}],"2":{"1":{"0":0,"z":0},"b":1}}`},
		{`{"4294967295":1,"4294967294":2}`, `{"4294967294":2,"4294967295":1}`},
		{`{"01":1,"-1":2,"1.0":3,"1e1":4," 1":5,"":6,"１":7,"1":8}`, `{"1":8,"01":1,"-1":2,"1.0":3,"1e1":4," 1":5,"":6,"１":7}`},
		{`{"99999999999":1,"4294967296":2,"00":3,"0":4}`, `{"0":4,"99999999999":1,"4294967296":2,"00":3}`},
		{`{"a":0,"\u0031\u0030":1,"\u0039":2}`, `{"9":2,"10":1,"a":0}`},
		{`{"a":"1","1":"\"{","0":"}\\"}`, `{"0":"}\\","1":"\"{","a":"1"}`},
		{`{"__proto__":{"__proto__":1},"1":2,"constructor":3,"toString":4}`, `{"1":2,"__proto__":{"__proto__":1},"constructor":3,"toString":4}`},

		// Strings.
		{`{"a":"\u0041\/\u002f\u00e9\u20ac"}`, `{"a":"A//é€"}`},
		{`{"a":"\u0008\u0009\u000a\u000C\u000d\b\t\n\f\r"}`, `{"a":"\b\t\n\f\r\b\t\n\f\r"}`},
		{`{"a":"\u0000\u000B\u001F\u007F\u0080"}`, `{"a":"\u0000\u000b\u001f` + "\u007f\u0080" + `"}`},
		{`{"a":"\u0022\u005C\"\\"}`, `{"a":"\"\\\"\\"}`},
		{`{"a":"\u003c\u003E\u0026<>&\u2028\u2029"}`, `{"a":"<>&<>&` + "\u2028\u2029" + `"}`},
		{`{"a":"\uD83D\uDE00\ud83d\ude00😀"}`, `{"a":"😀😀😀"}`},
		{`{"a":"\uD800","b":"\uDFFF","c":"\uDC00\uD800"}`, `{"a":"\ud800","b":"\udfff","c":"\udc00\ud800"}`},
		{`{"a":"\uD83D\uD83D\uDE00\uDE00"}`, `{"a":"\ud83d😀\ude00"}`},
		{`{"a":"\uD83Dx\uDE00","b":"\uD83D\n","c":"\uD83D\\uDE00"}`, `{"a":"\ud83dx\ude00","b":"\ud83d\n","c":"\ud83d\\uDE00"}`},
		{`{"a":"\uFFFD\ufffe\uFEFF"}`, "{\"a\":\"\ufffd\ufffe\ufeff\"}"},
		{`{"\uD800\u0022":1}`, `{"\ud800\"":1}`},
	} {
		in := mustParse(t, withData(row.in))
		if string(in.Data) != row.want || in.Unstable {
			t.Errorf("%s became\n%s, want\n%s (unstable: %v)", row.in, in.Data, row.want, in.Unstable)
		}
		if again := mustParse(t, withData(row.want)); string(again.Data) != row.want {
			t.Errorf("%s became %s", row.want, again.Data)
		}
	}
}

func TestNumbersAreWrittenAsECMAScriptDoes(t *testing.T) {
	for _, row := range []struct{ in, want string }{
		{"0", "0"}, {"-0", "0"}, {"-0.0", "0"}, {"0.000", "0"}, {"0e5", "0"}, {"-0E-5", "0"}, {"0e999999999999999999999", "0"},
		{"1", "1"}, {"-1", "-1"}, {"45.00", "45"}, {"42.50", "42.5"}, {"1e2", "100"}, {"1E+2", "100"}, {"1.0e-2", "0.01"},
		{"100e-2", "1"}, {"0.1", "0.1"}, {"0.10", "0.1"}, {"-0.1", "-0.1"}, {"123.456e1", "1234.56"},
		{"123456789012345", "123456789012345"}, {"1234567890123456", "1234567890123456"},
		{"9007199254740991", "9007199254740991"}, {"9007199254740992", "9007199254740992"},
		{"-9007199254740994", "-9007199254740994"},
		{"0.30000000000000004", "0.30000000000000004"}, {"0.12345678901234568", "0.12345678901234568"},
		{"1e20", "100000000000000000000"}, {"123e19", "1.23e+21"}, {"1e21", "1e+21"}, {"1.5E21", "1.5e+21"},
		{"100000000000000000000", "100000000000000000000"}, {"1000000000000000000000", "1e+21"},
		{"0.000001", "0.000001"}, {"1e-6", "0.000001"}, {"0.0000001", "1e-7"}, {"1.25e-7", "1.25e-7"}, {"0.00000125", "0.00000125"},
		{"1.7976931348623157e308", "1.7976931348623157e+308"}, {"17976931348623157e292", "1.7976931348623157e+308"},
		{"5e-324", "5e-324"}, {"0.5e-323", "5e-324"}, {"2.2250738585072014e-308", "2.2250738585072014e-308"},
		{"1e-310", "1e-310"}, {"1e308", "1e+308"}, {"1e23", "1e+23"},
		{"0." + strings.Repeat("0", 5000) + "25e5001", "2.5"},
		{"25" + strings.Repeat("0", 20000) + "e-20001", "2.5"},
		{"1e0000000000000000000002", "100"},
	} {
		got, exact := appendNumber(nil, []byte(row.in))
		if string(got) != row.want || !exact {
			t.Errorf("%.60s became %s, exact %v; want %s", row.in, got, exact, row.want)
		}
		in := mustParse(t, withData(`{"n":[`+row.in+`]}`))
		if string(in.Data) != `{"n":[`+row.want+`]}` || in.Unstable {
			t.Errorf("%.60s became %s in data, unstable %v", row.in, in.Data, in.Unstable)
		}
	}
}

func TestNumbersThatJavaScriptWouldChangeKeepTheirDigits(t *testing.T) {
	for _, n := range []string{
		"12345678901234567890", "9007199254740993", "-9007199254740993", "1E400", "-1e400", "1e-400", "1.8e308", "2e-324", "4e-324",
		"1.00000000000000000001", "0.1000000000000000055511151231257827021181583404541015625",
		"1e999999999", "1e-999999999", "1E+99999999999999999999999999", "0.000001e-99999999999999999999",
		"123456789012345678", "0.123456789012345678", "1.7976931348623159e308", "99999999999999999999999.0",
		strings.Repeat("9", 50_000), "0." + strings.Repeat("0", 50_000) + "1", "1" + strings.Repeat("0", 50_000),
		"3" + strings.Repeat("0", 100) + "1e-100", "4.9e-324", "-2.4703282292062327e-324",
	} {
		in := mustParse(t, withData(`{"n":`+n+`,"m":1.0}`))
		if string(in.Data) != `{"n":`+n+`,"m":1}` || !in.Unstable {
			t.Errorf("%.60s became %.80s, unstable %v", n, in.Data, in.Unstable)
		}
	}
}

func TestAnUnstableNumberIsFoundAtEveryDepth(t *testing.T) {
	for _, data := range []string{`{"a":[[{"b":1e400}]]}`, `{"a":1e400,"b":1}`, `{"a":[1,2,1e400]}`} {
		if in := mustParse(t, withData(data)); !in.Unstable {
			t.Errorf("%s is not flagged", data)
		}
	}
}

func TestManyKeysKeepTheirOrderAndAreUnique(t *testing.T) {
	const n = 5000
	var in, want, tail strings.Builder
	for i := range n {
		fmt.Fprintf(&in, `"k%d":%d,"%d":0,`, i, i, n-1-i)
		fmt.Fprintf(&want, `"%d":0,`, i)
		fmt.Fprintf(&tail, `"k%d":%d,`, i, i)
	}
	got := mustParse(t, withData("{"+strings.TrimSuffix(in.String(), ",")+"}"))
	if want := "{" + want.String() + strings.TrimSuffix(tail.String(), ",") + "}"; string(got.Data) != want {
		t.Errorf("%d keys are not in JavaScript's order", 2*n)
	}
	before := dataBefore + "{" + in.String()
	if e := refusal(t, before+`"k\u0031":0}`+dataAfter); e.Code != CodeDuplicateKey || e.Offset != int64(len(before)) {
		t.Errorf("a duplicate among %d keys: %v at %d", 2*n, e.Code, e.Offset)
	}
}

func TestTextThatIsNotUTF8IsStillWrittenAsJSON(t *testing.T) {
	for _, row := range []struct{ in, want string }{
		{"", `""`}, {"a&b<c>", `"a&b<c>"`}, {"\x00\x1f\"\\/\n\u007f\u2028é😀", `"\u0000\u001f\"\\/\n` + "\u007f\u2028é😀" + `"`},
		{"a\xffb\xed\xa0\x80", "\"a\ufffdb\ufffd\ufffd\ufffd\""}, {"\ufffd", "\"\ufffd\""},
	} {
		if got := appendQuoted(nil, row.in); string(got) != row.want {
			t.Errorf("%q became %s, want %s", row.in, got, row.want)
		}
	}
}

// TestHostileBodiesCostLinearTime takes a fraction of a second; comparing all
// pairs of keys, or multiplying out an exponent, would take much longer than the limit.
func TestHostileBodiesCostLinearTime(t *testing.T) {
	const n = 100_000
	var keys, nested strings.Builder
	for i := range n {
		fmt.Fprintf(&keys, `,"%06x\u0061":1e999999999`, i)
		fmt.Fprintf(&nested, `,"%d":0`, n-i)
	}
	start := time.Now()
	mustParse(t, withData("{"+keys.String()[1:]+"}"))
	mustParse(t, withData(strings.Repeat(`{"a":1,"0":`, 50)+"{"+nested.String()[1:]+"}"+strings.Repeat("}", 50)))
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("took %v", took)
	}
}
