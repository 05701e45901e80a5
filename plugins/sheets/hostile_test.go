package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/hostiletest"
	"github.com/peanutsapp/peanuts-relay/plugins/sheets/sheetstest"
	"github.com/peanutsapp/peanuts-relay/sinks"
)

// TestHostileServers: whatever answers in place of the API or of the token service, a
// delivery ends, is not sent elsewhere, and shows neither the key nor what it signs in
// with.
func TestHostileServers(t *testing.T) {
	google := sheetstest.New(time.Now)
	google.Share(email, sheetstest.Editor)
	good := httptest.NewServer(google)
	defer good.Close()
	var logged bytes.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug})))
	defer slog.SetDefault(before)

	for what, at := range map[string]func(hostile string) (token, api string){
		"the API":           func(hostile string) (string, string) { return good.URL, hostile },
		"the token service": func(hostile string) (string, string) { return hostile, good.URL },
	} {
		t.Run(what, func(t *testing.T) {
			hostiletest.Each(t, func(t *testing.T, ctx context.Context, _ hostiletest.Way, base string) {
				token, api := at(base)
				tried := tryOnce(t, ctx, token, api)
				tried += logged.String()
				logged.Reset()
				// The beginnings of an access token, of an assertion, and of the key.
				for _, secret := range []string{"ya29.", "eyJ", "PRIVATE", "MII"} {
					if strings.Contains(tried, secret) {
						t.Errorf("shows %s…: %.600s", secret, tried)
					}
				}
			})
		})
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
}

// tryOnce is all that is said of one delivery, and of one look at the settings.
func tryOnce(t *testing.T, ctx context.Context, token, api string) string {
	t.Helper()
	raw, err := json.Marshal(map[string]any{
		"spreadsheet": sheetstest.ID, "tab": "Expenses", "credentials": sheetstest.Key(email, token), "base_url": api, "calls_per_minute": 6000,
	})
	if err != nil {
		t.Fatal(err)
	}
	s, err := sinks.Decode[Settings](raw)
	if err != nil {
		t.Fatal(err)
	}
	sink, err := New().Open(ctx, sinks.Env{}, s)
	if err != nil {
		t.Fatal(err)
	}
	receipt, err := sink.Deliver(ctx, event(1, sinks.Created, "a", `{"n":1}`))
	if v := sinks.VerdictOf(err); v.Outcome == sinks.OutcomeDelivered || v.Outcome == sinks.OutcomeSkipped {
		t.Errorf("%v: %+v", v.Outcome, receipt)
	}
	v := sinks.Validation{Online: true}
	s.Validate(ctx, &v)
	return fmt.Sprintf("%+v\n%v\n%+v\n", receipt, err, v.Diagnostics())
}

// TestAnswersWithHoles are JSON of the right kind that lacks things, or has them beyond
// any measure.
func TestAnswersWithHoles(t *testing.T) {
	const tab = `{"properties":{"sheetId":5,"title":"Expenses"}`
	for name, answers := range map[string]struct{ tabs, values string }{
		"no tabs":              {`null`, ``},
		"a tab that is none":   {`{"sheets":[null]}`, ``},
		"a tab without a name": {`{"sheets":[{}]}`, ``},
		"no data":              {`{"sheets":[` + tab + `,"data":[null],"developerMetadata":[null]}]}`, `{}`},
		"no metadata":          {`{"sheets":[` + tab + `,"data":[{"columnMetadata":[null,{"developerMetadata":[null]}]}],"developerMetadata":[null]}]}`, `{}`},
		"a far column":         {`{"sheets":[` + tab + `,"data":[{"startColumn":2000000000,"columnMetadata":[{"developerMetadata":[{"metadataKey":"peanuts_relay_column"}]}]}]}]}`, `{}`},
		"a column before all":  {`{"sheets":[` + tab + `,"data":[{"startColumn":-5,"columnMetadata":[{"developerMetadata":[{"metadataKey":"peanuts_relay_column"}]}]}]}]}`, `{}`},
		"no values":            {`{"sheets":[` + tab + `}]}`, `null`},
		"a range that is none": {`{"sheets":[` + tab + `}]}`, `{"valueRanges":[null]}`},
		"no filter":            {`{"sheets":[` + tab + `}]}`, `{"valueRanges":[{"dataFilters":[null]}]}`},
		"a filter without":     {`{"sheets":[` + tab + `}]}`, `{"valueRanges":[{"dataFilters":[{}]}]}`},
		"a range without":      {`{"sheets":[` + tab + `}]}`, `{"valueRanges":[{"dataFilters":[{"gridRange":{"sheetId":5,"endRowIndex":1}}]}]}`},
	} {
		t.Run(name, func(t *testing.T) {
			google := sheetstest.New(time.Now)
			google.Share(email, sheetstest.Editor)
			mux := http.NewServeMux()
			mux.Handle("/token", google)
			mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				if r.Method == http.MethodGet {
					_, _ = w.Write([]byte(answers.tabs))
					return
				}
				_, _ = w.Write([]byte(answers.values))
			})
			server := httptest.NewServer(mux)
			defer server.Close()
			said := tryOnce(t, t.Context(), server.URL, server.URL)
			if !strings.Contains(said, "lacks") {
				t.Errorf("%s", said)
			}
		})
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
}
