package configtest

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"cmp"

	"github.com/peanutsapp/peanuts-relay/internal/config"
	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/event"
	"github.com/peanutsapp/peanuts-relay/internal/httpsink"
	"github.com/peanutsapp/peanuts-relay/internal/signing"
)

const (
	// wholeBody is the longest body that a finding quotes as a whole.
	wholeBody = 512
	// contextBefore and contextAfter are how much of a longer one is quoted
	// around the first difference, in bytes.
	contextBefore, contextAfter = 24, 48
)

// compareRequest compares the request of one delivery with what is expected.
func (r *runner) compareRequest(t *config.Test, d *config.ExpectedDelivery, in *event.Input, h *helper, w *webhook, path []string) {
	eventID := cmp.Or(in.ID, EventID)
	body, _ := event.Encode(nil, in, &h.Helper, w.PayloadFormat(), eventID)
	signer, err := w.Signer()
	if err != nil { // Load has made one of the same
		r.fail(path, "", "the request cannot be signed")
		return
	}
	var signatures []delivery.Header
	if signer != nil {
		signatures = signer.Sign(nil, DeliveryID, Time(), body)
	}
	own := make([]delivery.Header, len(w.Headers))
	for i, x := range w.Headers {
		own[i] = delivery.Header{Name: x.Name, Value: x.Value.Reveal()}
	}
	headers := httpsink.RequestHeaders(&delivery.Outbound{DeliveryID: DeliveryID, EventID: eventID, EventType: in.Type,
		EntryID: in.EntryID, Webhook: w.ID, Attempt: 1, Payload: body}, signatures, own)

	c := comparison{runner: r, path: path, own: own, shown: !r.cfg.Refers("tests", t.Name, "event") &&
		!r.cfg.Refers("helpers", h.ID, "name") && !r.cfg.Refers("helpers", h.ID, "command")}
	for _, x := range d.Headers {
		c.header(x, headers)
	}
	if d.Body != "" {
		c.body(d.Body, string(body))
	}
	if d.JSON != "" {
		c.json(d.JSON, body)
	}
	if d.Signature != "" {
		c.signature(d.Signature, w, signatures)
	}
}

// comparison is that of one request.
type comparison struct {
	*runner
	path  []string          // of the expected delivery
	own   []delivery.Header // of the webhook: their values are secrets
	shown bool              // whether what the event and the helper say may be printed
}

func (c *comparison) at(names ...string) []string {
	return append(c.path[:len(c.path):len(c.path)], names...)
}

func find(headers []delivery.Header, name string) (delivery.Header, bool) {
	for _, h := range headers {
		if strings.EqualFold(h.Name, name) {
			return h, true
		}
	}
	return delivery.Header{}, false
}

func (c *comparison) header(want config.Header, headers []delivery.Header) {
	path := c.at("headers", want.Name)
	got, ok := find(headers, want.Name)
	_, secret := find(c.own, want.Name)
	switch {
	case !ok:
		names := make([]string, len(headers))
		for i, h := range headers {
			names[i] = h.Name
		}
		c.fail(path, "it has "+strings.Join(names, ", "), "the request has no header %s", quote(want.Name))
	case got.Value == want.Value.Reveal():
	case secret || !c.shown:
		c.fail(path, "its value is treated as a secret and not shown", "the header %s differs", quote(want.Name))
	default:
		c.fail(path, "", "the header %s is %s", quote(want.Name), quote(got.Value))
	}
}

func (c *comparison) body(want, got string) {
	if want == got {
		return
	}
	path, at := c.at("body"), 0
	for at < len(want) && at < len(got) && want[at] == got[at] {
		at++
	}
	switch {
	case !c.shown || c.cfg.Refers(path...):
		c.fail(path, "it is not shown because it has values that come through references", "the body differs at byte %d", at)
	case len(got) <= wholeBody && printable(got) == got:
		c.fail(path, "the body is "+got, "the body differs at byte %d: %s, expected %s", at, excerpt(got, at), excerpt(want, at))
	default:
		c.fail(path, "", "the body differs at byte %d: %s, expected %s", at, excerpt(got, at), excerpt(want, at))
	}
}

// excerpt is a part of text around an offset, cut between characters.
func excerpt(text string, at int) string {
	from, to := max(0, at-contextBefore), min(len(text), at+contextAfter)
	for from > 0 && !utf8.RuneStart(text[from]) {
		from--
	}
	for to < len(text) && !utf8.RuneStart(text[to]) {
		to++
	}
	part := text[from:to]
	if from > 0 {
		part = "…" + part
	}
	switch {
	case at >= len(text):
		part += " and its end"
	case to < len(text):
		part += "…"
	}
	return printable(part)
}

func (c *comparison) signature(want string, w *webhook, signatures []delivery.Header) {
	path := c.at("signature")
	if len(signatures) == 0 {
		c.fail(path, "", "the request is not signed")
		return
	}
	names := signing.HeaderNames(w.Signatures[0].Spec())
	got, _ := find(signatures, names[len(names)-1])
	if got.Value != want {
		c.fail(path, "", "the header %s is %s", quote(got.Name), quote(got.Value))
	}
}

// printable replaces what would move the cursor or colour a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

func quote(s string) string { return `"` + printable(s) + `"` }
