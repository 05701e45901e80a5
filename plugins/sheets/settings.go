package main

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/peanutsapp/peanuts-relay/sinks"
)

// What Settings.OnDelete and Settings.OnUpdate can be.
const (
	keep   = "keep"
	mark   = "mark"
	remove = "remove"

	upsert    = "upsert"
	appendRow = "append"
)

// Settings are what an operator writes under `settings:`.
type Settings struct {
	Spreadsheet    string            `json:"spreadsheet" required:"true" minLength:"1" description:"id or address of the spreadsheet" example:"https://docs.google.com/spreadsheets/d/1BxiMVs0XRA5nFMdKvBdBZjgmUUqptlbs74OgvE2upms/edit"`
	Tab            string            `json:"tab" required:"true" minLength:"1" maxLength:"100" description:"name of the tab, made when it is missing" example:"Expenses"`
	Credentials    sinks.Secret      `json:"credentials" required:"true" description:"the JSON key of a service account, as Google gave it" example:"${file:/etc/peanuts-relay/google.json}"`
	Columns        map[string]string `json:"columns" description:"which column gets which field of the entry; without it there is a column for every field"`
	OnDelete       string            `json:"on_delete" enum:"keep,mark,remove" default:"remove" description:"what a deleted entry does to its row"`
	OnUpdate       string            `json:"on_update" enum:"upsert,append" default:"upsert" description:"whether an event changes the row of its entry or adds one"`
	CallsPerMinute int               `json:"calls_per_minute" minimum:"1" maximum:"6000" default:"60" description:"Google's quota of the account: how many reads, and how many writes, it may do in a minute"`
	BaseURL        sinks.URL         `json:"base_url" description:"where the Sheets API is; for tests and proxies"`
}

// Validate finds what the schema cannot. Online it opens the spreadsheet and asks for a
// change that changes nothing.
func (s *Settings) Validate(ctx context.Context, v *sinks.Validation) {
	ok := true
	report := func(path string, p *problem) {
		if p != nil {
			v.Error(path, p.what, p.todo)
			ok = false
		}
	}
	_, p := spreadsheetID(s.Spreadsheet)
	report("/spreadsheet", p)
	_, p = readKey(s.Credentials.Reveal(), !s.BaseURL.IsZero())
	report("/credentials", p)
	if strings.TrimSpace(s.Tab) == "" {
		report("/tab", &problem{"the tab has no name", "Give the name that the tab has, or shall get."})
	}
	s.checkColumns(report)
	if ok && v.Online {
		s.look(ctx, v)
	}
}

// look asks Google.
func (s *Settings) look(ctx context.Context, v *sinks.Validation) {
	c, err := newClient(v.Env.HTTP(), *s)
	if err != nil {
		v.Error("/credentials", err.Error(), "")
		return
	}
	if err := c.mayWrite(ctx); err != nil {
		var verdict *sinks.Verdict
		if errors.As(c.verdict(err), &verdict) && verdict.Outcome == sinks.OutcomeMisconfigured {
			v.Error(pathOf(verdict.Code), verdict.Error(), "")
			return
		}
		v.Warn("/spreadsheet", "the spreadsheet could not be tried: "+c.verdict(err).Error(), "It may work later.")
	}
}

// pathOf is the setting that an outcome is about.
func pathOf(code string) string {
	if code == codeCredentials {
		return "/credentials"
	}
	return "/spreadsheet"
}

func (s *Settings) checkColumns(report func(string, *problem)) {
	titles := map[string]string{}
	for _, title := range slices.Sorted(maps.Keys(s.Columns)) {
		path := "/columns/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(title)
		other, twice := titles[fold(title)]
		titles[fold(title)] = title
		field := s.Columns[title]
		switch {
		case strings.TrimSpace(title) == "":
			report(path, &problem{"a column has no name", "Give the name of the column's header."})
		case isService(title):
			report(path, &problem{fmt.Sprintf("the column %q is the relay's own", title), "Choose another name."})
		case twice:
			report(path, &problem{fmt.Sprintf("the columns %q and %q differ in case or spaces only", other, title), "Column names are compared without case: leave one."})
		case field == "":
			report(path, &problem{fmt.Sprintf("the column %q has no field", title), "Give the field of the entry that it gets."})
		case misspelled(field):
			report(path, &problem{fmt.Sprintf("nothing of an event is called %q", field), "There are " + strings.Join(slices.Sorted(maps.Keys(facts())), ", ") + "; a field of the entry that is really called so is data." + field + "."})
		}
	}
}

// problem is a finding about a setting.
type problem struct {
	what, todo string
}

var (
	reID      = regexp.MustCompile(`^[A-Za-z0-9_-]{10,200}$`)
	reAddress = regexp.MustCompile(`^/spreadsheets/(?:u/[0-9]+/)?d/([A-Za-z0-9_-]{10,200})(?:/|$)`)
)

// spreadsheetID takes the id out of what an operator copied.
func spreadsheetID(text string) (string, *problem) {
	text = strings.TrimSpace(text)
	const todo = "Copy the address of the spreadsheet from the browser: https://docs.google.com/spreadsheets/d/…"
	if reID.MatchString(text) {
		return text, nil
	}
	u, err := url.Parse(text)
	if err != nil || u.Host != "docs.google.com" {
		return "", &problem{"neither the id nor the address of a spreadsheet", todo}
	}
	if strings.Contains(u.Path, "/d/e/") {
		return "", &problem{"the address of a published copy, which cannot be written to", todo}
	}
	m := reAddress.FindStringSubmatch(u.Path)
	if m == nil {
		return "", &problem{"an address without the id of a spreadsheet", todo}
	}
	return m[1], nil
}

// accountKey is what of a service account's key this sink looks at.
type accountKey struct {
	Type        string `json:"type"`
	ClientEmail string `json:"client_email"`
	PrivateKey  string `json:"private_key"`
	TokenURI    string `json:"token_uri"`
}

// readKey checks the key of a service account. What it finds never shows any of it.
// anywhere lifts that tokens are asked for over https only.
func readKey(text string, anywhere bool) (accountKey, *problem) {
	const todo = "Make a JSON key of a service account in the Google Cloud console, and name its file: credentials: ${file:/etc/peanuts-relay/google.json}"
	var k accountKey
	text = strings.TrimSpace(text)
	switch {
	case strings.HasPrefix(text, "/"):
		return k, &problem{"the path of a file, not what is in it", "Write ${file:PATH}, with the path."}
	case json.Unmarshal([]byte(text), &k) != nil:
		return k, &problem{"not the JSON key of a service account", todo}
	case k.Type != "service_account":
		return k, &problem{"a JSON key, but not of a service account", todo}
	case !strings.Contains(k.ClientEmail, "@"):
		return k, &problem{"the key has no client_email", todo}
	}
	block, _ := pem.Decode([]byte(k.PrivateKey))
	if block == nil {
		return k, &problem{"the key's private_key is not PEM", "Use the file as Google gave it; the line breaks in private_key are written \\n."}
	}
	if _, err := x509.ParsePKCS8PrivateKey(block.Bytes); err != nil {
		if _, err := x509.ParsePKCS1PrivateKey(block.Bytes); err != nil {
			return k, &problem{"the key's private_key is damaged", todo}
		}
	}
	if u, err := url.Parse(k.TokenURI); k.TokenURI != "" && !anywhere && (err != nil || u.Scheme != "https") {
		return k, &problem{"the key's token_uri is not https", todo}
	}
	return k, nil
}
