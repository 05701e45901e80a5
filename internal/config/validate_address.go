package config

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"unicode"
)

// validateMetrics warns of an address that others reach instead of refusing it: that
// Prometheus runs on another machine is the usual case.
func (l *loader) validateMetrics(address string) {
	path := []string{"listen", "metrics"}
	if host, ok := l.tcpAddress(path, address, "127.0.0.1:9465"); ok && !onLoopback(host) {
		l.problem(path, Finding{Severity: SeverityWarning, Code: codeOpenMetrics,
			Message:    "the metrics can be read from other machines, without a password: names of webhooks, and how much goes through them",
			Suggestion: "127.0.0.1:9465 is for this machine alone; else let a firewall admit only who scrapes"})
	}
}

// tcpAddress checks an address to listen on and returns its host, "" for every address
// of the machine. ok is false when there is none, be it wrong or not set.
func (l *loader) tcpAddress(path []string, address, example string) (host string, ok bool) {
	bad := func(message string) (string, bool) {
		l.problem(path, Finding{Code: codeBadAddress, Message: message, Suggestion: "for example " + example})
		return "", false
	}
	if address == "" {
		return "", false
	}
	named := l.named(path, address, "this")
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		if strings.HasPrefix(address, "/") {
			return bad(named + " is a path; this listener takes an address with a port")
		}
		return bad(named + " is not an address with a port; an IPv6 address stands in brackets")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return bad(fmt.Sprintf("the port of %s is not a number from 1 to 65535", named))
	}
	if strings.ContainsFunc(host, func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r) || strings.ContainsRune("/@?#", r)
	}) {
		return bad(fmt.Sprintf("the host of %s is neither an IP address nor a name", named))
	}
	return host, true
}

// onLoopback reports whether only this machine reaches what listens on a host. Of names
// only localhost is known to be such.
func onLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return strings.EqualFold(host, "localhost")
	}
	return addr.Unmap().IsLoopback()
}
