package config

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/peanutsapp/peanuts-relay/internal/event"
	"github.com/peanutsapp/peanuts-relay/internal/secret"
	"github.com/peanutsapp/peanuts-relay/internal/signing"
)

var (
	wordyScheme = regexp.MustCompile(`^([a-z]{2,10})://`)
	secretName  = regexp.MustCompile(`(?i)^(proxy-)?authorization$|token|secret|api-?key|cookie`)
)

func (l *loader) validateWebhook(c *Config, h *Helper, w *WebhookKeys) {
	path := []string{"helpers", h.ID, "webhooks", w.ID}
	l.validateSecrets(path, secretsOf{w.Secret, w.Secrets})
	l.validateEvents(h, w, under(path, "events"))
	if w.Sink != SinkHTTP && w.Sink != "" {
		l.validatePluginWebhook(c, h, w, path)
		return
	}
	if w.Settings != nil {
		l.problem(under(path, "settings"), Finding{Code: codeMisplacedKey, Message: "the http sink has no settings", Suggestion: "they are for plugins"})
	}
	l.validateURL(w, under(path, "url"))
	l.validateHeaders(w, under(path, "headers"))
	l.validateSignatures(c, h, w, path)
	l.validateTLS(w, under(path, "tls"))
}

// suggested is [didYouMean] unless the word must not be printed: a suggestion
// near it would tell most of it.
func suggested(quotable bool, word string, known []string, fallback string) string {
	if !quotable {
		return fallback
	}
	return didYouMean(word, known, fallback)
}

func (l *loader) validateEvents(h *Helper, w *WebhookKeys, path []string) {
	known := append([]string{"create", "update", "delete", "all", event.Created, event.Updated, event.Deleted, "created", "updated", "deleted"}, h.Events...)
	items := l.items(path, len(w.Events))
	for i, word := range w.Events {
		if word == "all" || h.eventName(word) != "" {
			continue
		}
		at := path
		if place, exact := l.root.lookup(path); exact && place.items != nil {
			at = items[i]
		}
		l.problem(at, Finding{Code: codeUnknownEvent, Message: "unknown event " + l.named(at, word, "name"),
			Suggestion: suggested(l.quotable(at), word, known, "there are create, update, delete and the helper's own events")})
	}
	if len(w.Events) == 0 && !l.failed[pointer(path)] && l.present(path) && !l.failedBelow(path) {
		l.problem(path, Finding{Severity: SeverityWarning, Code: codeNoEvents, Message: "the webhook has no events and will get nothing", Suggestion: "remove the key to get all events"})
	}
}

// items are the paths in the file of n converted entries of a list: those with
// errors were left out. To be called before the entries are checked.
func (l *loader) items(path []string, n int) [][]string {
	var out [][]string
	for i := 0; len(out) < n; i++ {
		if item := under(path, strconv.Itoa(i)); !l.failed[pointer(item)] {
			out = append(out, item)
		}
	}
	return out
}

func (l *loader) failedBelow(path []string) bool {
	prefix := pointer(path) + "/"
	for p := range l.failed {
		if strings.HasPrefix(p, prefix) {
			return true
		}
	}
	return false
}

// validateURL never prints the URL, nor an error of package url, which contains
// it: the path often is the password.
func (l *loader) validateURL(w *WebhookKeys, path []string) {
	bad := func(code, message, suggestion string) {
		l.problem(path, Finding{Code: code, Message: message, Suggestion: suggestion})
	}
	text := w.URL.Reveal()
	if text == "" {
		if l.present(path) {
			bad(codeBadURL, "the url is empty", "")
		} else {
			suggestion := "the http sink needs to know where to send"
			if at, _ := l.root.lookup(path[:len(path)-1]); at != nil && at.src.order > 0 {
				// What is left of a webhook that the main file had, mostly.
				suggestion += "; if another file had the webhook and it is to be gone, remove it here too"
			}
			bad(codeMissingKey, "the url is missing", suggestion)
		}
		return
	}
	u, err := url.Parse(text)
	switch {
	case strings.ContainsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }):
		bad(codeBadURL, "the url has spaces or control characters", "")
	case err != nil:
		bad(codeBadURL, "this is not a url", "for example https://api.example.com/peanuts")
	case u.Scheme != "http" && u.Scheme != "https":
		l.badScheme(text, path)
	case u.Hostname() == "" || u.Opaque != "":
		bad(codeBadURL, "the url has no host", "for example https://api.example.com/peanuts")
	case u.User != nil:
		bad(codeUserinfo, "the url contains a user name or password", `send them in a header: Authorization: "Basic ${file:/path}"`)
	case !goodPort(u):
		bad(codeBadURL, "the port of the url is not between 1 and 65535", "")
	case u.Fragment != "":
		bad(codeBadURL, "the url has a fragment, which is never sent", `remove "#" and what follows it`)
	default:
		l.validateHost(u, path)
	}
}

// spelled reports whether the file spells the value at path out.
func (l *loader) spelled(path []string) bool {
	at, exact := l.root.lookup(path)
	return exact && at.val != nil && at.literal()
}

func (l *loader) badScheme(text string, path []string) {
	message := "the url has no scheme"
	suggestion := "begin it with https://"
	if m := wordyScheme.FindStringSubmatch(text); m != nil && l.spelled(path) {
		message = "the scheme " + quote(m[1]) + " is not supported"
		suggestion = "http and https are"
	} else if strings.Contains(text, "://") {
		message, suggestion = "the scheme of the url is not supported", "http and https are"
	}
	l.problem(path, Finding{Code: codeScheme, Message: message, Suggestion: suggestion})
}

func goodPort(u *url.URL) bool {
	if u.Port() == "" {
		return !strings.HasSuffix(u.Host, ":")
	}
	n, err := strconv.ParseUint(u.Port(), 10, 16)
	return err == nil && n > 0
}

func (l *loader) validateHost(u *url.URL, path []string) {
	host := u.Hostname()
	addr, err := netip.ParseAddr(host)
	switch {
	case err == nil && neverDialled(addr):
		l.problem(path, Finding{Code: codeForbiddenAddr, Message: "the url leads to an address that is never dialled", Suggestion: "link-local, multicast and unspecified addresses are refused"})
	case err != nil && strings.ContainsAny(host, "%/\\ "):
		l.problem(path, Finding{Code: codeBadURL, Message: "the host of the url is not valid"})
	case u.Scheme == "http" && !isLoopback(host, addr):
		l.problem(path, Finding{Severity: SeverityWarning, Code: codePlainHTTP, Message: "the url is plain http to another host: entries and signatures can be read on the way", Suggestion: "use https"})
	}
}

func isLoopback(host string, addr netip.Addr) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return addr.Unmap().IsLoopback() || host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// reservedHeaders are those that belong to the connection (RFC 9110 section
// 7.6.1, RFC 9112), and the encoding, which is never applied.
func reservedHeaders() []string {
	return []string{"connection", "content-encoding", "content-length", "expect", "host", "keep-alive", "proxy-authorization",
		"proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
}

func (l *loader) validateHeaders(w *WebhookKeys, path []string) {
	seen := map[string]string{}
	for _, h := range w.Headers {
		at, lower := under(path, h.Name), strings.ToLower(h.Name)
		switch {
		case slices.Contains(reservedHeaders(), lower) || strings.HasPrefix(lower, "x-peanuts-") || strings.HasPrefix(lower, "webhook-"):
			l.problemAtKey(at, Finding{Code: codeReservedHeader, Message: "the header " + quote(h.Name) + " is set by the relay", Suggestion: "remove it"})
		case seen[lower] != "":
			l.problemAtKey(at, Finding{Code: codeDuplicateHeader, Message: "the header " + quote(h.Name) + " is there twice: case does not matter"})
		}
		seen[lower] = h.Name
		value := h.Value.Reveal()
		if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
			l.problem(at, Finding{Code: codeBadHeader, Message: "the value of the header has control characters, such as a line break", Suggestion: "only one final line break of a file is removed"})
		}
		if len(value) > 8<<10 {
			l.problem(at, Finding{Code: codeBadHeader, Message: "the value of the header is longer than 8KiB"})
		}
		if secretName.MatchString(h.Name) {
			l.literalSecret(at, h.Value)
		}
	}
}

func (l *loader) problemAtKey(path []string, f Finding) {
	if at, _ := l.root.lookup(path); !l.failed[pointer(path)] {
		l.add(f, at, path, true)
	}
}

func (l *loader) validateSignatures(c *Config, h *Helper, w *WebhookKeys, path []string) {
	at := under(path, "signatures")
	r := c.resolve(h, w)
	if w.Sink != SinkHTTP && w.Signatures.List == nil && len(r.Secrets) == 0 {
		return // what a plugin hands on is signed where there is something to sign with
	}
	if w.Signatures.None || l.failed[pointer(at)] || l.failedBelow(at) {
		return
	}
	if w.Signatures.List != nil && len(w.Signatures.List) == 0 {
		l.problem(at, Finding{Code: codeBadSignature, Message: "the list of signatures is empty", Suggestion: "write signatures: none to send unsigned requests"})
		return
	}
	l.validateSigned(r, path)
	taken := map[string]bool{}
	for i, s := range w.Signatures.List {
		item := under(at, strconv.Itoa(i))
		l.validateSignatureHeader(s, under(item, "header"))
		clash := false
		for _, name := range signing.HeaderNames(s.Spec()) {
			clash = clash || taken[strings.ToLower(name)]
			taken[strings.ToLower(name)] = true
		}
		if clash {
			l.problem(item, Finding{Code: codeBadSignature, Message: "two signatures use the same header", Suggestion: "give one of them another header"})
		}
	}
	for _, own := range w.Headers {
		if taken[strings.ToLower(own.Name)] {
			l.problemAtKey(under(path, "headers", own.Name), Finding{Code: codeReservedHeader, Message: "the header " + quote(own.Name) + " carries a signature"})
		}
	}
}

// validateSignatureHeader leaves it to package signing which headers can carry a
// signature.
func (l *loader) validateSignatureHeader(s Signature, path []string) {
	switch {
	case s.Header == "" || signing.HeaderNames(s.Spec()) != nil:
	case !headerForm.MatchString(s.Header):
		l.problem(path, Finding{Code: codeBadHeader, Message: l.named(path, s.Header, "this") + " is not a header name"})
	case signing.HeaderNames(signing.Spec{Scheme: signing.Hex, Header: s.Header}) != nil:
		l.problem(path, Finding{Code: codeBadSignature, Message: "the header of the scheme standard must end in -signature", Suggestion: "the headers of the id and the timestamp are named after it"})
	default:
		l.problem(path, Finding{Code: codeReservedHeader, Message: "the header " + l.named(path, s.Header, "of that name") + " cannot carry a signature", Suggestion: "it has a meaning of its own"})
	}
}

// validateSigned checks that there is something to sign with, for each scheme.
func (l *loader) validateSigned(r Webhook, path []string) {
	if len(r.Secrets) == 0 {
		for _, p := range [][]string{under(path, "secret"), under(path, "secrets"), {"helpers", r.Helper.ID, "secret"}, {"helpers", r.Helper.ID, "secrets"}, {"secret"}, {"secrets"}} {
			if l.failed[pointer(p)] || l.failedBelow(p) {
				return
			}
		}
		l.problemAtKey(path, Finding{Code: codeMissingSecret, Message: "the webhook has no secret, so its requests cannot be signed", Suggestion: "give it or its helper a secret, or write signatures: none"})
		return
	}
	if !slices.ContainsFunc(r.Signatures, func(s Signature) bool { return s.Scheme == "standard" }) {
		return
	}
	for i, s := range r.Secrets {
		if _, err := signing.New([]signing.Spec{{Scheme: signing.Standard}}, []secret.String{s}); err != nil {
			l.problemAtKey(path, Finding{Code: codeBadSecret, Message: fmt.Sprintf("secret %d of the webhook does not work with the scheme standard: %s", i+1, innermost(err))})
		}
	}
}

// innermost is the reason at the bottom of an error of another package. What is
// wrapped around it there names the value, which may be a secret's or come from
// a reference; the reason never does.
func innermost(err error) string {
	for inner := err; inner != nil; inner = errors.Unwrap(inner) {
		err = inner
	}
	return err.Error()
}
