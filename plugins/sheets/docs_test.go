package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/peanutsapp/peanuts-relay/internal/docstest"
	"github.com/peanutsapp/peanuts-relay/plugins/sheets/sheetstest"
	"github.com/peanutsapp/peanuts-relay/sinks"
)

const docPage = "sinks/sheets.md"

func TestTheSchemaKnowsEverySetting(t *testing.T) {
	schema, err := sinks.Schema[Settings]()
	if err != nil {
		t.Fatal(err)
	}
	docstest.Schema(t, docPage, schema, "credentials", "base_url")
}

func TestTheExamplesOfThePageAreGoodSettings(t *testing.T) {
	key := strings.ReplaceAll(sheetstest.Key(email, "https://oauth2.googleapis.com"), "\n", "")
	secrets := map[string]string{
		"/etc/peanuts-relay/expenses.secret": "0123456789abcdef",
		"/etc/peanuts-relay/google.json":     "'" + key + "'", // quoted, as the relay puts it in after it read the YAML
	}
	for _, raw := range docstest.Settings(t, docPage, "sheets", secrets) {
		s, err := sinks.Decode[Settings](raw)
		if err != nil {
			t.Fatal(err)
		}
		if got := findings(t, s, false); got != "" {
			t.Error(got)
		}
	}
}

func TestThePageShowsWhatArrives(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	ds := []*sinks.Delivery{
		event(1, sinks.Created, "entry-1", `{"amount":42.5,"category":"Food & Dining","date":"2025-01-15","paid":true,"tags":["a","b"]}`),
		event(2, sinks.Created, "entry-2", `{"amount":12345678901234567890,"category":"=1+1","no":"007"}`),
		event(3, sinks.Created, "entry-3", `{"amount":5,"category":null}`),
		event(4, sinks.Updated, "entry-1", `{"amount":45,"category":"Food & Dining","date":"2025-01-16","paid":false}`),
		event(5, sinks.Deleted, "entry-3", `{"amount":5,"category":null}`),
	}
	var events strings.Builder
	for _, d := range ds {
		want(t, s, sinks.OutcomeDelivered, d)
		fmt.Fprintf(&events, "{\"event\": %q, \"entry\": {\"id\": %q, \"data\": %s}}\n", d.Event, d.Entry.ID, d.Entry.Data)
	}
	docstest.Block(t, docPage, "events", events.String())
	v, _ := w.google.Look("Expenses")
	docstest.Block(t, docPage, "rows", drawn(v))
}

// drawn is a tab as text.
func drawn(v sheetstest.View) string {
	width := make([]int, 9)
	cell := func(c any) string {
		if c == nil {
			return ""
		}
		return fmt.Sprint(c)
	}
	for _, row := range v.Cells {
		for i := range width {
			width[i] = max(width[i], utf8.RuneCountInString(cell(row[i])))
		}
	}
	var out strings.Builder
	for n, row := range v.Cells {
		var line strings.Builder
		for i, w := range width {
			fmt.Fprintf(&line, " %-*s |", w, cell(row[i]))
		}
		fmt.Fprintf(&out, "%d |%s\n", n+1, line.String())
	}
	return out.String()
}

// TestThePageExplainsEveryCode finds the codes in the source.
func TestThePageExplainsEveryCode(t *testing.T) {
	text := docstest.Page(t, docPage)
	f, err := parser.ParseFile(token.NewFileSet(), "errors.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.CONST {
			continue
		}
		for _, spec := range g.Specs {
			v, ok := spec.(*ast.ValueSpec)
			if !ok || !strings.HasPrefix(v.Names[0].Name, "code") {
				continue
			}
			code, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			found++
			if !strings.Contains(text, "`"+code+"`") {
				t.Errorf("%s does not explain %s", docPage, code)
			}
		}
	}
	if found < 10 {
		t.Errorf("only %d codes found", found)
	}
	for _, code := range []string{"rate_limited", "too_many_columns", "bad_entry_id", "bad_data"} {
		if !strings.Contains(text, "`"+code+"`") {
			t.Errorf("%s does not explain %s", docPage, code)
		}
	}
}
