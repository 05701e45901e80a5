package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"cloud.google.com/go/auth/credentials"
	"google.golang.org/api/option"
	"google.golang.org/api/sheets/v4"
	htransport "google.golang.org/api/transport/http"
)

// How much of an answer is read: the keys of more rows than Google's limit of cells
// leaves a tab of ordinary width, and the beginning of an error.
const (
	maxAnswer = 64 << 20
	maxError  = 64 << 10
)

// client speaks to one spreadsheet. It tries once, and is safe for concurrent use.
type client struct {
	service *sheets.Service
	id      string
	email   string // of the service account
	address string // of the API and the spreadsheet: what is the same has one writer
}

// newClient takes settings that Validate found good.
func newClient(web *http.Client, s Settings) (*client, error) {
	id, p := spreadsheetID(s.Spreadsheet)
	if p != nil {
		return nil, errors.New(p.what)
	}
	key, p := readKey(s.Credentials.Reveal(), !s.BaseURL.IsZero())
	if p != nil {
		return nil, errors.New(p.what)
	}
	limited := *web
	limited.Transport = bounded{web.Transport}
	// The key goes in as credentials and not as option.WithAuthCredentialsJSON, which
	// would ask for tokens with a client of its own: one that follows redirects.
	creds, err := credentials.NewCredentialsFromJSON(credentials.ServiceAccount, []byte(s.Credentials.Reveal()), &credentials.DetectOptions{
		Scopes: []string{sheets.SpreadsheetsScope},
		Client: &limited,
	})
	if err != nil {
		return nil, errors.New("the key of the service account cannot be used") // the cause may show it
	}
	ctx := context.Background() // the library keeps it for nothing that ends
	authorized, err := htransport.NewTransport(ctx, limited.Transport, option.WithAuthCredentials(creds), option.WithTelemetryDisabled())
	if err != nil {
		return nil, fmt.Errorf("set up the service account: %w", err)
	}
	whole := limited
	whole.Transport = authorized
	options := []option.ClientOption{option.WithHTTPClient(&whole), option.WithTelemetryDisabled()}
	base := "https://sheets.googleapis.com/"
	if u := s.BaseURL.Reveal(); u != nil {
		base = u.JoinPath("/").String()
		options = append(options, option.WithEndpoint(base))
	}
	service, err := sheets.NewService(ctx, options...)
	if err != nil {
		return nil, fmt.Errorf("set up the Sheets API: %w", err)
	}
	return &client{service: service, id: id, email: key.ClientEmail, address: base + id}, nil
}

// tabs are all tabs of the spreadsheet, with what the relay noted at them and at their
// columns.
func (c *client) tabs(ctx context.Context) ([]*sheets.Sheet, error) {
	s, err := c.service.Spreadsheets.Get(c.id).Context(ctx).Fields("sheets(" +
		"properties(sheetId,title,sheetType,gridProperties(rowCount,columnCount,frozenRowCount))," +
		"developerMetadata(metadataKey,metadataValue)," +
		"data(columnMetadata(developerMetadata(metadataKey,metadataValue))))").Do()
	if err != nil {
		return nil, err
	}
	if s == nil || slices.ContainsFunc(s.Sheets, func(tab *sheets.Sheet) bool { return tab == nil || tab.Properties == nil }) {
		return nil, errNotGoogle
	}
	return s.Sheets, nil
}

// values are the first row of a tab and whole columns of it, in that order. A tab is
// asked for by its number: a name could be another tab's by now.
func (c *client) values(ctx context.Context, tab int64, columns []int) ([]*sheets.ValueRange, error) {
	filters := []*sheets.DataFilter{{GridRange: &sheets.GridRange{SheetId: tab, EndRowIndex: 1}}}
	for _, at := range columns {
		filters = append(filters, &sheets.DataFilter{GridRange: &sheets.GridRange{SheetId: tab, StartColumnIndex: int64(at), EndColumnIndex: int64(at) + 1}})
	}
	resp, err := c.service.Spreadsheets.Values.BatchGetByDataFilter(c.id, &sheets.BatchGetValuesByDataFilterRequest{
		DataFilters:       filters,
		MajorDimension:    "COLUMNS",
		ValueRenderOption: "UNFORMATTED_VALUE",
	}).Context(ctx).Do()
	if err != nil {
		return nil, err
	}
	if resp == nil {
		return nil, errNotGoogle
	}
	out := make([]*sheets.ValueRange, len(filters))
	for _, m := range resp.ValueRanges {
		if m == nil {
			return nil, errNotGoogle
		}
		for _, f := range m.DataFilters { // the order is not promised, but they say what they answer
			if f == nil || f.GridRange == nil {
				continue
			}
			for i, want := range filters {
				if g := f.GridRange; g.StartColumnIndex == want.GridRange.StartColumnIndex && g.EndColumnIndex == want.GridRange.EndColumnIndex && g.EndRowIndex == want.GridRange.EndRowIndex {
					out[i] = m.ValueRange
				}
			}
		}
	}
	for _, v := range out {
		if v == nil {
			return nil, errNotGoogle
		}
	}
	return out, nil
}

// update applies all requests or none.
func (c *client) update(ctx context.Context, requests []*sheets.Request) error {
	_, err := c.service.Spreadsheets.BatchUpdate(c.id, &sheets.BatchUpdateSpreadsheetRequest{Requests: requests}).
		Context(ctx).Fields("spreadsheetId").Do()
	return err
}

// mayWrite asks for a change that changes nothing: replacing a text in a cell that
// does not have it. Google refuses it to those who may only read.
func (c *client) mayWrite(ctx context.Context) error {
	tabs, err := c.tabs(ctx)
	if err != nil {
		return err
	}
	for _, tab := range tabs {
		if p := tab.Properties; p != nil && (p.SheetType == "" || p.SheetType == "GRID") {
			nowhere := rand.Text()
			return c.update(ctx, []*sheets.Request{{FindReplace: &sheets.FindReplaceRequest{
				Find: nowhere, Replacement: nowhere, MatchEntireCell: true, MatchCase: true,
				Range: &sheets.GridRange{SheetId: p.SheetId, EndRowIndex: 1, EndColumnIndex: 1},
			}}})
		}
	}
	return nil
}

// errTooLong is an answer of more than maxAnswer; errNotGoogle is JSON, but not what was
// asked for.
var (
	errTooLong   = errors.New("the answer is too long")
	errNotGoogle = errors.New("the answer lacks what was asked for")
)

// bounded limits how much of an answer is read, and takes out of what will be shown what
// the request signed in with.
type bounded struct{ base http.RoundTripper }

func (b bounded) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := b.base.RoundTrip(req)
	if err != nil {
		if clean := withoutTokens(req, err.Error()); clean != err.Error() {
			err = errors.New(clean)
		}
		return nil, err
	}
	switch {
	case resp.StatusCode/100 == 2:
		resp.Body = &boundedBody{resp.Body, maxAnswer, errTooLong}
	default:
		said, err := io.ReadAll(&boundedBody{resp.Body, maxError, io.EOF})
		_ = resp.Body.Close()
		if err != nil && len(said) == 0 {
			return nil, err
		}
		resp.Body = io.NopCloser(strings.NewReader(withoutTokens(req, string(said))))
		resp.Header.Del("Location") // net/http would quote it when it is no URL
	}
	return resp, nil
}

// reAssertion is a JSON Web Token, with which tokens are asked for.
var reAssertion = regexp.MustCompile(`eyJ[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*`)

// withoutTokens takes the access token and the assertion of a request out of a text.
func withoutTokens(req *http.Request, text string) string {
	if token, ok := strings.CutPrefix(req.Header.Get("Authorization"), "Bearer "); ok && token != "" {
		text = strings.ReplaceAll(text, token, "***")
	}
	return reAssertion.ReplaceAllString(text, "***")
}

type boundedBody struct {
	io.ReadCloser
	left int64
	over error // what reading on gives
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, b.over
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}
