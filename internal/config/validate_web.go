package config

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"unicode"
)

// minWebToken is the fewest characters of listen.web_token. Attempts are slowed down, but
// whoever has the token may do everything.
const minWebToken = 16

// validateWeb checks the listener of the page: it is for this machine, and closed.
func (l *loader) validateWeb(c *Listen) {
	web, token := []string{"listen", "web"}, []string{"listen", "web_token"}
	if c.Web != "" && !l.failed[pointer(web)] {
		l.webAddress(web, c.Web)
	}
	items := l.items([]string{"listen", "web_hosts"}, len(c.WebHosts))
	for i, host := range c.WebHosts {
		l.webHost(items[i], host)
	}
	switch given := c.WebToken.Reveal(); {
	case l.failed[pointer(token)]:
	case given == "" && c.Web == "":
	case given == "" && l.empty(token):
		l.problem(token, Finding{Code: codeEmptySecret, Message: "the token is empty", Suggestion: "make one with openssl rand -hex 32"})
	case given == "":
		l.problem(web, Finding{Code: codeMissingSecret, Message: "listen.web needs listen.web_token",
			Suggestion: "make one with openssl rand -hex 32, keep it in a file that others cannot read, and name it: web_token: ${file:/etc/peanuts-relay/web.token}"})
	case strings.ContainsFunc(given, func(r rune) bool { return r <= ' ' || r > '~' }):
		l.problem(token, Finding{Code: codeBadSecret, Message: "the token has a space, a control character or one that is not ASCII, which no Authorization header carries",
			Suggestion: "make one with openssl rand -hex 32"})
	case len(given) < minWebToken:
		l.problem(token, Finding{Code: codeShortSecret, Message: fmt.Sprintf("the token has fewer than %d characters: whoever guesses it may do everything", minWebToken),
			Suggestion: "make one with openssl rand -hex 32"})
	case c.Web == "":
		l.literalSecret(token, c.WebToken)
		l.problem(token, Finding{Severity: SeverityWarning, Code: codeMissingKey, Message: "listen.web_token does nothing without listen.web",
			Suggestion: "set listen.web: 127.0.0.1:8465 to have the page, or remove the token"})
	default:
		l.literalSecret(token, c.WebToken)
	}
}

// webAddress accepts addresses of the loopback only: the listener speaks plain HTTP.
func (l *loader) webAddress(path []string, address string) {
	const (
		example = "write it like 127.0.0.1:8465"
		closed  = "listen on 127.0.0.1; others reach it through a reverse proxy with TLS (listen.web_hosts) or ssh -L"
	)
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		l.problem(path, Finding{Code: codeBadValue, Message: l.named(path, address, "this") + " is not an address with a port", Suggestion: example})
		return
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		l.problem(path, Finding{Code: codeBadValue, Message: "the port of " + l.named(path, address, "this address") + " is not a number from 0 to 65535", Suggestion: example})
		return
	}
	if host == "localhost" {
		return
	}
	addr, err := netip.ParseAddr(host)
	switch {
	case host == "":
		l.problem(path, Finding{Code: codeForbiddenAddr, Message: l.named(path, address, "this") + " is every address of the server, and the page speaks plain HTTP", Suggestion: closed})
	case err != nil:
		l.problem(path, Finding{Code: codeBadValue, Message: "the host of " + l.named(path, address, "this address") + " is neither localhost nor an IP address", Suggestion: example})
	case !addr.Unmap().IsLoopback():
		l.problem(path, Finding{Code: codeForbiddenAddr, Message: l.named(path, host, "the address") + " can be reached from other machines, and the page speaks plain HTTP", Suggestion: closed})
	}
}

// webHost checks one name of listen.web_hosts: what a browser sends in Host, without a port.
func (l *loader) webHost(path []string, host string) {
	const example = "name the host alone, like relay.example.com"
	letter := func(r rune) bool {
		return r == '-' || r == '.' || r == '_' || r < unicode.MaxASCII && (unicode.IsLetter(r) || unicode.IsDigit(r))
	}
	switch _, err := netip.ParseAddr(host); {
	case err == nil:
	case host == "" || len(host) > 253 || strings.Trim(host, ".") != host || strings.ContainsFunc(host, func(r rune) bool { return !letter(r) }):
		l.problem(path, Finding{Code: codeBadValue, Message: l.named(path, host, "this") + " is not the name of a host", Suggestion: example})
	}
}
