package httpsink

import (
	"net/url"
	"strings"

	"github.com/peanutsapp/peanuts-relay/internal/secret"
)

const (
	// Shorter values are not masked: they would blot out words that have
	// nothing to do with them, and nobody can call them secret.
	minSecret = 4
	// minPlain is the same for values that the file spells out where few
	// secrets are: ordinary headers and parts of the path.
	minPlain = 8

	maxLine = 300
)

// masker replaces the secrets of one webhook. It is immutable.
type masker struct{ *secret.Masker }

// line makes one readable line of a text that may quote the receiver.
func (m masker) line(s string) string { return m.Line(s, maxLine) }

// newMasker collects what a receiver may echo: the signing secrets, the values
// of the headers, path and query of the URL and the user in it; and what a proxy may.
func newMasker(o *Options, u *url.URL, user *url.Userinfo, proxy *url.URL) masker {
	var found secret.Patterns
	if o.Signer != nil {
		for _, s := range o.Signer.Secrets() {
			found.Add(s.Reveal(), minSecret)
			found.Add(strings.TrimPrefix(s.Reveal(), "whsec_"), minPlain)
		}
	}
	for _, h := range o.Headers {
		addHeader(h, found.Add)
	}
	addURL(u, found.Add)
	addUser(user, found.Add)
	if proxy != nil {
		addUser(proxy.User, found.Add)
	}
	return masker{secret.NewMasker(&found)}
}

func addHeader(h Header, add func(string, int)) {
	least := minSecret
	if name := strings.ToLower(h.Name); h.Value.IsLiteral() && !strings.Contains(name, "auth") && !strings.Contains(name, "key") &&
		!strings.Contains(name, "token") && !strings.Contains(name, "secret") && !strings.Contains(name, "cookie") {
		least = minPlain
	}
	value := h.Value.Reveal()
	add(value, least)
	// "Bearer abc": a receiver that complains shows the second word.
	if _, credentials, ok := strings.Cut(value, " "); ok {
		add(strings.TrimSpace(credentials), max(least, minSecret))
	}
}

func addURL(u *url.URL, add func(string, int)) {
	add(u.RequestURI(), minSecret)
	add(u.EscapedPath(), minSecret)
	add(u.Path, minSecret)
	for segment := range strings.SplitSeq(u.EscapedPath(), "/") {
		add(segment, minPlain)
	}
	add(u.RawQuery, minSecret)
	for name, values := range u.Query() {
		add(name, minPlain)
		for _, v := range values {
			add(v, minSecret)
		}
	}
}

func addUser(user *url.Userinfo, add func(string, int)) {
	if user == nil {
		return
	}
	add(strings.TrimPrefix(basicAuth(user), "Basic "), minSecret)
	if password, ok := user.Password(); ok {
		add(password, minSecret)
	}
	add(user.Username(), minPlain)
}
