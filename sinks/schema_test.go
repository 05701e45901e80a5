package sinks_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/peanutsapp/peanuts-relay/sinks"
)

// every has a setting of each kind.
type every struct {
	URL     sinks.URL               `json:"url" description:"where to <POST>" required:"true"`
	Token   sinks.Secret            `json:"token" required:"true"`
	Old     string                  `json:"old_token" secret:"true"`
	Channel string                  `json:"channel" pattern:"^[a-z]+$" minLength:"2" maxLength:"8" example:"general"`
	Mode    string                  `json:"mode" enum:"keep,mark,remove" default:"remove"`
	Tries   int                     `json:"tries" minimum:"1" maximum:"10" default:"3"`
	Small   int8                    `json:"small"`
	Size    uint16                  `json:"size"`
	Ratio   float64                 `json:"ratio" minimum:"0" maximum:"1"`
	On      *bool                   `json:"on"`
	Wait    time.Duration           `json:"wait" default:"1m30s"`
	Since   time.Time               `json:"since"`
	From    netip.Addr              `json:"from"`
	Mail    string                  `json:"mail" format:"email"`
	Columns map[string]string       `json:"columns" enum:"text,number"`
	Tags    []string                `json:"tags" pattern:"^#" default:"#a,#b" maxLength:"3"`
	Lists   [][]int                 `json:"lists" example:"[[1],[2,3]]"`
	Limits  limits                  `json:"limits" description:"how much"`
	More    *limits                 `json:"more"`
	Many    []limits                `json:"many"`
	Raw     json.RawMessage         `json:"raw"`
	Any     any                     `json:"any"`
	Key     []byte                  `json:"key"`
	Number  json.Number             `json:"number"`
	Secrets map[string]sinks.Secret `json:"secrets"`
	shared
	Plain  string
	Hidden string `json:"-"`
	hidden string
}

type shared struct {
	Shared string `json:"shared,omitempty" default:"yes"`
}

type limits struct {
	Most  int    `json:"most" default:"50"`
	Named string `json:"named" required:"true"`
}

const everySchema = `{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object","properties":{
"url":{"description":"where to \u003cPOST\u003e","type":"string","format":"uri","writeOnly":true,"minLength":1},
"token":{"type":"string","writeOnly":true,"minLength":1},
"old_token":{"type":"string","writeOnly":true},
"channel":{"examples":["general"],"type":"string","pattern":"^[a-z]+$","minLength":2,"maxLength":8},
"mode":{"default":"remove","type":"string","enum":["keep","mark","remove"]},
"tries":{"default":3,"type":"integer","minimum":1,"maximum":10},
"small":{"type":"integer","minimum":-128,"maximum":127},
"size":{"type":"integer","minimum":0,"maximum":65535},
"ratio":{"type":"number","minimum":0,"maximum":1},
"on":{"type":"boolean"},
"wait":{"default":"1m30s","type":"string"},
"since":{"type":"string","format":"date-time"},
"from":{"type":"string"},
"mail":{"type":"string","format":"email"},
"columns":{"type":"object","additionalProperties":{"type":"string","enum":["text","number"]}},
"tags":{"default":["#a","#b"],"type":"array","maxItems":3,"items":{"type":"string","pattern":"^#"}},
"lists":{"examples":[[[1],[2,3]]],"type":"array","items":{"type":"array","items":{"type":"integer"}}},
"limits":{"description":"how much","type":"object","properties":{"most":{"default":50,"type":"integer"},"named":{"type":"string"}},"required":["named"],"additionalProperties":false},
"more":{"type":"object","properties":{"most":{"default":50,"type":"integer"},"named":{"type":"string"}},"required":["named"],"additionalProperties":false},
"many":{"type":"array","items":{"type":"object","properties":{"most":{"default":50,"type":"integer"},"named":{"type":"string"}},"required":["named"],"additionalProperties":false}},
"raw":{},
"any":{},
"key":{"type":"string","contentEncoding":"base64"},
"number":{"type":"number"},
"secrets":{"type":"object","additionalProperties":{"type":"string","writeOnly":true}},
"shared":{"default":"yes","type":"string"},
"Plain":{"type":"string"}
},"required":["url","token"],"additionalProperties":false}`

func TestTheSchemaIsThatOfTheType(t *testing.T) {
	for range 20 {
		got, err := sinks.Schema[every]()
		if err != nil {
			t.Fatal(err)
		}
		if want := strings.ReplaceAll(everySchema, "\n", ""); string(got) != want {
			t.Fatalf("got\n%s\nwant\n%s", strings.ReplaceAll(string(got), `},"`, "},\n\""), everySchema)
		}
	}
	compileSchema[every](t)
	if got, err := sinks.Schema[none](); err != nil || string(got) != `{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object","properties":{},"additionalProperties":false}` {
		t.Errorf("%s, %v", got, err)
	}
}

func compileSchema[C any](t testing.TB) *jsonschema.Schema {
	t.Helper()
	b, err := sinks.Schema[C]()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("mem:settings", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("mem:settings")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func schemaError[C any](t *testing.T, want string) {
	t.Helper()
	if b, err := sinks.Schema[C](); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%T: %s, %v; want %q", *new(C), b, err, want)
	}
}

type loop struct {
	Next *loop `json:"next"`
}

func TestATagThatMakesNoSenseIsAnError(t *testing.T) {
	schemaError[int](t, "a struct is wanted")
	schemaError[*none](t, "a struct is wanted")
	schemaError[time.Time](t, "a struct is wanted")
	schemaError[loop](t, "nested more than 16")
	schemaError[struct{ C chan int }](t, `setting "C": type chan int cannot be a setting`)
	schemaError[struct{ C **int }](t, "cannot be a setting")
	schemaError[struct{ C []*int }](t, "cannot be a setting")
	schemaError[struct{ C map[int]string }](t, "keys must be strings")
	schemaError[struct{ C []func() }](t, "cannot be a setting")
	schemaError[struct {
		A string `json:"B"`
		B string
	}](t, `setting "B" exists twice`)
	schemaError[struct {
		A int `json:",string"`
	}](t, "option string")
	schemaError[struct {
		A int `required:"maybe"`
	}](t, "neither true nor false")
	schemaError[struct {
		A int `secret:"maybe"`
	}](t, "neither true nor false")
	schemaError[struct {
		A int `secret:"true"`
	}](t, "for strings")
	schemaError[struct {
		A int `required:"true" default:"1"`
	}](t, "yet it has a default")
	schemaError[struct {
		A int `default:"x"`
	}](t, "tag default")
	schemaError[struct {
		A int `default:"5" maximum:"3"`
	}](t, "must be at most 3")
	schemaError[struct {
		A int `example:"1.5"`
	}](t, "tag example: settings: must be a whole number")
	schemaError[struct {
		A sinks.Secret `default:"x"`
	}](t, "a secret with a default")
	schemaError[struct {
		A sinks.Secret `enum:"x"`
	}](t, "a secret with an enum")
	schemaError[struct {
		A bool `enum:"true"`
	}](t, "enum is for")
	schemaError[struct {
		A int `enum:"1,x"`
	}](t, "tag enum")
	schemaError[struct {
		A int `pattern:"x"`
	}](t, "pattern is for")
	schemaError[struct {
		A string `pattern:"("`
	}](t, "tag pattern")
	schemaError[struct {
		A int `format:"x"`
	}](t, "format is for")
	schemaError[struct {
		A string `minimum:"1"`
	}](t, "minimum is for")
	schemaError[struct {
		A int `maximum:"x"`
	}](t, "is not a number")
	schemaError[struct {
		A int `minLength:"1"`
	}](t, "minLength is for")
	schemaError[struct {
		A string `maxLength:"-1"`
	}](t, "is not a length")
	schemaError[struct {
		A []bool `pattern:"x"`
	}](t, "pattern is for")
}

func TestDecodeReadsEveryKind(t *testing.T) {
	c, err := sinks.Decode[every]([]byte(`{"url":"https://u:p@example.com/hook?token=1","token":"abc","channel":"general","mode":"keep","tries":1e1,"small":-128,
		"size":65535,"ratio":0.25,"on":false,"wait":"2h","since":"2026-01-02T03:04:05Z","from":"::1","columns":{"a":"text","b":"number"},"tags":[],
		"lists":[[],[1,2]],"limits":{"named":"x"},"more":{"named":"y","most":1},"many":[{"named":"z"}],"raw":{"b":1.0,"a":[null,true,"x"]},"any":{"n":12345678901234567890},
		"key":"AAEC","number":1.50,"secrets":{"a":"b"},"Plain":"p"}`))
	if err != nil {
		t.Fatal(err)
	}
	if c.URL.Reveal().String() != "https://u:p@example.com/hook?token=1" || c.URL.Host() != "example.com" || c.Token.Reveal() != "abc" || c.Secrets["a"].Reveal() != "b" {
		t.Error("secrets are not read")
	}
	want := every{URL: c.URL, Token: c.Token, Secrets: c.Secrets, Channel: "general", Mode: "keep", Tries: 10, Small: -128, Size: 65535, Ratio: 0.25, On: new(false),
		Wait: 2 * time.Hour, Since: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), From: netip.IPv6Loopback(), Columns: map[string]string{"a": "text", "b": "number"},
		Tags: []string{}, Lists: [][]int{{}, {1, 2}}, Limits: limits{50, "x"}, More: &limits{1, "y"}, Many: []limits{{50, "z"}},
		Raw: []byte(`{"b":1.0,"a":[null,true,"x"]}`), Any: map[string]any{"n": json.Number("12345678901234567890")}, Key: []byte{0, 1, 2}, Number: "1.50",
		shared: shared{"yes"}, Plain: "p", hidden: ""}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got\n%#v\nwant\n%#v", c, want)
	}
}

func TestDecodeFillsInDefaults(t *testing.T) {
	c, err := sinks.Decode[every]([]byte(`{"url":"http://a","token":"x"}`))
	want := every{URL: c.URL, Token: c.Token, Mode: "remove", Tries: 3, Wait: 90 * time.Second, Tags: []string{"#a", "#b"}, Limits: limits{Most: 50}, shared: shared{"yes"}}
	if err != nil || !reflect.DeepEqual(c, want) {
		t.Errorf("got %#v, %v", c, err)
	}
	c.Tags[0] = "changed"
	if again, err := sinks.Decode[every]([]byte(`{"url":"http://a","token":"x"}`)); err != nil || again.Tags[0] != "#a" {
		t.Errorf("a default is shared: %q, %v", again.Tags, err)
	}
}

// violations are the errors that Decode joined.
func violations(t *testing.T, err error) (list []string) {
	t.Helper()
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		e, ok := errors.AsType[*sinks.SettingError](err)
		if !ok {
			t.Fatalf("%v is no SettingError", err)
		}
		return []string{e.Path + " " + e.Err.Error()}
	}
	for _, one := range joined.Unwrap() {
		e, ok := one.(*sinks.SettingError)
		if !ok {
			t.Fatalf("%v is no SettingError", one)
		}
		list = append(list, e.Path+" "+e.Err.Error())
	}
	return list
}

func TestDecodeReportsEverythingThatIsWrong(t *testing.T) {
	_, err := sinks.Decode[every]([]byte(`{"tokn":"x","url":"ftp://secret-host/","Mode":"keep","mode":"kep","tries":11,"small":128,"size":-1,"ratio":"x","on":null,
		"wait":"soon","since":"today","from":"nowhere","channel":"A","columns":{"a":"text","a":"text","b~/c":"txt"},"tags":["#a","b",3,"#d"],"lists":[[1],[1.5]],
		"limits":{"most":1,"most":2,"x":1},"more":{},"many":[{"named":1}],"key":"?","old_token":7,"secrets":{"k":1},"raw":null,"any":null}`))
	want := []string{
		`/tokn no such setting; did you mean "token"?`,
		"/url must begin with https:// or http://",
		`/Mode no such setting; did you mean "mode"?`,
		`/mode must be one of "keep", "mark", "remove"; did you mean "keep"?`,
		"/tries must be at most 10",
		"/small must be at most 127",
		"/size must be at least 0",
		"/ratio must be a number, not a string",
		"/on must be true or false, not null",
		"/wait is not a duration such as 30s or 1h30m",
		`/since parsing time "today" as "2006-01-02T15:04:05Z07:00": cannot parse "today" as "2006"`,
		`/from ParseAddr("nowhere"): unable to parse IP`,
		"/channel does not match ^[a-z]+$",
		"/channel is too short: at least 2 characters",
		"/columns/a is given twice",
		`/columns/b~0~1c must be one of "text", "number"; did you mean "text"?`,
		"/tags is too long: at most 3 elements",
		"/lists/1/0 must be a whole number",
		"/limits/most is given twice",
		"/limits/x no such setting",
		"/limits/named is required",
		"/more/named is required",
		"/many/0/named must be a string, not a number",
		"/key is not base64",
		"/old_token must be a string, not a number",
		"/secrets/k must be a string, not a number",
		"/token is required",
	}
	got := violations(t, err)
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestDecodeOfWhatIsNoObject(t *testing.T) {
	for settings, want := range map[string]string{
		"":                                   "/url is required\n/token is required",
		"null":                               " must be an object, not null",
		"[]":                                 " must be an object, not a list",
		"{":                                  " not JSON: it ends too early",
		`{"token":tru}`:                      " not JSON: a mistake at byte 13",
		`{"token":"x"} {}`:                   " not JSON: a mistake at byte 15",
		`{"raw":` + strings.Repeat("[", 200): " not JSON: it ends too early",
		`{"raw":` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + `}`: " nested more than 100 levels",
		`{"url":"","token":""}`:             "/url must not be empty\n/token must not be empty",
		`{"url":"//a","token":"x"}`:         "/url must begin with https:// or http://",
		`{"url":"https:///a","token":"x"}`:  "/url names no host",
		`{"url":"https://a:b","token":"x"}`: "/url is not a URL",
	} {
		_, err := sinks.Decode[every]([]byte(settings))
		if err == nil {
			t.Errorf("%q is taken", settings)
			continue
		}
		if got := strings.Join(violations(t, err), "\n"); got != want {
			t.Errorf("%q: %s", settings, got)
		}
	}
}

// checkable is a type of which the schema says all that Decode checks.
type checkable struct {
	Name  string           `json:"name" required:"true" pattern:"^[a-z]*$" minLength:"1" maxLength:"4"`
	Mode  string           `json:"mode" enum:"a,b"`
	Level int              `json:"level" enum:"1,2,3"`
	Tries int32            `json:"tries" minimum:"-2" maximum:"100"`
	Ratio float64          `json:"ratio" minimum:"0.5"`
	On    *bool            `json:"on"`
	Map   map[string]int16 `json:"map" maxLength:"2"`
	List  []checkableInner `json:"list" minLength:"1"`
	Raw   json.RawMessage  `json:"raw"`
	Token sinks.Secret     `json:"token"`
	Inner checkableInner   `json:"inner"`
}

type checkableInner struct {
	A string `json:"a" required:"true"`
	B int    `json:"b" default:"4"`
}

// FuzzDecode holds Decode and the schema to the same answer: the relay checks settings
// with one, a plugin with the other.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`{"name":"ab","mode":"a","level":2,"tries":7,"ratio":0.5,"on":true,"map":{"x":1},"list":[{"a":"x"}],"raw":[null],"token":"t","inner":{"a":"b","b":5}}`,
		`{"name":"abcde","mode":"c","level":4,"tries":-3,"ratio":0.4,"on":1,"map":{"x":1,"y":2,"z":3},"list":[],"extra":1}`,
		`{"name":"a","tries":1e1,"ratio":1e400}`, `{"name":"a","tries":1.5}`, `{"name":"a","level":1.0}`, `{"name":"a","name":"b"}`, `{"name":"a","map":{"x":1e9}}`, `{}`, `[]`, `{"name":"\ud800"}`, `{"name":"a","on":null}`,
		`{"name":"a","tries":1e-400}`,
	} {
		f.Add([]byte(seed))
	}
	schema := compileSchema[checkable](f)
	f.Fuzz(func(t *testing.T, settings []byte) {
		_, err := sinks.Decode[checkable](settings)
		doc, notJSON := jsonschema.UnmarshalJSON(bytes.NewReader(settings))
		if notJSON != nil {
			if err == nil && len(settings) > 0 {
				t.Fatalf("%q is taken, but is not JSON: %v", settings, notJSON)
			}
			return
		}
		bad := schema.Validate(doc)
		switch {
		case err == nil && bad != nil:
			t.Errorf("%q is taken, but %v", settings, bad)
		case err != nil && bad == nil && !onlyDecode(err):
			t.Errorf("%q is good, but %v", settings, err)
		}
		for range 2 {
			if _, again := sinks.Decode[checkable](settings); fmt.Sprint(again) != fmt.Sprint(err) {
				t.Errorf("%q: first %v, then %v", settings, err, again)
			}
		}
	})
}

// onlyDecode reports whether err is about what a schema cannot say: keys that come
// twice, numbers beyond those of Go, depth.
func onlyDecode(err error) bool {
	for line := range strings.Lines(err.Error()) {
		if !strings.Contains(line, "is given twice") && !strings.Contains(line, "is out of range") && !strings.Contains(line, "nested more than") {
			return false
		}
	}
	return true
}
