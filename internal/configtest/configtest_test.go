package configtest_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/config"
	"github.com/peanutsapp/peanuts-relay/internal/configtest"
	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/secret"
	"github.com/peanutsapp/peanuts-relay/internal/signing"
)

// planted is in every secret of the tests; nothing may print it.
const planted = "hunter2"

const helpers = `
helpers:
  expenses:
    name: Daily Expenses
    command: /expenses
    secret: ${env:SECRET}
    fields: {amount: number, paid: boolean}
    events: [expense.approved]
    webhooks:
      backend:
        url: https://example.com/a
        headers: {X-Env: prod, Authorization: "Bearer ${env:TOKEN}"}
      partner: {url: https://example.com/b, events: [create, expense.approved], format: event, signatures: [{scheme: standard}, {scheme: hex}]}
      off: {url: https://example.com/c, enabled: false}
      unsigned: {url: https://example.com/d, events: delete, signatures: none}
  other: {name: "${env:NAME}", secret: "${env:SECRET}", webhooks: {hook: {url: https://example.com/e}}}
`

const created = "event: {event: entry.created, helper: expenses, entry: {id: e-1, data: {amount: 42.50}}}\n"

// payload is what created becomes, to the byte.
const payload = `{"event":"entry.created","timestamp":"2025-01-01T00:00:00.000Z","helper":{"id":"expenses","name":"Daily Expenses","command":"/expenses"},"entry":{"id":"e-1","data":{"amount":42.5,"paid":null},"created_at":"2025-01-01T00:00:00.000Z"}}`

// run loads helpers with one test and runs it. It returns the report as a
// person reads it.
func run(t *testing.T, test string) (failed int, cfg *config.Config, report *config.Report, text string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	indented := "tests:\n  one:\n    " + strings.ReplaceAll(strings.TrimSpace(test), "\n", "\n    ") + "\n"
	if err := os.WriteFile(path, []byte(helpers+indented), 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"SECRET": planted + "0123456789abcdef01234", "TOKEN": planted + "-token", "NAME": planted}
	cfg, report = config.Load(config.Options{Path: path, LookupEnv: func(name string) (string, bool) {
		v, ok := env[name]
		return v, ok
	}})
	if cfg == nil {
		t.Fatalf("the file is refused: %v\n%s", report.Err(), indented)
	}
	failed = configtest.Run(cfg, report, config.SeverityError)
	var b strings.Builder
	if err := report.WriteText(&b, false); err != nil {
		t.Fatal(err)
	}
	if err := report.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), planted) {
		t.Errorf("a secret is printed:\n%s", b.String())
	}
	return failed, cfg, report, b.String()
}

func signature(t *testing.T, scheme signing.Scheme, body string) string {
	t.Helper()
	s, err := signing.New([]signing.Spec{{Scheme: scheme}}, []secret.String{secret.New(planted + "0123456789abcdef01234")})
	if err != nil {
		t.Fatal(err)
	}
	var headers []delivery.Header = s.Sign(nil, "del_test", configtest.Time(), []byte(body))
	return headers[len(headers)-1].Value
}

func TestATestHoldsWhenTheConfigurationDoesWhatItExpects(t *testing.T) {
	partner := `{"id":"evt_test","type":"entry.created","created_at":"2025-01-01T00:00:00.000Z","data":{"id":"e-1","amount":42.5,"paid":null}}`
	for name, test := range map[string]string{
		"webhooks in any order": created + "expect: {webhooks: [expenses.partner, expenses.backend]}",
		"one webhook":           "event: {event: entry.updated, helper: expenses, entry: {id: e}}\nexpect: {webhooks: expenses.backend}",
		"accepted":              created + "expect: {rejected: false}",
		"rejected":              "event: {event: entry.eaten, helper: expenses, entry: {id: e}}\nexpect: {rejected: true}",
		"rejected with a code":  "event: {event: entry.created, helper: expenses, entry: {id: e, data: {amount: x}}}\nexpect: {rejected: field_type}",
		"an unknown helper":     "event: {event: entry.created, helper: expens, entry: {id: e}}\nexpect: {rejected: unknown_helper}",
		"an unknown field":      "event: {event: entry.created, helper: expenses, entrry: {id: e}}\nexpect: {rejected: unknown_field}",
		"body":                  created + "expect: {deliveries: {expenses.backend: {body: '" + payload + "'}}}",
		"body of the other format": created + "expect: {deliveries: {expenses.partner: {body: '" + partner + "', json: {id: evt_test, data: {amount: 42.500}}, headers: {" +
			"Webhook-Id: del_test, webhook-timestamp: '1735689600', x-peanuts-event-id: evt_test, X-Peanuts-Attempt: '1'}}}}",
		"json": created + "expect: {deliveries: {expenses.backend: {json: {entry: {data: {paid: null, amount: 4.25e1}}, helper: {id: expenses}}}}}",
		"lists and numbers": "event: {event: entry.created, helper: expenses, entry: {id: e, data: {l: [{b: 1, a: 2}, 12345678901234567890, x], 10: x}}}\n" +
			"expect: {deliveries: {expenses.backend: {json: {entry: {data: {l: [{a: 2.0}, 12345678901234567890, x], '10': x}}}}}}",
		"headers":   created + "expect: {deliveries: {expenses.backend: {headers: {X-Env: prod, authorization: 'Bearer ${env:TOKEN}', X-Peanuts-Event: entry.created, Content-Type: application/json}}}}",
		"signature": created + "expect: {deliveries: {expenses.backend: {signature: " + signature(t, signing.Peanuts, payload) + "}}}",
		"a named signature": created + "expect: {deliveries: {expenses.partner: {headers: {x-webhook-signature: " + signature(t, signing.Hex, partner) + "}, signature: '" +
			signature(t, signing.Standard, partner) + "'}}}",
		"times and id of the event": "event: {event: expense.approved, helper: {id: expenses}, id: evt_own, timestamp: 2025-02-03T04:05:06.789+01:00, entry: {id: e, created_at: '2024-01-01T00:00:00Z'}, user: {id: u}}\n" +
			"expect: {deliveries: {expenses.backend: {json: {timestamp: '2025-02-03T03:05:06.789Z', entry: {created_at: '2024-01-01T00:00:00.000Z'}, user: {id: u}}, headers: {X-Peanuts-Event-Id: evt_own}}}}",
	} {
		t.Run(name, func(t *testing.T) {
			if failed, _, report, text := run(t, test); failed != 0 || report.Err() != nil {
				t.Errorf("%d tests failed:\n%s", failed, text)
			}
		})
	}
}

func TestAFailedTestStandsAtItsExpectationAndSaysWhatCame(t *testing.T) {
	request := func(d string) string { return created + "expect:\n  deliveries:\n    expenses.backend: {" + d + "}" }
	for name, c := range map[string]struct {
		test string
		path string // below /tests/one/
		says []string
	}{
		"disabled":     {created + "expect: {webhooks: [expenses.backend, expenses.partner, expenses.off]}", "expect/webhooks/2", []string{"expenses.off gets no delivery: it is disabled"}},
		"not selected": {created + "expect: {webhooks: [expenses.backend, expenses.partner, expenses.unsigned]}", "expect/webhooks/2", []string{"its events do not include this one"}},
		"misspelt":     {created + "expect: {webhooks: [expenses.backend, expenses.partner, expenses.bakend]}", "expect/webhooks/2", []string{"did you mean expenses.backend?"}},
		"a stranger":   {created + "expect: {webhooks: [expenses.backend, expenses.partner, other.hook]}", "expect/webhooks/2", []string{"the event is one of the helper expenses"}},
		"one too many": {created + "expect: {webhooks: expenses.backend}", "expect/webhooks", []string{"the event goes to expenses.partner as well"}},
		"none":         {created + "expect: {webhooks: []}", "expect/webhooks", []string{"expenses.backend, expenses.partner as well"}},
		"no delivery":  {created + "expect: {deliveries: {expenses.off: {}}}", "expect/deliveries/expenses.off", []string{"it is disabled"}},
		"taken":        {created + "expect: {rejected: true}", "expect/rejected", []string{"the event is taken"}},
		"refused": {"event: {event: entry.created, helper: expenses, entry: {id: e, data: {amount: x}}}\nexpect: {webhooks: []}", "event/entry/data/amount",
			[]string{"entry.data.amount is a string", "rejected: field_type"}},
		"refused as malformed":  {"event: {event: entry.created, helper: expenses, entrry: {id: e}}\nexpect: {webhooks: []}", "event/entrry", []string{`unknown field "entrry"; did you mean`}},
		"refused for less":      {"event: {event: entry.created, helper: expenses}\nexpect: {rejected: bad_id}", "expect/rejected", []string{"with the code missing_field"}},
		"refused, with secrets": {"event: {event: '${env:NAME}', helper: expenses, entry: {id: e}}\nexpect: {webhooks: []}", "event/event", []string{"the event is refused: unknown_event"}},
		"header":                {request("headers: {X-Peanuts-Event: entry.deleted}"), "expect/deliveries/expenses.backend/headers/X-Peanuts-Event", []string{`is \"entry.created\"`}},
		"secret header":         {request("headers: {X-Env: staging}"), "expect/deliveries/expenses.backend/headers/X-Env", []string{`\"X-Env\" differs`, "not shown"}},
		"no header":             {request("headers: {X-None: a}"), "expect/deliveries/expenses.backend/headers/X-None", []string{"has no header", "it has Content-Type, User-Agent, X-Peanuts-Signature"}},
		"body":                  {request("body: '" + strings.Replace(payload, "42.5", "43", 1) + "'"), "expect/deliveries/expenses.backend/body", []string{"differs at byte ", `42.5,`, `43,`, "the body is {"}},
		"body too short":        {request("body: '" + payload[:40] + "'"), "expect/deliveries/expenses.backend/body", []string{"differs at byte 40", "and its end"}},
		"json":                  {request("json: {entry: {data: {amount: 42.6}}}"), "expect/deliveries/expenses.backend/json/entry/data/amount", []string{"has 42.5 at entry.data.amount"}},
		"json, absent":          {request("json: {entry: {data: {tip: 1}}}"), "expect/deliveries/expenses.backend/json/entry/data/tip", []string{"has no entry.data.tip"}},
		"json, another type":    {request("json: {entry: [1]}"), "expect/deliveries/expenses.backend/json/entry", []string{"has {", "at entry"}},
		"json, through references": {request("json: {entry: {id: '${env:NAME}'}}"), "expect/deliveries/expenses.backend/json/entry/id",
			[]string{"differs at entry.id", "come through references"}},
		"body, through references": {request("body: '${env:NAME}'"), "expect/deliveries/expenses.backend/body", []string{"differs at byte 0", "come through references"}},
		"signature":                {request("signature: sha256=00"), "expect/deliveries/expenses.backend/signature", []string{`X-Peanuts-Signature\" is \"sha256=`}},
		"unsigned": {"event: {event: entry.deleted, helper: expenses, entry: {id: e}}\nexpect: {deliveries: {expenses.unsigned: {signature: x}}}", "expect/deliveries/expenses.unsigned/signature",
			[]string{"is not signed"}},
		"a name through a reference": {"event: {event: entry.deleted, helper: other, entry: {id: e}}\nexpect: {deliveries: {other.hook: {json: {helper: {name: x}}, body: x}}}",
			"expect/deliveries/other.hook/json/helper/name", []string{"differs at helper.name", "differs at byte 0"}},
	} {
		t.Run(name, func(t *testing.T) {
			failed, _, report, text := run(t, c.test)
			if failed != 1 || report.Err() == nil {
				t.Fatalf("%d tests failed, %v", failed, report.Err())
			}
			found := false
			for _, f := range report.Findings {
				want := "/tests/one/" + c.path
				found = found || f.Code == configtest.Code && f.Path == want && f.Line > 0
			}
			if !found {
				t.Errorf("no finding at %s:\n%s", c.path, text)
			}
			for _, words := range c.says {
				if !strings.Contains(text, words) {
					t.Errorf("the report does not say %q:\n%s", words, text)
				}
			}
		})
	}
}

func TestTheSeverityIsTheCallers(t *testing.T) {
	_, cfg, _, _ := run(t, created+"expect: {webhooks: []}")
	report := &config.Report{}
	if failed := configtest.Run(cfg, report, config.SeverityWarning); failed != 1 || report.Err() != nil || len(report.Findings) != 1 {
		t.Errorf("%d failed, %v, %d findings", failed, report.Err(), len(report.Findings))
	}
}
