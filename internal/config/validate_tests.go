package config

import "strings"

// validateTest checks that a test can say yes and no. Whether what it expects
// comes about is not asked here: a test that does not hold is no fault of the file.
func (l *loader) validateTest(t *Test) {
	path := []string{"tests", t.Name}
	if event := under(path, "event"); t.Event == "" && !l.failed[pointer(event)] && !l.failedBelow(event) {
		l.problemAtKey(path, Finding{Code: codeMissingKey, Message: "the test has no event", Suggestion: "event: {event: entry.created, helper: …, entry: {id: …}}"})
	}
	e, expect := &t.Expect, under(path, "expect")
	rejected := e.Rejected != "" && e.Rejected != "false"
	switch {
	case l.failed[pointer(expect)] || l.failedBelow(expect):
	case e.Webhooks == nil && e.Rejected == "" && len(e.Deliveries) == 0:
		l.problemAtKey(path, Finding{Code: codeBadTest, Message: "the test expects nothing, so it cannot fail", Suggestion: "expect: {webhooks: […]}, or rejected: true"})
	case rejected && (len(e.Webhooks) > 0 || len(e.Deliveries) > 0):
		l.problemAtKey(under(expect, "rejected"), Finding{Code: codeBadTest, Message: "an event that is refused goes to no webhook", Suggestion: "keep rejected, or webhooks and deliveries"})
	}
	for i, d := range e.Deliveries {
		l.validateExpected(&e.Deliveries[i], under(expect, "deliveries", d.Webhook))
	}
}

func (l *loader) validateExpected(d *ExpectedDelivery, path []string) {
	for _, text := range []struct{ key, value string }{{"body", d.Body}, {"signature", d.Signature}} {
		if at := under(path, text.key); text.value == "" && l.present(at) {
			l.problem(at, Finding{Code: codeBadTest, Message: "the " + text.key + " of a request is never empty", Suggestion: "remove the key"})
		}
	}
	seen := map[string]bool{}
	for _, h := range d.Headers {
		at, lower := under(path, "headers", h.Name), strings.ToLower(h.Name)
		if seen[lower] {
			l.problemAtKey(at, Finding{Code: codeDuplicateHeader, Message: "the header " + quote(h.Name) + " is there already", Suggestion: "upper and lower case are the same"})
		}
		seen[lower] = true
		if secretName.MatchString(h.Name) {
			l.literalSecret(at, h.Value)
		}
	}
}
