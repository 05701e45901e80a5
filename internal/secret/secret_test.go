package secret_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/secret"
)

const planted = "hunter2-hunter2"

func TestNoEncoderShowsTheValue(t *testing.T) {
	holders := map[string]secret.String{
		"literal":   secret.New(planted),
		"reference": secret.FromReference(planted, "Bearer ${env:TOKEN:-"+planted+"}"),
	}
	for name, s := range holders {
		t.Run(name, func(t *testing.T) {
			box := struct {
				S secret.String
				P *secret.String
			}{s, &s}
			var out bytes.Buffer
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%T%v"} {
				fmt.Fprintf(&out, verb+"\n", s)
				fmt.Fprintf(&out, verb+"\n", box)
			}
			if err := json.NewEncoder(&out).Encode(box); err != nil {
				t.Fatal(err)
			}
			slog.New(slog.NewTextHandler(&out, nil)).Info("m", "s", s, "box", box)
			slog.New(slog.NewJSONHandler(&out, nil)).Info("m", "s", s, "box", box)
			if got := out.String(); strings.Contains(got, planted) || strings.Contains(got, fmt.Sprintf("%x", planted)) {
				t.Errorf("the value shows:\n%s", got)
			}
			if s.Reveal() != planted {
				t.Errorf("Reveal = %q", s.Reveal())
			}
		})
	}
}

func TestReferenceShowsWhatTheFileSays(t *testing.T) {
	for _, c := range []struct{ value, text, want string }{
		{"", "", ""},
		{"x", "", secret.Mask},
		{"x", "${env:A}", "${env:A}"},
		{"Bearer x", "Bearer ${file:/etc/t}", "Bearer ${file:/etc/t}"},
		{"x", "${env:A:-dflt}", "${env:A:-" + secret.Mask + "}"},
		{"x", "${env:A:-dflt", "${env:A:-" + secret.Mask},
	} {
		if got := secret.FromReference(c.value, c.text).Reference(); got != c.want {
			t.Errorf("%q: got %q, want %q", c.text, got, c.want)
		}
	}
}
