package main

import (
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/plugins/sheets/sheetstest"
	"github.com/peanutsapp/peanuts-relay/sinks"
)

// findings are the diagnostics of settings as path: summary.
func findings(t *testing.T, s Settings, online bool) string {
	t.Helper()
	v := &sinks.Validation{Online: online}
	s.Validate(t.Context(), v)
	var out []string
	for _, d := range v.Diagnostics() {
		out = append(out, d.Path+": "+d.Summary+" "+d.Detail)
	}
	text := strings.Join(out, "\n")
	if strings.Contains(text, "PRIVATE KEY") {
		t.Error("a finding shows the key")
	}
	return text
}

func TestSettingsAreCheckedWhereTheyAreWrong(t *testing.T) {
	key := sheetstest.Key(email, place)
	changed := func(field, value string) sinks.Secret {
		var m map[string]string
		if err := json.Unmarshal([]byte(key), &m); err != nil {
			t.Fatal(err)
		}
		m[field] = value
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return sinks.NewSecret(string(b))
	}
	for _, row := range []struct {
		change func(*Settings)
		want   string
	}{
		{func(*Settings) {}, ""},
		{func(s *Settings) {
			s.Spreadsheet = "https://docs.google.com/spreadsheets/d/" + sheetstest.ID + "/edit?gid=5#gid=5"
		}, ""},
		{func(s *Settings) { s.Spreadsheet = "https://docs.google.com/spreadsheets/u/1/d/" + sheetstest.ID }, ""},
		{func(s *Settings) { s.Spreadsheet = "My expenses" }, "/spreadsheet: neither"},
		{func(s *Settings) { s.Spreadsheet = "https://docs.google.com/document/d/" + sheetstest.ID }, "/spreadsheet: an address without"},
		{func(s *Settings) {
			s.Spreadsheet = "https://docs.google.com/spreadsheets/d/e/2PACX-" + sheetstest.ID + "/pubhtml"
		}, "/spreadsheet: the address of a published copy"},
		{func(s *Settings) { s.Spreadsheet = "https://evil.example/spreadsheets/d/" + sheetstest.ID }, "/spreadsheet: neither"},
		{func(s *Settings) { s.Tab = "  " }, "/tab: the tab has no name"},
		{func(s *Settings) { s.Credentials = sinks.NewSecret("/etc/google.json") }, "/credentials: the path of a file"},
		{func(s *Settings) { s.Credentials = sinks.NewSecret("not json") }, "/credentials: not the JSON key"},
		{func(s *Settings) { s.Credentials = changed("type", "authorized_user") }, "/credentials: a JSON key, but not"},
		{func(s *Settings) { s.Credentials = changed("client_email", "") }, "/credentials: the key has no client_email"},
		{func(s *Settings) { s.Credentials = changed("private_key", "x") }, "/credentials: the key's private_key is not PEM"},
		{func(s *Settings) {
			s.Credentials = changed("private_key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
		}, "/credentials: the key's private_key is damaged"},
		{func(s *Settings) { s.BaseURL = sinks.URL{} }, "/credentials: the key's token_uri is not https"},
		{func(s *Settings) { s.Columns = map[string]string{"Amount": "amount", "By": "user.id"} }, ""},
		{func(s *Settings) { s.Columns = map[string]string{"a/b~": "user.name"} }, "/columns/a~1b~0: nothing of an event is called"},
		{func(s *Settings) { s.Columns = map[string]string{"A": "x", "a ": "y"} }, "/columns/a : the columns"},
		{func(s *Settings) { s.Columns = map[string]string{"_SEQUENCE": "x"} }, "/columns/_SEQUENCE: the column"},
		{func(s *Settings) { s.Columns = map[string]string{" ": "x"} }, "/columns/ : a column has no name"},
		{func(s *Settings) { s.Columns = map[string]string{"A": ""} }, "/columns/A: the column \"A\" has no field"},
	} {
		got := findings(t, settings(row.change), false)
		if (row.want == "") != (got == "") || !strings.HasPrefix(got, row.want) {
			t.Errorf("got %q, want %q", got, row.want)
		}
	}
}

func TestOnlineTheSpreadsheetIsTried(t *testing.T) {
	google := sheetstest.New(time.Now)
	server := httptest.NewServer(google)
	defer server.Close()
	base, err := sinks.NewURL(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	s := settings(func(s *Settings) {
		s.BaseURL, s.Credentials = base, sinks.NewSecret(sheetstest.Key(email, server.URL))
	})
	google.Type("Sheet1", 0, 0, "Date")
	for _, row := range []struct {
		set  func()
		want string
	}{
		{func() { google.Share(email, sheetstest.Editor) }, ""},
		{func() { google.Share(email, sheetstest.Viewer) }, "/spreadsheet: share the spreadsheet with " + email + " as an editor"},
		{func() { google.Share(email, sheetstest.Stranger) }, "/spreadsheet: share the spreadsheet with " + email},
		{func() { google.Disable(true) }, "/spreadsheet: enable the Google Sheets API"},
		{func() { google.Fail(sheetstest.Token, sheetstest.InvalidGrant) }, "/credentials: google does not accept the key of " + email},
		{func() { google.Fail(sheetstest.Token, sheetstest.Unavailable) }, "/spreadsheet: the spreadsheet could not be tried"},
	} {
		row.set()
		got := findings(t, s, true)
		if (row.want == "") != (got == "") || !strings.HasPrefix(got, row.want) {
			t.Errorf("got %q, want %q", got, row.want)
		}
	}
	v, _ := google.Look("Sheet1")
	if len(v.Cells) != 1 || v.Cells[0][0] != "Date" || len(v.Metadata) != 0 {
		t.Errorf("it changed the spreadsheet: %v %v", v.Cells, v.Metadata)
	}
	if _, made := google.Look("Expenses"); made {
		t.Error("it made the tab")
	}
}

func TestThePluginIsDescribedWell(t *testing.T) {
	_ = New().Server() // panics otherwise
	c := New().Capabilities
	if most := c.MaxPerSecond*60 + float64(c.Burst); most > perMinute {
		t.Errorf("the pace allows %v calls in a minute", most)
	}
	if _, err := sinks.Schema[Settings](); err != nil {
		t.Error(err)
	}
}
