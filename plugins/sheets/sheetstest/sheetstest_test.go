package sheetstest

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

const someone = "someone@project.iam.gserviceaccount.com"

// caller speaks to the server as its documentation says, by hand.
type caller struct {
	t     *testing.T
	s     *Server
	now   time.Time
	token string
}

func newCaller(t *testing.T) *caller {
	t.Helper()
	c := &caller{t: t, now: time.Date(2025, 1, 15, 14, 0, 0, 0, time.UTC)}
	c.s = New(func() time.Time { return c.now })
	c.s.Share(someone, Editor)
	status, body := c.grant(map[string]any{})
	if status != 200 {
		t.Fatalf("token: %d %v", status, body)
	}
	c.token, _ = body["access_token"].(string)
	return c
}

// grant asks for a token, with other claims than the right ones.
func (c *caller) grant(changed map[string]any) (int, map[string]any) {
	c.t.Helper()
	claims := map[string]any{"iss": someone, "scope": scope, "aud": "http://sheets.test/token", "iat": c.now.Unix(), "exp": c.now.Add(time.Hour).Unix()}
	maps.Copy(claims, changed)
	enc := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			c.t.Fatal(err)
		}
		return base64.RawURLEncoding.EncodeToString(b)
	}
	signed := enc(map[string]string{"alg": "RS256", "typ": "JWT"}) + "." + enc(claims)
	digest := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(rand.Reader, privateKey(), crypto.SHA256, digest[:])
	if err != nil {
		c.t.Fatal(err)
	}
	if changed["signature"] != nil {
		signature[0] ^= 1
	}
	form := url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {signed + "." + base64.RawURLEncoding.EncodeToString(signature)}}
	return c.do(http.MethodPost, "/token", "application/x-www-form-urlencoded", form.Encode())
}

func (c *caller) do(method, path, kind, body string) (int, map[string]any) {
	c.t.Helper()
	req, err := http.NewRequest(method, "http://sheets.test"+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("Content-Type", kind)
	req.Header.Set("Authorization", "Bearer "+c.token)
	resp, err := c.s.Transport().RoundTrip(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	var out map[string]any
	if json.NewDecoder(bytes.NewReader(raw)).Decode(&out) != nil {
		out = map[string]any{"text": string(raw)}
	}
	return resp.StatusCode, out
}

// update is a batchUpdate; its message is "" when it went through.
func (c *caller) update(requests ...string) (int, string) {
	c.t.Helper()
	status, body := c.do(http.MethodPost, "/v4/spreadsheets/"+ID+":batchUpdate", "application/json", `{"requests":[`+strings.Join(requests, ",")+`]}`)
	if status == 200 {
		return status, ""
	}
	e, _ := body["error"].(map[string]any)
	return status, fmt.Sprint(e["message"])
}

func (c *caller) must(requests ...string) {
	c.t.Helper()
	if status, message := c.update(requests...); status != 200 {
		c.t.Fatalf("%d: %s", status, message)
	}
	c.now = c.now.Add(2 * time.Second)
}

// cells are the used cells of the first tab, row by row.
func (c *caller) cells() string {
	v, _ := c.s.Look("Sheet1")
	var rows []string
	for _, r := range v.Cells {
		var row []string
		for _, cell := range r {
			if cell == nil {
				row = append(row, ".")
			} else {
				row = append(row, fmt.Sprintf("%v", cell))
			}
		}
		rows = append(rows, strings.TrimRight(strings.Join(row, ""), "."))
	}
	return strings.Join(rows, "|")
}

func row(values ...string) string {
	var cells []string
	for _, v := range values {
		if v == "" {
			cells = append(cells, `{}`)
		} else {
			cells = append(cells, fmt.Sprintf(`{"userEnteredValue":{"stringValue":%q}}`, v))
		}
	}
	return `{"values":[` + strings.Join(cells, ",") + `]}`
}

func set(r, col int, values ...string) string {
	return fmt.Sprintf(`{"updateCells":{"start":{"sheetId":0,"rowIndex":%d,"columnIndex":%d},"rows":[%s],"fields":"userEnteredValue"}}`, r, col, row(values...))
}

func add(values ...string) string {
	return fmt.Sprintf(`{"appendCells":{"sheetId":0,"rows":[%s],"fields":"userEnteredValue"}}`, row(values...))
}

func span(request, dimension string, from, to int) string {
	return fmt.Sprintf(`{%q:{"range":{"sheetId":0,"dimension":%q,"startIndex":%d,"endIndex":%d}}}`, request, dimension, from, to)
}

// "Requests will be applied in the order they are specified."
func TestEachRequestSeesWhatTheOnesBeforeItDid(t *testing.T) {
	c := newCaller(t)
	c.must(set(0, 0, "a"), set(1, 0, "b"), set(2, 0, "c"), span("deleteDimension", "ROWS", 1, 2), set(1, 1, "x"), add("d"))
	if got := c.cells(); got != "a|cx|d" {
		t.Errorf("got %s", got)
	}
	c.must(span("insertDimension", "COLUMNS", 0, 1), set(0, 0, "z"), span("insertDimension", "ROWS", 1, 2))
	if got := c.cells(); got != "za||.cx|.d" {
		t.Errorf("got %s", got)
	}
}

// "If any request is not valid then the entire request will fail and nothing will be
// applied."
func TestABatchIsAppliedWholeOrNotAtAll(t *testing.T) {
	c := newCaller(t)
	c.must(set(0, 0, "a", "b"))
	status, message := c.update(set(0, 0, "X"), add("Y"), span("deleteDimension", "ROWS", 0, 1), set(5000, 0, "Z"))
	if status != 400 || message != "Invalid requests[3].updateCells: GridCoordinate.rowIndex[5000] is after last row in grid[998]" {
		t.Errorf("%d %s", status, message)
	}
	if got := c.cells(); got != "ab" {
		t.Errorf("got %s", got)
	}
}

// "Adds new cells after the last row with data in a sheet, inserting new rows into the
// sheet if necessary."
func TestAppendGoesBelowTheLastRowWithDataInAnyColumn(t *testing.T) {
	c := newCaller(t)
	c.must(set(0, 0, "a"), set(3, 5, "n"), add("b"))
	if got := c.cells(); got != "a|||.....n|b" {
		t.Errorf("got %s", got)
	}
	c.s.Shrink("Sheet1")
	c.must(add("c"), add("d"))
	if v, _ := c.s.Look("Sheet1"); v.Height != 7 {
		t.Errorf("%d rows", v.Height)
	}
}

func TestACellWithoutAValueIsCleared(t *testing.T) {
	c := newCaller(t)
	c.must(set(0, 0, "a", "b", "c"), set(0, 1, ""))
	if got := c.cells(); got != "a.c" {
		t.Errorf("got %s", got)
	}
}

func TestValuesKeepTheirType(t *testing.T) {
	c := newCaller(t)
	c.must(`{"updateCells":{"start":{"sheetId":0},"rows":[{"values":[
		{"userEnteredValue":{"stringValue":"=1+1"}},{"userEnteredValue":{"formulaValue":"=1+1"}},
		{"userEnteredValue":{"numberValue":1.5}},{"userEnteredValue":{"boolValue":false}},{"userEnteredValue":{"stringValue":"007"}}]}],"fields":"userEnteredValue"}}`)
	v, _ := c.s.Look("Sheet1")
	for i, want := range []any{"=1+1", Formula("=1+1"), 1.5, false, "007"} {
		if v.Cells[0][i] != want {
			t.Errorf("column %d: %#v, want %#v", i, v.Cells[0][i], want)
		}
	}
}

func TestWhatGoogleRefusesInABatch(t *testing.T) {
	c := newCaller(t)
	c.must(set(0, 0, "a"), `{"updateSheetProperties":{"properties":{"sheetId":0,"gridProperties":{"frozenRowCount":1}},"fields":"gridProperties.frozenRowCount"}}`)
	for request, want := range map[string]string{
		"":                                       "Must specify at least one request.",
		`{}`:                                     "No request set.",
		`{"addChart":{}}`:                        "Invalid JSON payload received.",
		span("deleteDimension", "ROWS", 1, 1000): "not possible to delete all non-frozen rows",
		span("deleteDimension", "ROWS", 1000, 1001):                                                    "is after last row in grid",
		span("deleteDimension", "COLUMNS", 0, 26):                                                      "can't delete all the columns",
		span("insertDimension", "COLUMNS", 26, 27):                                                     "is after last column in grid",
		`{"insertDimension":{"range":{"sheetId":0,"dimension":"ROWS","endIndex":1}}}`:                  "must be bounded",
		set(0, 25, "a", "b"):                                                                           "beyond the last requested column",
		set(0, 26, "a"):                                                                                "is after last column in grid",
		set(0, 0, strings.Repeat("x", 50_001)):                                                         "more than the maximum of 50000 characters",
		`{"updateCells":{"start":{"sheetId":0},"rows":[{"values":[{}]}],"fields":""}}`:                 "At least one field",
		`{"updateCells":{"start":{"sheetId":9},"rows":[{"values":[{}]}],"fields":"userEnteredValue"}}`: "No grid with id: 9",
		`{"addSheet":{"properties":{"sheetId":5,"title":"SHEET1","gridProperties":{"rowCount":5,"columnCount":5}}}}`:                               "already exists",
		`{"addSheet":{"properties":{"sheetId":0,"title":"New","gridProperties":{"rowCount":5,"columnCount":5}}}}`:                                  "already exists",
		`{"addSheet":{"properties":{"sheetId":5,"title":"New","gridProperties":{"rowCount":1000000,"columnCount":10}}}}`:                           "above the limit of 10000000 cells",
		`{"appendDimension":{"sheetId":0,"dimension":"ROWS","length":10000000}}`:                                                                   "above the limit of 10000000 cells",
		`{"createDeveloperMetadata":{"developerMetadata":{"metadataKey":"k","metadataValue":"v","location":{"sheetId":0}}}}`:                       "must have a key, a visibility",
		`{"updateSheetProperties":{"properties":{"sheetId":0,"gridProperties":{"frozenRowCount":1000}},"fields":"gridProperties.frozenRowCount"}}`: "can't freeze all",
	} {
		status, message := c.update(request)
		if status != 400 || !strings.Contains(message, want) {
			t.Errorf("%.80s: %d %s, want %s", request, status, message, want)
		}
		c.now = c.now.Add(2 * time.Second)
	}
	if got := c.cells(); got != "a" {
		t.Errorf("got %s", got)
	}
}

// Developer metadata stays with its column when columns move.
func TestMetadataAndHidingMoveWithTheirColumn(t *testing.T) {
	c := newCaller(t)
	c.must(
		`{"createDeveloperMetadata":{"developerMetadata":{"metadataKey":"k","metadataValue":"v","visibility":"DOCUMENT","location":{"dimensionRange":{"sheetId":0,"dimension":"COLUMNS","startIndex":1,"endIndex":2}}}}}`,
		`{"updateDimensionProperties":{"range":{"sheetId":0,"dimension":"COLUMNS","startIndex":1,"endIndex":2},"properties":{"hiddenByUser":true},"fields":"hiddenByUser"}}`,
		span("insertDimension", "COLUMNS", 0, 2))
	c.s.MoveColumn("Sheet1", 3, 0)
	v, _ := c.s.Look("Sheet1")
	if !v.Hidden[0] || fmt.Sprint(v.ColumnTag[0]) != "[k=v]" || v.Hidden[3] {
		t.Errorf("hidden %v, metadata %v", v.Hidden[:5], v.ColumnTag[:5])
	}
	status, body := c.do(http.MethodGet, "/v4/spreadsheets/"+ID+"?fields=sheets(properties(sheetId,title),data(columnMetadata(developerMetadata(metadataKey,metadataValue))))", "", "")
	b, err := json.Marshal(body)
	if err != nil || status != 200 || !strings.HasPrefix(string(b), `{"sheets":[{"data":[{"columnMetadata":[{"developerMetadata":[{"metadataKey":"k","metadataValue":"v"}]},{},`) || !strings.HasSuffix(string(b), `"properties":{"sheetId":0,"title":"Sheet1"}}]}`) {
		t.Errorf("%d %.300s", status, b)
	}
}

func TestValuesAreReadByGridRangeInAnyOrder(t *testing.T) {
	c := newCaller(t)
	c.must(set(0, 0, "h", "i"), set(1, 0, "a"), set(3, 0, "b"), `{"updateCells":{"start":{"sheetId":0,"rowIndex":1,"columnIndex":1},"rows":[{"values":[{"userEnteredValue":{"numberValue":2}}]}],"fields":"userEnteredValue"}}`)
	body := `{"dataFilters":[{"gridRange":{"sheetId":0,"endRowIndex":1}},{"gridRange":{"sheetId":0,"startColumnIndex":0,"endColumnIndex":1}},{"gridRange":{"sheetId":0,"startColumnIndex":5,"endColumnIndex":6}}],"majorDimension":"COLUMNS","valueRenderOption":"UNFORMATTED_VALUE"}`
	status, out := c.do(http.MethodPost, "/v4/spreadsheets/"+ID+"/values:batchGetByDataFilter", "application/json", body)
	b, err := json.Marshal(out["valueRanges"])
	want := `[{"dataFilters":[{"gridRange":{"endColumnIndex":6,"sheetId":0,"startColumnIndex":5}}],"valueRange":{"majorDimension":"COLUMNS","range":"'Sheet1'!F1:F1000"}},` +
		`{"dataFilters":[{"gridRange":{"endColumnIndex":1,"sheetId":0}}],"valueRange":{"majorDimension":"COLUMNS","range":"'Sheet1'!A1:A1000","values":[["h","a","","b"]]}},` +
		`{"dataFilters":[{"gridRange":{"endRowIndex":1,"sheetId":0}}],"valueRange":{"majorDimension":"COLUMNS","range":"'Sheet1'!A1:Z1","values":[["h"],["i"]]}}]`
	if err != nil || status != 200 || string(b) != want {
		t.Errorf("%d\n got %s\nwant %s", status, b, want)
	}
	for filter, text := range map[string]string{`{"sheetId":9}`: "No grid with id: 9", `{"sheetId":0,"startColumnIndex":26}`: "exceeds grid limits"} {
		status, out := c.do(http.MethodPost, "/v4/spreadsheets/"+ID+"/values:batchGetByDataFilter", "application/json", `{"dataFilters":[{"gridRange":`+filter+`}]}`)
		if b, _ := json.Marshal(out); status != 400 || !strings.Contains(string(b), text) {
			t.Errorf("%s: %d %s", filter, status, b)
		}
	}
}

func TestTokensAreForThoseWhoSignRight(t *testing.T) {
	c := newCaller(t)
	for _, row := range []struct {
		claims map[string]any
		want   string
	}{
		{map[string]any{"signature": "wrong"}, "invalid_grant"},
		{map[string]any{"aud": "https://oauth2.googleapis.com/token"}, "invalid_grant"},
		{map[string]any{"scope": "https://www.googleapis.com/auth/drive"}, "invalid_scope"},
		{map[string]any{"exp": c.now.Add(2 * time.Hour).Unix()}, "invalid_grant"},
		{map[string]any{"exp": c.now.Add(-time.Minute).Unix(), "iat": c.now.Add(-time.Hour).Unix()}, "invalid_grant"},
		{map[string]any{"iat": c.now.Add(time.Hour).Unix(), "exp": c.now.Add(90 * time.Minute).Unix()}, "invalid_grant"},
		{map[string]any{"iss": "nobody@project.iam.gserviceaccount.com"}, "invalid_grant"},
	} {
		if status, body := c.grant(row.claims); status != 400 || body["error"] != row.want {
			t.Errorf("%v: %d %v", row.claims, status, body)
		}
	}
	c.must(set(0, 0, "a"))
	c.now = c.now.Add(time.Hour)
	if status, _ := c.update(set(0, 0, "b")); status != 401 {
		t.Errorf("a token that is over: %d", status)
	}
}

func TestQuotasAreOfAnyMinuteAndUser(t *testing.T) {
	c := newCaller(t)
	for range 60 {
		if status, message := c.update(set(0, 0, "a")); status != 200 {
			t.Fatal(status, message)
		}
		c.now = c.now.Add(500 * time.Millisecond)
	}
	status, message := c.update(set(0, 0, "b"))
	if status != 429 || !strings.Contains(message, "'Write requests per minute per user'") {
		t.Errorf("%d %s", status, message)
	}
	c.now = c.now.Add(30 * time.Second)
	if status, _ := c.update(set(0, 0, "b")); status != 200 {
		t.Errorf("after the first was a minute old: %d", status)
	}
	if n := len(c.s.Calls(Write)); n != 62 {
		t.Errorf("%d calls", n)
	}
}

func TestErrorsHaveGooglesBody(t *testing.T) {
	c := newCaller(t)
	c.s.Fail(Write, Quota)
	_, body := c.do(http.MethodPost, "/v4/spreadsheets/"+ID+":batchUpdate", "application/json", `{}`)
	e, _ := body["error"].(map[string]any)
	details, _ := e["details"].([]any)
	if len(details) != 1 {
		t.Fatalf("%v", body)
	}
	info, _ := details[0].(map[string]any)
	if e["code"] != 429.0 || e["status"] != "RESOURCE_EXHAUSTED" || info["reason"] != "RATE_LIMIT_EXCEEDED" || info["@type"] != "type.googleapis.com/google.rpc.ErrorInfo" {
		t.Errorf("%v", body)
	}
	c.s.Share(someone, Viewer)
	if status, _ := c.update(set(0, 0, "a")); status != 403 {
		t.Errorf("a viewer writes: %d", status)
	}
	if status, _ := c.do(http.MethodGet, "/v4/spreadsheets/"+ID+"?fields=sheets.properties.title", "", ""); status != 200 {
		t.Errorf("a viewer reads: %d", status)
	}
	if status, _ := c.do(http.MethodGet, "/v4/spreadsheets/other?fields=sheets", "", ""); status != 404 {
		t.Errorf("another spreadsheet: %d", status)
	}
}

func TestPeopleEditWhatIsThere(t *testing.T) {
	c := newCaller(t)
	c.must(set(0, 0, "h"), add("c", "3"), add("a", "1"), add("", "x"), add("b", "2"))
	c.s.Sort("Sheet1", 0, false)
	if got := c.cells(); got != "h|a1|b2|c3|.x" {
		t.Errorf("sorted: %s", got)
	}
	c.s.Sort("Sheet1", 0, true)
	if got := c.cells(); got != "h|c3|b2|a1|.x" {
		t.Errorf("sorted the other way: %s", got)
	}
	c.s.CopyRow("Sheet1", 1, 3)
	c.s.DeleteRow("Sheet1", 2)
	c.s.InsertRow("Sheet1", 1)
	c.s.InsertColumn("Sheet1", 1)
	c.s.DeleteColumn("Sheet1", 0)
	if got := c.cells(); got != "||.3|.3|.1|.x" {
		t.Errorf("edited: %s", got)
	}
}
