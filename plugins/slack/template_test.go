package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/plugins/slack/slacktest"
	"github.com/peanutsapp/peanuts-relay/sinks"
)

// rendered is what a template makes of an entry.
func rendered(t *testing.T, source, data string) (string, error) {
	t.Helper()
	l, err := compile(source)
	if err != nil {
		t.Fatalf("%s: %v", source, err)
	}
	d := of(sinks.Created, data)
	fields, err := d.Entry.Fields()
	if err != nil {
		t.Fatal(err)
	}
	return l.render(newEvent(d, fields), noon)
}

func TestTemplates(t *testing.T) {
	const data = `{"amount":42.5,"big":12345678901234567890,"million":1000000,"tiny":1e-7,"text":"A & B <!channel>","n":"7","flag":true,"none":null,` +
		`"tags":["a","b"],"place":{"city":"Genève","zip":1204},"url":"https://shop.example/?a=1&b=2","who":"U012ABC","due":"2025-01-16","soon":"2025-01-15T18:00:00Z","list":[1,{"x":"<"}]}`
	for _, c := range []struct{ source, want string }{
		{"{{.Helper.Name}}: {{.Data.amount}} in {{.Data.text}}", "Daily Expenses: 42.5 in A &amp; B &lt;!channel&gt;"},
		{"<!here> {{.Event}} {{.Entry.ID}} {{.User.ID}} {{.EventID}} {{.Webhook}} {{.Helper.Command}}", "<!here> entry.created entry-789-xyz user-456 evt_01JH expenses.slack /expenses"},
		{"{{.Data.big}} {{.Data.million}} {{.Data.tiny}} {{.Data.flag}} [{{.Data.none}}] [{{.Data.missing}}]", "12345678901234567890 1000000 1e-7 true [] []"},
		{`{{range .Fields}}{{if lt (len .Name) 3}}{{.Name}}={{.Value}};{{end}}{{end}}`, "n=7;"},
		{`{{range $k, $v := .Data.place}}{{$k}}:{{$v}} {{end}}`, "city:Genève zip:1204"},
		{`{{.Data.list}} {{json .Data.place}}`, `[1,{"x":"&lt;"}] {"city":"Genève","zip":1204}`},
		// Comparisons are by value, and false of what cannot be compared.
		{`{{if gt .Data.amount 42}}a{{end}}{{if gt .Data.amount 42.5}}b{{end}}{{if ge .Data.amount 42.5}}c{{end}}{{if lt .Data.amount 100}}d{{end}}{{if le .Data.amount 1}}e{{end}}`, "acd"},
		{`{{if gt .Data.n 6}}a{{end}}{{if gt .Data.missing 500}}b{{end}}{{if lt .Data.missing 500}}c{{end}}{{if gt .Data.text 5}}d{{end}}{{if gt .Data.big 500}}e{{end}}`, "ae"},
		{`{{if eq .Data.n "7"}}a{{end}}{{if eq .Data.n 7}}b{{end}}{{if eq .Data.flag true}}c{{end}}{{if eq .Data.amount 42.5}}d{{end}}{{if eq .Event "entry.created" "x"}}e{{end}}{{if ne .Event "x"}}f{{end}}{{if eq .Data.none .Data.missing}}g{{end}}{{if eq .Data.none ""}}h{{end}}`, "abcdefg"},
		{`{{if and .Data.flag (not .Data.none) (or .Data.missing .Data.n)}}yes{{end}}`, "yes"},
		{`{{if gt .Data.due "2025-01-15"}}later{{end}}{{if lt .Timestamp .Data.soon}} soon{{end}}`, "later soon"},
		// Functions.
		{`{{upper .Data.n}}{{.Data.text | upper}} {{lower "ÀB"}} {{trim "  x "}}`, "7A &amp; B &lt;!CHANNEL&gt; àb x"},
		{`{{truncate 4 .Data.text}}|{{.Data.text | truncate 100}}`, "A &amp;…|A &amp; B &lt;!channel&gt;"},
		{`{{replace "A" "<>" .Data.text}} {{join ", " .Data.tags}} {{join "," .Data.n}}`, "&lt;&gt; &amp; B &lt;!channel&gt; a, b 7"},
		{`{{contains "B" .Data.text}} {{hasPrefix "B" .Data.text}}`, "true false"},
		{`{{default "-" .Data.missing}}{{default "-" .Data.none}}{{.Data.amount | default 1}}`, "--42.5"},
		{`{{get "place.city" .Data}} {{get "tags.1" .Data}} {{get "list.1.x" .Data}}[{{get "place.x.y" .Data}}{{get "tags.9" .Data}}{{get "tags.x" .Data}}]`, "Genève b &lt;[]"},
		{`{{printf "%.2f %05d %s %v %q" .Data.amount (int .Data.amount) .Data.text .Data.flag .Data.n}}`, "42.50 00042 A &amp; B &lt;!channel&gt; true &#34;7&#34;"},
		{`{{print .Data.n 1}} {{println "a"}}{{html "<"}} {{urlquery "a b"}} {{js "'"}}`, `71 a &amp;lt; a+b \'`},
		{`{{date "2 Jan 2006" .Data.due}} {{date "15:04" .Timestamp}} [{{date "2006" .Data.text}}]`, "16 Jan 2025 14:32 []"},
		{`{{local .Timestamp}} {{local .Data.due}} {{local .Data.text}}`, "<!date^1736951520^{date_short_pretty} {time}|2025-01-15 14:32 UTC> 2025-01-16 A &amp; B &lt;!channel&gt;"},
		{`{{if within "24h" .Data.due}}a{{end}}{{if within "1d" .Data.soon}}b{{end}}{{if within "1h" .Data.soon}}c{{end}}{{if within "24h" .Data.text}}d{{end}}{{if within "2h" "2025-01-15"}}e{{end}}{{if within "9d" "2025-01-14"}}f{{end}}`, "abe"},
		{`{{(time .Data.due).Weekday}} {{now.Year}} {{.Timestamp.Unix}}`, "Thursday 2025 1736951520"},
		{`{{link .Data.url "receipt"}} {{link .Data.url}} {{link .Data.text "x"}} {{link "javascript:alert(1)" "x"}} {{link .Data.url .Data.text}}`,
			"<https://shop.example/?a=1&amp;b=2|receipt> <https://shop.example/?a=1&amp;b=2|https://shop.example/?a=1&amp;b=2> A &amp; B &lt;!channel&gt; javascript:alert(1) <https://shop.example/?a=1&amp;b=2|A &amp; B &lt;!channel&gt;>"},
		{`{{mention .Data.who}} {{mention "S0123"}} {{mention .Data.text}} {{mention "!channel"}}`, "<@U012ABC> <!subteam^S0123> A &amp; B &lt;!channel&gt; !channel"},
		{`{{define "row"}}{{.Name}} {{end}}{{range .Fields}}{{template "row" .}}{{break}}{{end}}`, "amount"},
		{`{{with .Data.missing}}a{{else}}b{{end}}{{$x := .Data.n}}{{$x = upper .Data.n}}{{$x}}`, "b7"},
		{"  {{if gt .Data.amount 500}}much{{end}} \n ", ""},
		{`{{/* nothing */}}`, ""},
	} {
		got, err := rendered(t, c.source, data)
		want := strings.ReplaceAll(c.want, "&#34;", `"`)
		if err != nil || got != want {
			t.Errorf("%s\ngot  %s\nwant %s\n%v", c.source, got, want, err)
		}
	}
}

func TestATemplateThatIsWrongIsFoundBeforeTheFirstEvent(t *testing.T) {
	for source, want := range map[string]string{
		"{{":                "unclosed action",
		"{{nothing .Data}}": `function "nothing" not defined`,
		"line\n{{end}}":     "line 2:",
		"{{.Amount}}":       "can't evaluate field Amount",
		"{{.Helper.Title}}": "can't evaluate field Title",
		`{{define "a"}}{{template "a"}}{{end}}{{template "a"}}`:                                      `"a" calls itself`,
		`{{define "a"}}{{template "b"}}{{end}}{{define "b"}}{{if 1}}{{template "a"}}{{end}}{{end}}x`: "calls itself",
		strings.Repeat("x", maxSource+1):                                                             "at most 16384",
	} {
		_, err := compile(source)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: %v", source, err)
		}
	}
	if l, err := compile("  \n"); l != nil || err != nil {
		t.Errorf("%v %v", l, err)
	}
}

// TestATemplateCannotHangOrEatMemory: each of these would take for ever, or all memory,
// with text/template alone.
func TestATemplateCannotHangOrEatMemory(t *testing.T) {
	var fields strings.Builder
	for i := range 500 {
		fmt.Fprintf(&fields, `,"f%d":%d`, i, i)
	}
	data := `{"long":"` + strings.Repeat("x", 60_000) + `"` + fields.String() + `}`
	var deep strings.Builder
	for i := range 40 {
		fmt.Fprintf(&deep, `{{define "t%d"}}{{template "t%d"}}{{template "t%d"}}{{end}}`, i, i+1, i+1)
	}
	deep.WriteString(`{{define "t40"}}{{end}}{{template "t0"}}`)
	for name, source := range map[string]string{
		"a long loop":       `{{range 9999999999}}{{end}}`,
		"loops in loops":    `{{range .Fields}}{{range $.Fields}}{{end}}{{end}}`,
		"much output":       `{{range .Fields}}{{$.Data.long}}{{end}}`,
		"doubling":          `{{$x := "aaaaaaaa"}}{{range .Fields}}{{$x = print $x $x}}{{end}}`,
		"wide":              `{{printf "%999999d" 1}}`,
		"wide by argument":  `{{printf "%*d" 999999 1}}`,
		"precise":           `{{printf "%.99999f" 1.5}}`,
		"the same often":    `{{printf "%[1]s%[1]s%[1]s%[1]s%[1]s%[1]s" .Data.long}}`,
		"many verbs":        `{{printf "` + strings.Repeat("%[1]d", 33) + `" 1}}`,
		"replaced":          `{{replace "x" .Data.long .Data.long}}`,
		"between":           `{{replace "" .Data.long .Data.long}}`,
		"escaped":           `{{urlquery (printf "%s" (replace "x" "ÿ" .Data.long))}}`,
		"all as JSON":       `{{json .Data}}{{json .Data}}`,
		"called templates":  deep.String(),
		"a layout":          `{{date .Data.long .Timestamp}}{{date .Data.long .Timestamp}}`,
		"a function's data": `{{call .Data.long}}`,
	} {
		t.Run(name, func(t *testing.T) {
			begun := time.Now()
			got, err := rendered(t, source, data)
			if err == nil || len(got) > maxOutput {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			if err != nil && len(err.Error()) > 1500 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			// The bound is a second; a machine may be slow.
			if took := time.Since(begun); took > 30*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}

// TestSlowTemplatesAreStopped: each look at the clock finds it 100 ms later. Because a
// machine can be slow too, the delivery is tried again.
func TestSlowTemplatesAreStopped(t *testing.T) {
	l, err := compile(`{{range 5000}}{{$x := upper "a"}}{{end}}done`)
	if err != nil {
		t.Fatal(err)
	}
	looks := 0
	w := writer{template: l, now: func() time.Time {
		looks++
		return at.Add(time.Duration(looks) * 100 * time.Millisecond)
	}}
	if _, err := w.write(of(sinks.Created, `{}`)); outcome(err) != "retry template_slow" || err.Error() != "the template takes longer than 1s" || looks > 20 {
		t.Errorf("%v after %d looks", err, looks)
	}
}

func TestAnEmptyTemplateSkipsTheEvent(t *testing.T) {
	for _, settings := range []string{botSettings, hookSettings} {
		s := workspace(slacktest.Options{NoRateLimit: true})
		sink := connect(t, s, withTemplate(settings, `{{if gt .Data.amount 500}}{{.Data.amount}} *spent*{{end}}`))
		if _, err := sink.Deliver(t.Context(), of(sinks.Created, lunch)); outcome(err) != "skipped" {
			t.Error(err)
		}
		if len(s.Calls()) != 0 {
			t.Errorf("%+v", s.Calls())
		}
		if _, err := sink.Deliver(t.Context(), of(sinks.Created, `{"amount":501}`)); err != nil {
			t.Error(err)
		}
		if m := only(t, s); texts(t, m.Blocks) != "501 *spent*" || m.Text != "501 *spent*" {
			t.Errorf("%+v", m)
		}
	}
}

func TestATemplateThatFailsForOneEventFailsThatEvent(t *testing.T) {
	s := workspace(slacktest.Options{NoRateLimit: true})
	sink := connect(t, s, withTemplate(hookSettings, `{{index .Data.tags 5}}`))
	_, err := sink.Deliver(t.Context(), of(sinks.Created, lunch))
	if outcome(err) != "rejected template_error" || !strings.Contains(err.Error(), "line 1:") {
		t.Error(err)
	}
}

func TestALongTemplateBecomesSeveralSections(t *testing.T) {
	s := workspace(slacktest.Options{NoRateLimit: true})
	sink := connect(t, s, withTemplate(hookSettings, `{{range .Fields}}{{.Name}} {{.Value}} &amp; <https://example.com/{{.Name}}|link>{{"\n"}}{{end}}`))
	deliver(t, sink, of(sinks.Created, hostile()["500 fields"]), nil)
	shown := texts(t, only(t, s).Blocks)
	if !strings.HasSuffix(shown, "…") || strings.Count(shown, "<") != strings.Count(shown, ">") || len(shown) < 10_000 {
		t.Errorf("%d bytes, ends with %q", len(shown), shown[len(shown)-40:])
	}
}

func TestTheTextOfATemplateIsStruckThroughOnDeletion(t *testing.T) {
	s := workspace(slacktest.Options{NoRateLimit: true})
	settings := `{"token":"` + botToken + `","channel":"#general","on_delete":"strike"}`
	sink := connect(t, s, withTemplate(settings, `{{if .Data.amount}}*{{.Data.amount}}*{{"\n"}}for lunch{{end}}`))
	_, state := deliver(t, sink, of(sinks.Created, lunch), nil)
	deliver(t, sink, of(sinks.Deleted, lunch), state)
	if got := texts(t, only(t, s).Blocks); got != "~*42.5*~\n~for lunch~" {
		t.Errorf("%s", got)
	}
	// Without the data that the template needs.
	deliver(t, sink, of(sinks.Deleted, `{}`), state)
	if got := texts(t, only(t, s).Blocks); !strings.HasPrefix(got, "Daily Expenses: entry deleted") {
		t.Errorf("%s", got)
	}
}

func FuzzTemplate(f *testing.F) {
	f.Add(`{{.Data.a}} {{range .Fields}}{{.Name}}{{end}}`, `{"a":1}`)
	f.Add(`{{define "x"}}{{.}}{{end}}{{template "x" .Data}}`, `{"a":"<!channel>"}`)
	f.Add(`{{with $x := printf "%d" 1}}{{$x}}{{else}}{{link .Data.a}}{{end}}`, `{"a":{}}`)
	f.Add(`{{if lt .Data.a .Data.b}}{{date "2006" .Data.a}}{{mention .Data.a}}{{end}}`, `{"a":"2025-01-01","b":[]}`)
	f.Fuzz(func(t *testing.T, source, data string) {
		l, err := compile(source)
		if err != nil || l == nil {
			return
		}
		d := of(sinks.Created, data)
		fields, err := d.Entry.Fields()
		if err != nil {
			return
		}
		got, err := l.render(newEvent(d, fields), noon)
		if err != nil || got == "" {
			return
		}
		if len(got) > maxOutput {
			t.Errorf("%d bytes", len(got))
		}
		for _, m := range []message{formatted(d, got), formatted(d, strike(cut(got, maxTemplate/2)))} {
			body, err := encode(hookMessage{message: m})
			if err != nil {
				t.Fatal(err)
			}
			if a := posted(workspace(slacktest.Options{}), body); a != "ok" {
				t.Errorf("%s: %s", a, body)
			}
		}
	})
}
