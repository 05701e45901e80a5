package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/peanutsapp/peanuts-relay/plugins/sheets/sheetstest"
	"github.com/peanutsapp/peanuts-relay/sinks"
)

// TestMain lets the test binary be the plugin too, under the plugin's name.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == program {
		main()
	}
	goleak.VerifyTestMain(m)
}

const (
	email = "relay@project.iam.gserviceaccount.com"
	place = "http://sheets.test"
)

// world is a spreadsheet and a process of the plugin beside it, without a network
// between them.
type world struct {
	t      testing.TB
	google *sheetstest.Server
	plugin sinks.Plugin[Settings]
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, google: sheetstest.New(time.Now)}
	w.google.Share(email, sheetstest.Editor)
	w.restart()
	return w
}

// restart is a new process: whatever the plugin knew is gone.
func (w *world) restart() {
	w.plugin = newPlugin(func(env sinks.Env) *http.Client {
		c := env.HTTP()
		c.Transport = w.google.Transport()
		return c
	})
}

func settings(change ...func(*Settings)) Settings {
	base, err := sinks.NewURL(place)
	if err != nil {
		panic(err)
	}
	s := Settings{
		Spreadsheet: sheetstest.ID, Tab: "Expenses", Credentials: sinks.NewSecret(sheetstest.Key(email, place)),
		OnDelete: remove, OnUpdate: upsert, BaseURL: base,
	}
	for _, f := range change {
		f(&s)
	}
	return s
}

func (w *world) open(change ...func(*Settings)) *sink {
	w.t.Helper()
	s, err := w.plugin.Open(context.Background(), sinks.Env{}, settings(change...))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = s.(*sink).Close() })
	return s.(*sink)
}

// event is one delivery; n is its place in the order of acceptance.
func event(n int, kind, entry string, data any) *sinks.Delivery {
	raw, ok := data.(string)
	if !ok {
		b, err := json.Marshal(data)
		if err != nil {
			panic(err)
		}
		raw = string(b)
	}
	at := time.Date(2025, 1, 15, 14, 32, 0, 0, time.UTC)
	return &sinks.Delivery{
		ID: fmt.Sprintf("del_%d", n), Webhook: "expenses.sheet", EventID: fmt.Sprintf("evt_%d", n), Event: kind,
		Timestamp: at, Helper: sinks.Helper{ID: "expenses", Name: "Daily Expenses", Command: "/expenses"},
		Entry: sinks.Entry{ID: entry, CreatedAt: at, Data: json.RawMessage(raw)}, User: &sinks.User{ID: "user-456"},
		Attempt: 1, Sequence: uint64(n),
	}
}

// send delivers a batch and gives each outcome with its text.
func send(t testing.TB, s *sink, ds ...*sinks.Delivery) []sinks.Verdict {
	t.Helper()
	results, err := s.DeliverBatch(t.Context(), ds)
	if err != nil {
		t.Fatal(err)
	}
	if len(results) != len(ds) {
		t.Fatalf("%d results of %d deliveries", len(results), len(ds))
	}
	out := make([]sinks.Verdict, len(ds))
	for i, r := range results {
		out[i] = sinks.VerdictOf(r.Err)
	}
	return out
}

// want sends a batch of which every delivery has to have one outcome.
func want(t testing.TB, s *sink, outcome sinks.Outcome, ds ...*sinks.Delivery) {
	t.Helper()
	for i, v := range send(t, s, ds...) {
		if v.Outcome != outcome {
			t.Fatalf("delivery %s: %v (%v), want %v", ds[i].ID, v.Outcome, v.Error(), outcome)
		}
	}
}

// rows are the rows below the header, each as title=value of what is not empty, in the
// order of the sheet, without the hidden columns.
func (w *world) rows(tab string) []string {
	w.t.Helper()
	v, ok := w.google.Look(tab)
	if !ok {
		w.t.Fatalf("there is no tab %q", tab)
	}
	var out []string
	for _, cells := range v.Cells[min(1, len(v.Cells)):] {
		var parts []string
		for i, c := range cells {
			if c != nil && !v.Hidden[i] {
				parts = append(parts, fmt.Sprintf("%v=%v", v.Cells[0][i], c))
			}
		}
		out = append(out, strings.Join(parts, " "))
	}
	return out
}

func (w *world) header(tab string) string {
	v, ok := w.google.Look(tab)
	if !ok || len(v.Cells) == 0 {
		return ""
	}
	var titles []string
	for _, c := range v.Cells[0] {
		if c != nil {
			titles = append(titles, fmt.Sprint(c))
		}
	}
	return strings.Join(titles, " ")
}

func equal(t testing.TB, what string, got, want any) {
	t.Helper()
	if g, w := fmt.Sprintf("%q", got), fmt.Sprintf("%q", want); g != w {
		t.Errorf("%s:\n got %s\nwant %s", what, g, w)
	}
}
