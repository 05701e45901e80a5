package event_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/event"
)

type helpers map[string]*event.Helper

func (h helpers) Helper(id string) *event.Helper { return h[id] }

func (h helpers) HelperIDs() []string {
	var ids []string
	for id := range h {
		ids = append(ids, id)
	}
	return ids
}

func TestReadTakesWhatTheHelperTakesAndNothingElse(t *testing.T) {
	many := helpers{}
	for i := range 25 {
		many[fmt.Sprintf("helper-%02d", i)] = &event.Helper{}
	}
	one := helpers{"expenses": {ID: "expenses", Fields: []event.Field{{Name: "amount", Type: event.Number}}}}
	for _, c := range []struct {
		name    string
		helpers helpers
		body    string
		code    string // "" = taken
		says    []string
	}{
		{"good", one, `{"event":"entry.created","helper":"expenses","entry":{"id":"e"}}`, "", nil},
		{"malformed", one, `{"event":`, event.CodeInvalidJSON, nil},
		{"a field of another type", one, `{"event":"entry.created","helper":"expenses","entry":{"id":"e","data":{"amount":"x"}}}`, event.CodeFieldType, []string{"entry.data.amount"}},
		{"an unknown event", one, `{"event":"entry.eaten","helper":"expenses","entry":{"id":"e"}}`, event.CodeUnknownEvent, nil},
		{"a helper misspelt", one, `{"event":"entry.created","helper":"expense","entry":{"id":"e"}}`, event.CodeUnknownHelper, []string{`did you mean "expenses"?`, "configured: expenses"}},
		{"no helper at all", helpers{}, `{"event":"entry.created","helper":"expenses","entry":{"id":"e"}}`, event.CodeUnknownHelper, []string{"no helper is configured"}},
		{"too many to list", many, `{"event":"entry.created","helper":"nothing","entry":{"id":"e"}}`, event.CodeUnknownHelper, []string{"helper-00, helper-01", "helper-19 and 5 more"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			in, err := event.Read([]byte(c.body), time.Now(), c.helpers)
			if c.code == "" {
				if err != nil || in.HelperID != "expenses" {
					t.Fatalf("event %+v, error %v", in, err)
				}
				return
			}
			e, ok := errors.AsType[*event.Error](err)
			if !ok || e.Code != c.code || in != nil {
				t.Fatalf("event %+v, error %v, want %s", in, err, c.code)
			}
			for _, words := range c.says {
				if !strings.Contains(e.Message, words) {
					t.Errorf("the message %q does not say %q", e.Message, words)
				}
			}
		})
	}
}
