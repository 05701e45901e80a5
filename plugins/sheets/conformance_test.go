package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/plugins/sheets/sheetstest"
	"github.com/peanutsapp/peanuts-relay/sinks"
	"github.com/peanutsapp/peanuts-relay/sinks/sinktest"
)

// program is the name under which the test binary is the plugin.
const program = "peanuts-sink-sheets"

// installed is the test binary under that name.
func installed(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), program)
	if err := os.WriteFile(path, b, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// conformance are the options of the suite.
func conformance() sinktest.Options {
	google := sheetstest.New(time.Now)
	google.LimitCalls(100_000)
	google.LimitProject(100_000)
	var accounts atomic.Int64
	with := func(field string, value any) func(string) any {
		return func(remote string) any {
			account := fmt.Sprintf("relay%d@project.iam.gserviceaccount.com", accounts.Add(1))
			google.Share(account, sheetstest.Editor)
			all := map[string]any{"spreadsheet": sheetstest.ID, "tab": "Expenses", "credentials": sheetstest.Key(account, remote), "base_url": remote, "calls_per_minute": 6000}
			if field != "" {
				all[field] = value
			}
			return all
		}
	}
	misconfigured := sinktest.Fault{Want: []sinks.Outcome{sinks.OutcomeMisconfigured}}
	return sinktest.Options{
		Settings:  with("", nil),
		Remote:    google,
		Untouched: func(r *http.Request) bool { return r.URL.Path == "/token" },
		Faults: map[string]sinktest.Fault{
			"404": misconfigured, "redirect": misconfigured,
			// Short, because all later checks have the same account and wait for it.
			"429": {Header: http.Header{"Retry-After": {"1"}}, Want: []sinks.Outcome{sinks.OutcomeRateLimited}, Pause: time.Second},
		},
		Bad: []sinktest.BadSettings{
			{Name: "the name of a spreadsheet instead of its id", Settings: with("spreadsheet", "My expenses"), Path: "/spreadsheet"},
			{Name: "a key that is none", Settings: with("credentials", "{}"), Path: "/credentials"},
			{Name: "a column that is the relay's", Settings: with("columns", map[string]string{"entry_id": "x"}), Path: "/columns/entry_id"},
		},
		Skip: map[string]string{
			"instances-are-independent": "webhooks of one spreadsheet take turns; TestWebhooksOfDifferentSpreadsheetsDoNotWait looks at others",
		},
		Secrets: []string{"ya29.", "PRIVATE KEY"},
		Arrived: func(d *sinks.Delivery, _ []sinktest.Request) error { return arrived(google, d) },
		Effects: func(d *sinks.Delivery) (int, error) { return len(rowsFrom(google, d)), nil },
	}
}

// rowsFrom are the rows that an event made.
func rowsFrom(google *sheetstest.Server, d *sinks.Delivery) [][]any {
	v, _ := google.Look("Expenses")
	at := v.Column(colEvent)
	if at < 0 {
		return nil
	}
	return slices.DeleteFunc(v.Cells[1:], func(row []any) bool { return row[at] != d.EventID })
}

// arrived compares each field of a delivery with its cell: text as text, and numbers
// that a sheet cannot hold as the digits that were sent.
func arrived(google *sheetstest.Server, d *sinks.Delivery) error {
	rows := rowsFrom(google, d)
	if len(rows) != 1 {
		return fmt.Errorf("%d rows are from the event", len(rows))
	}
	v, _ := google.Look("Expenses")
	fields, err := d.Entry.Fields()
	if err != nil {
		return err
	}
	for _, f := range fields {
		at := v.Column(f.Name)
		if at < 0 {
			return fmt.Errorf("there is no column %q", f.Name)
		}
		want := any(f.Text())
		switch raw := string(f.Value); {
		case raw == "null" || raw == `""`:
			want = nil
		case raw == "true" || raw == "false":
			want = raw == "true"
		default:
			if n, is := rows[0][at].(float64); is {
				if !sameDecimal(raw, fmt.Sprint(json.Number(cellText(n)))) {
					return fmt.Errorf("%q: %s became %v", f.Name, raw, n)
				}
				continue
			}
		}
		if rows[0][at] != want {
			return fmt.Errorf("%q is %v, want %v", f.Name, rows[0][at], want)
		}
	}
	return nil
}

// TestItIsASink runs the suite that every sink has to pass.
func TestItIsASink(t *testing.T) { sinktest.Run(t, New().Server, conformance()) }

// TestTheProgramIsASink runs it against the program.
func TestTheProgramIsASink(t *testing.T) { sinktest.RunBinary(t, installed(t), conformance()) }
