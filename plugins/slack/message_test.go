package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/peanutsapp/peanuts-relay/plugins/slack/slacktest"
	"github.com/peanutsapp/peanuts-relay/sinks"
)

func TestTheStandardMessage(t *testing.T) {
	s := workspace(slacktest.Options{NoRateLimit: true})
	deliver(t, connect(t, s, botSettings), of(sinks.Created, lunch), nil)
	m := only(t, s)
	want := `Daily Expenses: entry created
*amount*
42.5
*category*
Food &amp; Dining
*date*
2025-01-15
*tags*
["team","lunch"]
*paid*
true
*note*
-
/expenses | entry-789-xyz | <!date^1736951520^{date_short_pretty} {time}|2025-01-15 14:32 UTC>`
	if got := texts(t, m.Blocks); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if m.Text != `Daily Expenses: entry created: amount 42.5, category Food &amp; Dining, date 2025-01-15, tags ["team","lunch"], paid true` {
		t.Errorf("%q", m.Text)
	}
}

func TestASampleSaysThatItIsOne(t *testing.T) {
	s := workspace(slacktest.Options{NoRateLimit: true})
	d := of(sinks.Created, `{}`)
	d.Test, d.Helper.Name, d.Helper.Command = true, "", ""
	deliver(t, connect(t, s, botSettings), d, nil)
	if m := only(t, s); m.Text != "Test: expenses: entry created entry-789-xyz" {
		t.Errorf("%q", m.Text)
	}
}

// hostile is what users and programs put into entries.
func hostile() map[string]string {
	var many strings.Builder
	for i := range 500 {
		fmt.Fprintf(&many, `,"field %d":"value %d"`, i, i)
	}
	long := strings.Repeat("x", 1<<20)
	return map[string]string{
		"empty":           `{}`,
		"null":            `{"a":null,"b":"","c":"  "}`,
		"mentions":        `{"a":"<!channel> <!here|here> <@U012345> <#C0GENERAL> <!subteam^S1> @channel","<!channel>":"<!everyone>"}`,
		"markup":          `{"a":"*bold* _it_ ~no~ ` + "`code` ```block" + `","b":"> quote\n> <https://evil.example|https://good.example>","*_~":"x"}`,
		"entities":        `{"a":"&amp;lt; & < > &","&":"<"}`,
		"emoji":           `{"a":":party: \ud83e\udd5c","\ud83e\udd5c":"\ud83d\udc68\u200d\ud83d\udc69\u200d\ud83d\udc67"}`,
		"right to left":   `{"a":"\u202eevil\u202c \u05e9\u05dc\u05d5\u05dd","\u202ename":"\u0645"}`,
		"controls":        `{"a":"\u0000\u001b[2J\r\n\t\u007f","b\u0000\n":"x"}`,
		"lone surrogate":  `{"a":"\ud800"}`,
		"nested":          `{"a":{"b":{"c":[1,{"d":"<!channel>"}]}},"b":[],"c":{}}`,
		"long text":       `{"a":"` + long + `","b":"short"}`,
		"long name":       `{"` + long + `":"a"}`,
		"long emoji":      `{"a":"` + strings.Repeat(`\ud83e\udd5c`, 5000) + `"}`,
		"long entities":   `{"a":"` + strings.Repeat(`&`, 5000) + `"}`,
		"long breaks":     `{"a":"` + strings.Repeat(`a\n`, 5000) + `"}`,
		"500 fields":      `{"first":0` + many.String() + `}`,
		"500 long fields": `{"first":0` + strings.ReplaceAll(many.String(), "value", strings.Repeat("value ", 400)) + `}`,
		"large numbers":   `{"a":12345678901234567890,"b":1E400,"c":1e21}`,
	}
}

// obeyed finds what Slack would act on, apart from the sink's own date.
func obeyed(raw string) string {
	raw = strings.ReplaceAll(raw, "<!date^1736951520^{date_short_pretty} {time}|2025-01-15 14:32 UTC>", "")
	if i := strings.IndexAny(raw, "<>"); i >= 0 {
		return raw[i:min(i+40, len(raw))]
	}
	return ""
}

func TestHostileEntriesAreShownAndNotObeyed(t *testing.T) {
	for name, data := range hostile() {
		for _, settings := range []string{botSettings, hookSettings, withTemplate(botSettings, `{{.Helper.Name}}{{range .Fields}} {{.Name}}={{.Value | truncate 2000}}{{end}}`)} {
			t.Run(name, func(t *testing.T) {
				s := workspace(slacktest.Options{NoRateLimit: true})
				sink := connect(t, s, settings)
				d := of(sinks.Created, data)
				receipt, err := sink.Deliver(t.Context(), d)
				if err != nil {
					if settings != botSettings && settings != hookSettings && outcome(err) == "rejected template_error" {
						return // too long for a template's bounds
					}
					t.Fatal(err)
				}
				m := only(t, s)
				shown := texts(t, m.Blocks)
				for _, text := range []string{m.Text, shown} {
					if found := obeyed(text); found != "" {
						t.Errorf("%q", found)
					}
					if strings.ContainsAny(text, "\x00\x1b\x7f") || !utf8.ValidString(text) {
						t.Errorf("control characters: %.200q", text)
					}
				}
				if n := strings.Count(string(m.Blocks), `"type":"mrkdwn"`); n != strings.Count(string(m.Blocks), `"verbatim":true`) {
					t.Errorf("%d texts, not all verbatim", n)
				}
				if receipt.State == nil {
					return
				}
				d = of(sinks.Deleted, data)
				d.State = receipt.State
				struck := connect(t, s, strings.TrimSuffix(settings, "}")+`,"on_delete":"strike"}`)
				if _, err := struck.Deliver(t.Context(), d); err != nil {
					t.Errorf("strike: %v", err)
				}
			})
		}
	}
}

func TestFieldsThatDoNotFitAreCounted(t *testing.T) {
	s := workspace(slacktest.Options{NoRateLimit: true})
	deliver(t, connect(t, s, hookSettings), of(sinks.Created, hostile()["500 fields"]), nil)
	m := only(t, s)
	var blocks []block
	if err := json.Unmarshal(m.Blocks, &blocks); err != nil {
		t.Fatal(err)
	}
	shown := 0
	for _, b := range blocks {
		shown += len(b.Fields)
	}
	if last := blocks[len(blocks)-1].Elements[0].Text; shown < 100 || !strings.HasPrefix(last, fmt.Sprintf("%d more fields | /expenses", 501-shown)) {
		t.Errorf("%d fields, then %q", shown, last)
	}
}

func TestALongTextIsCutWithAnEllipsis(t *testing.T) {
	s := workspace(slacktest.Options{NoRateLimit: true})
	deliver(t, connect(t, s, hookSettings), of(sinks.Created, hostile()["long text"]), nil)
	shown := texts(t, only(t, s).Blocks)
	if !strings.Contains(shown, "xxx…\n*b*\nshort") {
		t.Errorf("%d bytes", len(shown))
	}
}

// TestAnythingIsTaken: whatever an event holds, Slack takes the message, and nothing in
// it is obeyed.
func TestAnythingIsTaken(t *testing.T) {
	text := rapid.OneOf(
		rapid.String(),
		rapid.Custom(func(t *rapid.T) string {
			part := rapid.SampledFrom([]string{"<!channel>", "&", "\U0001f95c", "~", "\n", "`", "x", "|", " ", "&lt;", "\u202e"}).Draw(t, "part")
			return strings.Repeat(part, rapid.IntRange(0, 4000).Draw(t, "times"))
		}),
	)
	rapid.Check(t, func(rt *rapid.T) {
		data, err := json.Marshal(rapid.MapOfN(text, text, 0, 60).Draw(rt, "data"))
		if err != nil {
			rt.Fatal(err)
		}
		d := of(rapid.SampledFrom([]string{sinks.Created, sinks.Deleted, "expense.approved"}).Draw(rt, "event"), string(data))
		d.Entry.ID, d.Helper.Name, d.Helper.Command, d.ID = text.Draw(rt, "entry"), text.Draw(rt, "helper"), text.Draw(rt, "command"), text.Draw(rt, "id")
		s := workspace(slacktest.Options{NoRateLimit: true})
		settings := rapid.SampledFrom([]string{hookSettings, withTemplate(hookSettings, `x {{range .Fields}}{{truncate 300 .Value}}{{end}}`)}).Draw(rt, "settings")
		sink := connect(t, s, settings)
		if _, err := sink.Deliver(t.Context(), d); err != nil {
			rt.Fatalf("%v: %.3000s", err, s.Calls()[0].Body)
		}
		m := s.Messages(general)[0]
		if found := obeyed(m.Text + texts(t, m.Blocks)); found != "" {
			rt.Fatalf("%q", found)
		}
		fields, err := d.Entry.Fields()
		if err != nil {
			rt.Fatal(err)
		}
		m2 := standard(d, fields, true)
		body, err := encode(hookMessage{message: m2})
		if err != nil {
			rt.Fatal(err)
		}
		if a := posted(s, body); a != "ok" {
			rt.Fatalf("struck: %s: %.3000s", a, body)
		}
	})
}

func TestCutLeavesMarkupWhole(t *testing.T) {
	for _, c := range []struct {
		in   string
		most int
		want string
	}{
		{"short", 5, "short"},
		{"shorter", 5, "shor…"},
		{"a &amp; b", 9, "a &amp; b"},
		{"a &amp; bc", 9, "a &amp;…"},
		{"a &amp; b", 8, "a &amp;…"},
		{"a &amp; b", 7, "a…"},
		{"a &amp; b", 4, "a…"},
		{"a <https://x|y> b", 10, "a…"},
		{"a <https://x|y> bc", 16, "a <https://x|y>…"},
		{"\U0001f95c\U0001f95c\U0001f95c", 5, "\U0001f95c\U0001f95c…"},
		{"\U0001f95c\U0001f95c\U0001f95c", 4, "\U0001f95c…"},
		{"", 1, ""},
		{"ab", 1, "…"},
	} {
		if got := cut(c.in, c.most); got != c.want || units(got) > c.most {
			t.Errorf("%q to %d: %q", c.in, c.most, got)
		}
	}
}

func FuzzPieces(f *testing.F) {
	f.Add("a\nb &amp; <x> \U0001f95c", 3)
	f.Add(strings.Repeat("<", 100), 10)
	f.Add(strings.Repeat("&amp;", 100), 6)
	f.Fuzz(func(t *testing.T, s string, most int) {
		if most < 6 || most > 5000 || !utf8.ValidString(s) {
			return
		}
		all := 0
		for _, p := range pieces(s, most) {
			if units(p) > most || strings.TrimSpace(p) == "" || !utf8.ValidString(p) {
				t.Errorf("%q in pieces of %d: %q", s, most, p)
			}
			all += len(p)
		}
		if all > len(s) {
			t.Errorf("%q became longer", s)
		}
		if got := cut(s, most); units(got) > most || !utf8.ValidString(got) {
			t.Errorf("%q cut to %d: %q", s, most, got)
		}
	})
}
