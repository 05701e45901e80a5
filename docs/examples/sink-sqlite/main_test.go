package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/sinks"
)

// fixture is an open sink, and the file as anybody else sees it.
type fixture struct {
	t    *testing.T
	path string
	sink sinks.BatchSink
}

func start(t *testing.T, changes ...string) *fixture {
	t.Helper()
	path := filepath.Join(t.TempDir(), "entries.db")
	return &fixture{t, path, openAt(t, path, changes...)}
}

// openAt opens the sink as the relay does, with further settings as JSON members.
func openAt(t *testing.T, path string, changes ...string) sinks.BatchSink {
	t.Helper()
	s, err := sinks.Decode[settings]([]byte(`{` + strings.Join(append(changes, fmt.Sprintf(`"path":%q`, path)), ",") + `}`))
	if err != nil {
		t.Fatal(err)
	}
	opened, err := plugin().Open(t.Context(), sinks.Env{}, s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = opened.(*sink).Close() })
	return opened.(sinks.BatchSink)
}

// delivery is one about an entry of the helper expenses. Its number is its id and its
// place in the order of acceptance.
func delivery(number uint64, event, entry, data string) *sinks.Delivery {
	return &sinks.Delivery{
		ID: fmt.Sprint("d", number), Event: event, Sequence: number, Attempt: 1,
		Timestamp: time.Date(2026, 1, 2, 3, 4, int(number), 0, time.UTC),
		Helper:    sinks.Helper{ID: "expenses"},
		Entry:     sinks.Entry{ID: entry, CreatedAt: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Data: []byte(data)},
		User:      &sinks.User{ID: "u1"},
	}
}

// send delivers a batch, and returns the outcomes.
func (f *fixture) send(ds ...*sinks.Delivery) string {
	f.t.Helper()
	results, err := f.sink.DeliverBatch(f.t.Context(), ds)
	if err != nil {
		f.t.Fatal(err)
	}
	var list []string
	for _, r := range results {
		list = append(list, sinks.VerdictOf(r.Err).Outcome.String())
	}
	return strings.Join(list, " ")
}

// rows is what a query finds, a line each.
func (f *fixture) rows(query string) string {
	f.t.Helper()
	db, err := sql.Open("sqlite", f.path)
	if err != nil {
		f.t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.QueryContext(f.t.Context(), query)
	if err != nil {
		f.t.Fatal(err)
	}
	defer rows.Close()
	var lines []string
	for rows.Next() {
		var line sql.NullString
		if err := rows.Scan(&line); err != nil {
			f.t.Fatal(err)
		}
		lines = append(lines, line.String)
	}
	if err := rows.Err(); err != nil {
		f.t.Fatal(err)
	}
	return strings.Join(lines, "\n")
}

const everything = `SELECT entry_id || ' ' || data || ' ' || user_id || ' ' || created_at || ' ' || changed_at || ' ' || ifnull(deleted_at, '-') FROM expenses ORDER BY entry_id`

func TestEntriesAreRows(t *testing.T) {
	f := start(t)
	if got := f.send(delivery(1, sinks.Created, "a", `{"amount":12345678901234567890.10}`), delivery(2, sinks.Created, "b", `{}`), delivery(3, sinks.Created, "c", `{}`)); got != "delivered delivered delivered" {
		t.Fatal(got)
	}
	if got := f.send(delivery(4, sinks.Updated, "a", `{"amount":2}`), delivery(5, sinks.Deleted, "b", ``), delivery(6, sinks.Updated, "new", `{}`)); got != "delivered delivered delivered" {
		t.Fatal(got)
	}
	want := `a {"amount":2} u1 2026-01-01 00:00:00.000 2026-01-02 03:04:04.000 -
c {} u1 2026-01-01 00:00:00.000 2026-01-02 03:04:03.000 -
new {} u1 2026-01-01 00:00:00.000 2026-01-02 03:04:06.000 -`
	if got := f.rows(everything); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	f.send(delivery(7, sinks.Created, "exact", `{"amount":12345678901234567890.10}`))
	if got := f.rows(`SELECT data FROM expenses WHERE entry_id = 'exact'`); got != `{"amount":12345678901234567890.10}` {
		t.Errorf("a number was changed: %s", got)
	}
	if info, err := os.Stat(f.path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

func TestTheSameDeliveryAgainChangesNothing(t *testing.T) {
	f := start(t)
	first := delivery(1, sinks.Created, "a", `{"n":1}`)
	f.send(first, delivery(2, sinks.Updated, "a", `{"n":2}`))
	before := f.rows(everything)
	again := *first
	again.Attempt = 2
	if got := f.send(&again, &again); got != "skipped skipped" {
		t.Error(got)
	}
	f.send(delivery(3, sinks.Deleted, "a", ``))
	if got := f.send(&again); got != "skipped" || f.rows(everything) != "" {
		t.Errorf("%s: %s", got, f.rows(everything))
	}
	if !strings.Contains(before, `{"n":2}`) {
		t.Error(before)
	}
}

func TestSomethingOlderDoesNotReplaceWhatIsNewer(t *testing.T) {
	f := start(t)
	f.send(delivery(5, sinks.Updated, "a", `{"n":5}`), delivery(6, sinks.Deleted, "b", ``))
	if got := f.send(delivery(1, sinks.Created, "a", `{"n":1}`), delivery(2, sinks.Created, "b", `{"n":2}`)); got != "skipped skipped" {
		t.Error(got)
	}
	if got := f.rows(`SELECT data FROM expenses`); got != `{"n":5}` {
		t.Error(got)
	}
}

func TestADeletedEntryCanStayMarked(t *testing.T) {
	f := start(t, `"on_delete":"mark"`, `"prefix":"p_"`)
	f.send(delivery(1, sinks.Created, "a", `{"n":1}`), delivery(2, sinks.Deleted, "a", ``))
	if got := f.rows(`SELECT data || ' ' || deleted_at FROM p_expenses`); got != `{"n":1} 2026-01-02 03:04:02.000` {
		t.Error(got)
	}
	f.send(delivery(3, sinks.Created, "a", `{"n":3}`))
	if got := f.rows(`SELECT data || ' ' || ifnull(deleted_at, '-') FROM p_expenses`); got != `{"n":3} -` {
		t.Error(got)
	}
}

func TestABatchIsStoredAsAWhole(t *testing.T) {
	f := start(t)
	f.send(delivery(1, sinks.Created, "a", `{}`))
	db, err := sql.Open("sqlite", f.path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(`CREATE TRIGGER broken BEFORE INSERT ON expenses WHEN new.entry_id = 'c' BEGIN SELECT RAISE(ABORT, 'the disk is full'); END`); err != nil {
		t.Fatal(err)
	}
	batch := []*sinks.Delivery{delivery(2, sinks.Created, "b", `{}`), delivery(3, sinks.Created, "c", `{}`), delivery(4, sinks.Deleted, "a", ``)}
	if results, err := f.sink.DeliverBatch(t.Context(), batch); err == nil || results != nil || sinks.VerdictOf(err).Outcome != sinks.OutcomeRetry {
		t.Fatalf("%v, %v", results, err)
	}
	if got := f.rows(`SELECT entry_id FROM expenses`); got != "a" {
		t.Errorf("half of the batch is stored: %s", got)
	}
	if _, err := db.Exec(`DROP TRIGGER broken`); err != nil {
		t.Fatal(err)
	}
	if got := f.send(batch...); got != "delivered delivered delivered" {
		t.Error(got)
	}
	if got := f.rows(`SELECT entry_id FROM expenses ORDER BY entry_id`); got != "b\nc" {
		t.Error(got)
	}
}

func TestADeliveryThatMakesNoSenseStopsNoOther(t *testing.T) {
	f := start(t)
	other := func(change func(*sinks.Delivery)) *sinks.Delivery {
		d := delivery(1, sinks.Created, "x", `{}`)
		change(d)
		return d
	}
	odd := delivery(9, sinks.Created, "odd", `{}`)
	odd.Helper.ID = `we"ird; DROP TABLE expenses`
	got := f.send(
		other(func(d *sinks.Delivery) { d.Helper.ID = "" }), other(func(d *sinks.Delivery) { d.Helper.ID = "a\x00b" }),
		other(func(d *sinks.Delivery) { d.Helper.ID = "SQLite_master" }), other(func(d *sinks.Delivery) { d.Helper.ID = "_peanuts_entries" }),
		other(func(d *sinks.Delivery) { d.Entry.Data = []byte("{") }), other(func(d *sinks.Delivery) { d.Event = "payment.failed" }),
		odd, delivery(2, sinks.Created, "good", `{}`))
	if got != "rejected rejected rejected rejected rejected skipped delivered delivered" {
		t.Error(got)
	}
	if got := f.rows(`SELECT entry_id FROM "we""ird; DROP TABLE expenses"`) + f.rows(`SELECT entry_id FROM expenses`); got != "oddgood" {
		t.Error(got)
	}
}

func TestTwoWebhooksShareAFile(t *testing.T) {
	f := start(t)
	second := openAt(t, f.path)
	var wg sync.WaitGroup
	for n, s := range []sinks.BatchSink{f.sink, second} {
		wg.Go(func() {
			for i := range 50 {
				number := uint64(1 + n*1000 + i)
				if _, err := s.Deliver(context.Background(), delivery(number, sinks.Created, fmt.Sprint("e", number), `{}`)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if got := f.rows(`SELECT count(*) FROM expenses`); got != "100" {
		t.Error(got)
	}
}

func TestIDsOfDeliveriesAreForgottenInTheEnd(t *testing.T) {
	f := start(t, `"remember":"24h"`)
	f.send(delivery(1, sinks.Created, "a", `{}`), delivery(2, sinks.Created, "b", `{}`))
	db, err := sql.Open("sqlite", f.path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(`UPDATE _peanuts_deliveries SET stored_at = stored_at - 86410 WHERE id = 'd1'`); err != nil {
		t.Fatal(err)
	}
	f.send(delivery(3, sinks.Created, "c", `{}`))
	if got := f.rows(`SELECT id FROM _peanuts_deliveries ORDER BY id`); got != "d2\nd3" {
		t.Error(got)
	}
}

func TestWhatIsWrongWithTheFileIsSaid(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "text"), []byte(strings.Repeat("no database ", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, filepath.Join(dir, "missing", "entries.db"), filepath.Join(dir, "text")} {
		s := settings{Path: path, Remember: time.Hour}
		_, err := plugin().Open(t.Context(), sinks.Env{}, s)
		if e, ok := errors.AsType[*sinks.SettingError](err); !ok || e.Path != "/path" {
			t.Errorf("%s: %v", path, err)
		}
	}

	f := start(t)
	f.send(delivery(1, sinks.Created, "a", `{}`))
	for _, name := range []string{f.path, f.path + "-wal"} {
		if err := os.WriteFile(name, []byte(strings.Repeat("no database ", 1000)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	reopened, err := plugin().Open(t.Context(), sinks.Env{}, settings{Path: f.path})
	if err == nil {
		t.Errorf("a damaged file is opened: %v", reopened)
	}
}

func TestSettingsThatCannotWork(t *testing.T) {
	for text, want := range map[string]string{
		`{"path":"/var/a.db"}`:                   "[]",
		`{"path":"a.db"}`:                        "[/path]",
		`{"path":"/var/a.db","remember":"1h"}`:   "[/remember]",
		`{"path":"a.db","remember":"23h59m59s"}`: "[/path /remember]",
	} {
		s, err := sinks.Decode[settings]([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		var v sinks.Validation
		s.Validate(t.Context(), &v)
		paths := []string{}
		for _, d := range v.Diagnostics() {
			paths = append(paths, d.Path)
		}
		if got := fmt.Sprint(paths); got != want {
			t.Errorf("%s: %s", text, got)
		}
	}
	if _, err := sinks.Decode[settings]([]byte(`{"path":"/a","prefix":"x; DROP","on_delete":"keep"}`)); err == nil || strings.Count(err.Error(), "setting /") != 2 {
		t.Errorf("%v", err)
	}
}

func TestADeliveryThatIsCancelledIsNotStored(t *testing.T) {
	f := start(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.sink.Deliver(ctx, delivery(1, sinks.Created, "a", `{}`)); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if got := f.send(delivery(1, sinks.Created, "a", `{}`)); got != "delivered" {
		t.Error(got)
	}
}

func TestTheReadmeListsEverySetting(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	b, err := sinks.Schema[settings]()
	if err != nil {
		t.Fatal(err)
	}
	var schema struct {
		Properties map[string]struct{ Default string }
	}
	if err := json.Unmarshal(b, &schema); err != nil || len(schema.Properties) == 0 {
		t.Fatalf("%s, %v", b, err)
	}
	for name, p := range schema.Properties {
		row := "| `" + name + "` |"
		if p.Default != "" {
			row += " `" + p.Default + "` |"
		}
		if !strings.Contains(string(readme), row) {
			t.Errorf("no row %q", row)
		}
	}
}
