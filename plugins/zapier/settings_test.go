package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/docstest"
	"github.com/peanutsapp/peanuts-relay/sinks"
)

func TestSettings(t *testing.T) {
	for _, c := range []struct {
		url, base string
		path      string // of the error; "" = none
		warning   bool
	}{
		{"https://hooks.zapier.com/hooks/catch/123456/abcdef/", "", "", false},
		{"https://HOOKS.zapier.com/hooks/catch/123456/abcdef", "", "", false},
		{"https://hooks.zapier.com/hooks/catch/123456/abcdef/silent/", "", "", false},
		{"https://hooks.zapier.com/hooks/standard/123456/abcdef/?from=peanuts", "", "", false},
		{"https://hooks.zapier.com/hooks/catch/abc123/", "", "", true},
		{"http://hooks.zapier.com/hooks/catch/123456/abcdef/", "", "/url", false},
		{"https://zapier.com/hooks/catch/123456/abcdef/", "", "/url", false},
		{"https://hooks.zapier.com.example/hooks/catch/123456/abcdef/", "", "/url", false},
		{"https://hooks.zapier.com/hooks/catch/", "", "/url", false},
		{"https://hooks.zapier.com/app/zaps", "", "/url", false},
		{"https://hooks.zapier.com/", "", "/url", false},
		{"https://user:abcdef@hooks.zapier.com/hooks/catch/123456/x/", "", "/url", false},
		{"https://hooks.zapier.com/hooks/catch/123456/abcdef/", "http://127.0.0.1:8080", "", false},
		{"http://anything.example/hooks/catch/123456/abcdef/", "http://127.0.0.1:8080/prefix/", "", false},
		{"https://hooks.zapier.com/elsewhere", "http://127.0.0.1:8080", "/url", false},
		{"https://hooks.zapier.com/hooks/catch/123456/abcdef/", "http://", "/base_url", false},
		{"https://hooks.zapier.com/hooks/catch/123456/abcdef/", "http://a/?b=c", "/base_url", false},
		{"https://hooks.zapier.com/hooks/catch/123456/abcdef/", "http://user@a/", "/base_url", false},
	} {
		s, err := sinks.Decode[Settings](fmt.Appendf(nil, `{"url":%q,"base_url":%q}`, c.url, c.base))
		if err != nil && c.base != "" {
			t.Fatalf("%s: %v", c.url, err)
		}
		s.BaseURL = c.base
		u, err := sinks.NewURL(c.url)
		if err != nil {
			t.Fatal(err)
		}
		s.URL = u
		var v sinks.Validation
		s.Validate(t.Context(), &v)
		var errs, warnings int
		for _, d := range v.Diagnostics() {
			if d.Warning {
				warnings++
				continue
			}
			errs++
			if d.Path != c.path || strings.Contains(d.Summary, "abcdef") || d.Detail == "" {
				t.Errorf("%s, %s: %+v", c.url, c.base, d)
			}
		}
		if (errs > 0) != (c.path != "") || (warnings > 0) != c.warning {
			t.Errorf("%s, %s: %+v", c.url, c.base, v.Diagnostics())
		}
		_, err = New().Open(t.Context(), sinks.Env{}, s)
		se, ok := errors.AsType[*sinks.SettingError](err)
		if (err != nil) != (c.path != "") || (ok && se.Path != c.path) {
			t.Errorf("%s, %s: open: %v", c.url, c.base, err)
		}
	}
}

func TestTheURLIsRequiredAndFlattenIsTheDefault(t *testing.T) {
	if _, err := sinks.Decode[Settings]([]byte(`{}`)); err == nil || !strings.Contains(err.Error(), "/url") {
		t.Errorf("%v", err)
	}
	s, err := sinks.Decode[Settings]([]byte(`{"url":"https://hooks.zapier.com/hooks/catch/1/a/"}`))
	if err != nil || !s.Flatten {
		t.Errorf("%v, %v", s.Flatten, err)
	}
	if _, err := (Settings{}).target(); err == nil {
		t.Error("settings without a URL have a target")
	}
}

func TestTheBaseURLReplacesTheHostOnly(t *testing.T) {
	u, err := sinks.NewURL("https://hooks.zapier.com/hooks/catch/1/a%2Fb/?q=1")
	if err != nil {
		t.Fatal(err)
	}
	for base, want := range map[string]string{
		"":                         "https://hooks.zapier.com/hooks/catch/1/a%2Fb/?q=1",
		"http://127.0.0.1:1":       "http://127.0.0.1:1/hooks/catch/1/a%2Fb/?q=1",
		"http://127.0.0.1:1/p%20/": "http://127.0.0.1:1/p%20/hooks/catch/1/a%2Fb/?q=1",
	} {
		got, err := Settings{URL: u, BaseURL: base}.target()
		if err != nil || got.String() != want {
			t.Errorf("%q: %v, %v", base, got, err)
		}
	}
}

func TestTheSchemaKnowsEverySetting(t *testing.T) {
	schema, err := sinks.Schema[Settings]()
	if err != nil {
		t.Fatal(err)
	}
	docstest.Schema(t, "sinks/zapier.md", schema, "url")
}

func TestThePageIsRight(t *testing.T) {
	secrets := map[string]string{
		"/etc/peanuts-relay/expenses.secret": "0123456789abcdef",
		"/etc/peanuts-relay/zap.url":         "https://hooks.zapier.com/hooks/catch/123456/abcdef/",
	}
	for _, settings := range docstest.Settings(t, "sinks/zapier.md", "zapier", secrets) {
		s, err := sinks.Decode[Settings](settings)
		if err != nil {
			t.Fatalf("%s: %v", settings, err)
		}
		var v sinks.Validation
		if s.Validate(t.Context(), &v); len(v.Diagnostics()) > 0 {
			t.Errorf("%s: %+v", settings, v.Diagnostics())
		}
	}
	made, err := body(example(), true)
	if err != nil {
		t.Fatal(err)
	}
	var shown bytes.Buffer
	if err := json.Indent(&shown, made, "", "  "); err != nil {
		t.Fatal(err)
	}
	docstest.Block(t, "sinks/zapier.md", "example", shown.String())
}
