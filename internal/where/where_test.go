package where

import (
	"errors"
	"strings"
	"testing"
	"time"
)

const payload = `{"event":"entry.created","timestamp":"2025-01-15T14:32:00.000Z","helper":{"id":"expenses"},` +
	`"entry":{"id":"e1","data":{"amount":42.5,"category":"Food & Dining","tags":["a","b"],"big":12345678901234567890,"note":null}},"user":{"id":"u1"}}`

func TestAnExpressionChoosesWhatJqWouldSelect(t *testing.T) {
	for expression, want := range map[string]bool{
		`.entry.data.amount > 40`:                               true,
		`.entry.data.amount > 50`:                               false,
		`.entry.data.category | test("^food"; "i")`:             true,
		`.entry.data.category | IN("Rent", "Food & Dining")`:    true,
		`any(.entry.data.tags[]; . == "b")`:                     true,
		`.entry.data.tags | index("c")`:                         false,
		`.entry.data.tags | index("a")`:                         true, // 0 is neither false nor null
		`select(.user.id == "u1")`:                              true,
		`select(.user.id == "u2")`:                              false,
		`.entry.data.note`:                                      false,
		`.entry.data.missing // "x" | . == "x"`:                 true,
		`false, true`:                                           true,
		`empty`:                                                 false,
		`.entry.data.big == 12345678901234567890`:               true,
		`[.entry.data.tags[] | ascii_upcase] == ["A","B"]`:      true,
		`.entry.data | .amount * 2 + 1 == 86`:                   true,
		`"\(.entry.id)-\(.user.id)" == "e1-u1"`:                 true,
		`.entry.data | {amount} | .amount as $a | $a == 42.5`:   true,
		`.timestamp | .[:10] == "2025-01-15"`:                   true,
		`(.entry.data.tags | map(length) | add) == 2`:           true,
		`.. | strings | select(startswith("Food"))`:             true,
		`if .event == "entry.created" then true else false end`: true,
		`try error("x") catch false`:                            false,
		`.entry.data.nothing[]?`:                                false,
	} {
		f, err := Compile(expression)
		if err != nil {
			t.Errorf("%s: %v", expression, err)
			continue
		}
		if got, err := f.Match(t.Context(), []byte(payload)); err != nil || got != want {
			t.Errorf("%s chooses %v, %v, want %v", expression, got, err, want)
		}
	}
	t.Attr("cases", "24")
}

func TestWhatIsWrongIsSaidWithItsOffset(t *testing.T) {
	for _, row := range []struct {
		expression string
		offset     int
		says       string
	}{
		{"", 0, "empty"},
		{"  ", 0, "empty"},
		{".a ==", 5, "ends too early"},
		{".a == )", 6, `unexpected ")"`},
		{".entry.data.amount >> 3", 20, `unexpected ">"`},
		{`.a == "x`, 8, "ends too early"},
		{".a | slect(.b)", 5, `did you mean "select"`},
		{".env == env", 8, "payload only"},
		{".a == $ENV.HOME", 6, "payload only"},
		{".a == $b", 6, "variable not defined"},
		{"input", 0, "payload only"},
		{"def f: f; f", 0, "defined"},
		{". as $x | reduce .[] as $i (0; . + $i)", 10, "reduce"},
		{".a = 1", 3, "assigns"},
		{".a |= 1", 3, "assigns"},
		{"[range(1000000000)]", 1, "no function range"},
		{"recurse(.)", 0, "fewer arguments"},
		{`import "x" as x; .`, 0, "modules"},
		{"@base64", 0, "cannot be used"},
		{"[[[[[[[.]]]]]]]", 0, "more than 6"},
		{strings.Repeat(" ", MaxLength) + ".", MaxLength, "longer than"},
		{"now > 3", 0, "payload only"},
	} {
		_, err := Compile(row.expression)
		bad, ok := errors.AsType[*Error](err)
		if !ok || bad.Offset != row.offset || !strings.Contains(bad.Message, row.says) {
			t.Errorf("%q: %v, want offset %d and %q", row.expression, err, row.offset, row.says)
		}
	}
}

// What would take for ever or all memory in jq ends here.
func TestAnEvaluationIsBounded(t *testing.T) {
	large := `{"s":"` + strings.Repeat("a", 1<<20) + `","n":[` + strings.Repeat("1,", 40_000) + `1]}`
	for expression, says := range map[string]string{
		`.s * 1000`: "takes numbers only",
		`.s | .+. | .+. | .+. | .+. | .+. | .+. | .+. | .+. | .+.`: "a sum of more",
		`[.s,.s,.s,.s,.s] | add`:                                   "a sum of more",
		`.s | test("(a|aa)+$")`:                                    "regular expression",
		`tostring`:                                                 "cannot become a string",
		`"\(.)" == "x"`:                                            "cannot become a string",
		`[.n[] as $a | .n[] as $b | select($a != $b)] | length`: "takes longer than",
		`.n[] | false`: "results",
		`.s | explode | .[] as $a | .n[] as $b | select($a < $b) | false`: "longer than",
	} {
		f, err := Compile(expression)
		if err != nil {
			t.Errorf("%s: %v", expression, err)
			continue
		}
		began := time.Now()
		_, err = f.Match(t.Context(), []byte(large))
		if err == nil || !strings.Contains(err.Error(), says) && !strings.Contains(err.Error(), "takes longer than") {
			t.Errorf("%s: %v, want %q", expression, err, says)
		}
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("%s took %s", expression, took)
		}
	}
}

func FuzzCompile(f *testing.F) {
	for _, seed := range []string{`.a > 1`, `select(.x | test("a"))`, `[.[] | {a: .}] | add`, `"\(.a)"`, `$x`, `. as [$a, {b: $c}] | $a`, `..|..`, `@json "x"`, `.a[1:2]?`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, expression string) {
		filter, err := Compile(expression)
		if err != nil {
			bad, ok := errors.AsType[*Error](err)
			if !ok || bad.Offset < 0 || bad.Offset > len(expression) && bad.Offset > MaxLength {
				t.Fatalf("%q: %v", expression, err)
			}
			return
		}
		_, _ = filter.Match(t.Context(), []byte(payload))
	})
}
