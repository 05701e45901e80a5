package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/rest"
	"pgregory.net/rapid"
)

func render(t *table, width int, st style) string {
	var b strings.Builder
	if err := t.write(&b, width, st); err != nil {
		panic(err)
	}
	return b.String()
}

func sampleTable() *table {
	t := &table{columns: []column{{title: "ID"}, {title: "URL", least: 8}, {title: "STATE", paint: paintState}, {title: "N", right: true}}}
	t.add("a1", "https://api.example.com/peanuts/hook", "held: disabled", "7")
	t.add("b", "-", "active", "1,234")
	return t
}

func TestATableIsCompleteWhenItIsNotForATerminal(t *testing.T) {
	want := "" +
		"ID  URL                                   STATE               N\n" +
		"a1  https://api.example.com/peanuts/hook  held: disabled      7\n" +
		"b   -                                     active          1,234\n"
	if got := render(sampleTable(), 0, style{}); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestATableFitsTheTerminal(t *testing.T) {
	want := "" +
		"ID  URL            STATE               N\n" +
		"a1  https:…s/hook  held: disabled      7\n" +
		"b   -              active          1,234\n"
	if got := render(sampleTable(), 40, style{}); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestATableNeverCutsBelowTheLeastWidth(t *testing.T) {
	got := render(sampleTable(), 10, style{})
	if !strings.Contains(got, "  http…ook  ") {
		t.Errorf("the column of least 8 is not 8 wide:\n%s", got)
	}
}

func TestColourTakesNoSpace(t *testing.T) {
	plain, painted := render(sampleTable(), 40, style{}), render(sampleTable(), 40, style{on: true})
	if !strings.Contains(painted, "\x1b[33mheld\x1b[0m: disabled") {
		t.Errorf("held is not painted: %q", painted)
	}
	var stripped strings.Builder
	for i, part := range strings.Split(painted, "\x1b[") {
		if i > 0 {
			_, part, _ = strings.Cut(part, "m")
		}
		stripped.WriteString(part)
	}
	if stripped.String() != plain {
		t.Errorf("got\n%swant\n%s", stripped.String(), plain)
	}
}

func TestCellsCannotMoveTheCursor(t *testing.T) {
	tab := &table{columns: []column{{title: "ERROR"}}}
	tab.add("a\nb\x1b[2J\u009b\u202e\xff")
	if got := render(tab, 0, style{}); got != "ERROR\na b\ufffd[2J\ufffd\ufffd\ufffd\n" {
		t.Errorf("got %q", got)
	}
}

func TestNoLineIsWiderThanTheTerminal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tab := &table{columns: []column{{title: "A", least: 4}, {title: "B", least: 4, right: true}, {title: "C", least: 4}}}
		for range rapid.IntRange(0, 5).Draw(t, "rows") {
			tab.add(rapid.String().Draw(t, "a"), rapid.String().Draw(t, "b"), rapid.StringMatching(`[a-zé漢字]{0,60}`).Draw(t, "c"))
		}
		width := rapid.IntRange(16, 120).Draw(t, "width")
		for line := range strings.Lines(render(tab, width, style{})) {
			if w := textWidth(strings.TrimSuffix(line, "\n")); w > width {
				t.Fatalf("line of %d columns on a terminal of %d: %q", w, width, line)
			}
		}
	})
}

func TestCutMiddleKeepsBothEnds(t *testing.T) {
	for _, c := range []struct {
		text  string
		width int
		want  string
	}{
		{"abcdefghij", 10, "abcdefghij"},
		{"abcdefghij", 9, "abcd…ghij"},
		{"abcdefghij", 4, "ab…j"},
		{"abcdefghij", 1, "…"},
		{"漢字漢字漢字", 7, "漢字…字"},
		{"漢字漢字漢字", 6, "漢…字"},
		{"e\u0301e\u0301e\u0301", 3, "e\u0301e\u0301e\u0301"},
	} {
		if got := cutMiddle(c.text, c.width); got != c.want {
			t.Errorf("cutMiddle(%q, %d) = %q, want %q", c.text, c.width, got, c.want)
		}
	}
}

// deliveries as an operator's terminal has them: 80 columns, and less.
func TestANarrowTerminalGetsTheDeliveriesThatMatterWhole(t *testing.T) {
	a := &app{Streams: Streams{Now: func() time.Time { return moment(0).Time }}}
	list := []rest.Delivery{
		{ID: "del_0000000000000000000000000001", Webhook: "expenses.backend", Event: "entry.created", EntryID: "entry-789", Status: rest.StatusSuccess,
			StatusCode: 200, Attempts: 1, CreatedAt: moment(0)},
		{ID: "del_0000000000000000000000000002", Webhook: "expenses.backend", Event: "expense.approved", EntryID: "entry-790", Status: rest.StatusFailed,
			StatusCode: 302, Attempts: 2, CreatedAt: rest.Time{Time: moment(0).Add(-24 * time.Hour)},
			Error: "the receiver answered 302 Found, pointing to https://elsewhere.example.com; redirects are not followed, put the receiver's final address into url"},
	}
	clock := moment(0).Local().Format("15:04:05")
	before := moment(0).Add(-24 * time.Hour).Local().Format("01-02 15:04")
	for width, want := range map[int]string{
		80: "" +
			"ACCEPTED     DELIVERY                          WEBHOOK      EVENT        STATUS\n" +
			clock + "     del_0000000000000000000000000001  expen…ckend  created      success\n" +
			before + "  del_0000000000000000000000000002  expen…ckend  expen…roved  failed\n" +
			"  the receiver answered 302 Found, pointi… the receiver's final address into url\n",
		55: "" +
			"DELIVERY                          WEBHOOK       STATUS\n" +
			"del_0000000000000000000000000001  expens…ckend  success\n" +
			"del_0000000000000000000000000002  expens…ckend  failed\n" +
			"  the receiver answered 302 …r's final address into url\n",
	} {
		got := render(a.deliveryTable(list), width, style{})
		for line := range strings.Lines(got) {
			if w := textWidth(strings.TrimSuffix(line, "\n")); w > width {
				t.Errorf("a line of %d columns on a terminal of %d: %q", w, width, line)
			}
		}
		if got != want {
			t.Errorf("width %d: got\n%swant\n%s", width, got, want)
		}
	}
	if got := render(a.deliveryTable(list), 0, style{}); !strings.Contains(got, "  entry.created     entry-789  ") || strings.Count(got, "\n") != 3 {
		t.Errorf("a pipe gets\n%s", got)
	}
}

func TestWebhooksFit80ColumnsWithTheirNamesAndStatesWhole(t *testing.T) {
	got := render((&app{}).webhookTable([]rest.Webhook{
		{ID: "expenses.backend", Sink: "http", URL: "https://api.example.com/********", State: "active", Last: &rest.Delivery{Status: "success", StatusCode: 200}},
		{ID: "expenses.alerts", Sink: "http", URL: "https://alerts.example.com/********", State: "held", HeldReason: "disabled"},
	}), 80, style{})
	want := "" +
		"WEBHOOK           STATE           PENDING  SUCCESS  FAILED  LAST\n" +
		"expenses.backend  active                0        0       0  success 200\n" +
		"expenses.alerts   held: disabled        0        0       0  -\n"
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}
