// Package egress decides which addresses may be dialled.
//
// Guarantee: the decision is made on the address that is about to be dialled,
// after every resolution, so that no notation of an address, no name server
// and no change of an answer between a check and its use gets around it.
// Loopback, private and other special-purpose addresses are dialled only when
// the operator named them: as the URL's own host, or in egress.allow.
// Link-local, multicast, unspecified and cloud metadata addresses are never
// dialled, whatever the configuration says. An IPv4 address inside an IPv6
// address is judged as well.
//
// What is special-purpose follows the IANA registries, kept by
// code.dny.dev/ssrf:
// https://www.iana.org/assignments/iana-ipv4-special-registry and
// https://www.iana.org/assignments/iana-ipv6-special-registry.
package egress

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"syscall"

	"code.dny.dev/ssrf"
)

// ForbiddenError says that an address must not be dialled.
type ForbiddenError struct {
	Addr   netip.Addr // as dialled; the zero Addr when a name was refused
	Reason string     // continues "127.0.0.1 is "
}

// Error implements error.
func (e *ForbiddenError) Error() string {
	if !e.Addr.IsValid() {
		return "refused: the host is " + e.Reason
	}
	return "refused: " + e.Addr.String() + " is " + e.Reason
}

// Policy is the operator's list of exceptions. It is immutable and safe for
// concurrent use.
type Policy struct {
	names    map[string]bool
	prefixes []netip.Prefix
	never    []rule
	public   *ssrf.Guardian
}

// New returns the policy with the exceptions of egress.allow: host names that
// may resolve to special-purpose addresses, and addresses or CIDRs that any
// webhook may reach. An entry that could never have an effect is an error.
func New(allow []string) (*Policy, error) {
	p := &Policy{names: make(map[string]bool), never: neverRules(), public: ssrf.New(ssrf.WithAnyPort())}
	for _, entry := range allow {
		prefix, name, err := parseAllow(entry)
		if err != nil {
			return nil, fmt.Errorf("egress.allow %q: %w", entry, err)
		}
		if name != "" {
			p.names[name] = true
			continue
		}
		p.prefixes = append(p.prefixes, prefix)
	}
	return p, nil
}

func parseAllow(entry string) (netip.Prefix, string, error) {
	none := netip.Prefix{}
	switch {
	case entry == "":
		return none, "", errors.New("empty")
	case strings.Contains(entry, "://"):
		return none, "", errors.New("this is a URL; give its host name alone")
	case strings.Contains(entry, "*"):
		return none, "", errors.New("wildcards are not supported; list the names or give a CIDR")
	}
	bare := strings.TrimSuffix(strings.TrimPrefix(entry, "["), "]")
	if addr, err := netip.ParseAddr(bare); err == nil {
		if addr.Zone() != "" {
			return none, "", errors.New("an address with a zone is never dialled")
		}
		return checkPrefix(netip.PrefixFrom(addr, addr.BitLen()))
	}
	if strings.Contains(entry, "/") {
		prefix, err := netip.ParsePrefix(entry)
		if err != nil {
			return none, "", errors.New("not a CIDR such as 10.20.0.0/16")
		}
		return checkPrefix(prefix)
	}
	if _, numeric := parseNumeric(entry); numeric {
		return none, "", errors.New("write the address as four decimal numbers")
	}
	name := normalName(entry)
	if !validName(name) {
		return none, "", errors.New("neither a host name, an address nor a CIDR (no port, no path)")
	}
	return none, name, nil
}

func checkPrefix(prefix netip.Prefix) (netip.Prefix, string, error) {
	if prefix.Addr().Is4In6() {
		return prefix, "", errors.New("write IPv4 addresses in their plain form")
	}
	prefix = prefix.Masked()
	for _, rule := range neverRules() {
		if rule.prefix.Bits() <= prefix.Bits() && rule.prefix.Contains(prefix.Addr()) {
			return prefix, "", fmt.Errorf("%s addresses are never dialled", rule.what)
		}
	}
	return prefix, "", nil
}

// Control returns the function for net.Dialer.Control of connections to
// urlHost, the host of the configured URL without port or brackets. It fails
// with a *ForbiddenError for an address that must not be dialled.
func (p *Policy) Control(urlHost string) func(network, address string, c syscall.RawConn) error {
	named := p.nameOf(urlHost)
	return func(network, address string, _ syscall.RawConn) error {
		addr, err := dialled(network, address)
		if err != nil {
			return err
		}
		return p.check(addr, named)
	}
}

// ProxyControl is Control for connections to a proxy that the operator's
// environment names: it may be on any address but those that are never
// dialled.
func (p *Policy) ProxyControl() func(network, address string, c syscall.RawConn) error {
	return func(network, address string, _ syscall.RawConn) error {
		addr, err := dialled(network, address)
		if err != nil {
			return err
		}
		return p.checkNever(addr)
	}
}

// CheckProxied judges the host of a URL that is reached through a proxy, where
// the address really dialled is the proxy's and nothing here sees the
// target's. An address is judged as if it were dialled, in every notation that
// a proxy may understand; so are the names of metadata services. What any
// other name resolves to is up to the proxy.
func (p *Policy) CheckProxied(urlHost string) error {
	named := p.nameOf(urlHost)
	if metadataName(named.name) {
		return &ForbiddenError{Reason: "the name of a cloud metadata service, which is never contacted"}
	}
	addr, err := netip.ParseAddr(urlHost)
	if err != nil {
		var numeric bool
		if addr, numeric = parseNumeric(urlHost); !numeric {
			return nil
		}
	}
	return p.check(addr, named)
}

func dialled(network, address string) (netip.Addr, error) {
	if network != "tcp4" && network != "tcp6" && network != "tcp" {
		return netip.Addr{}, &ForbiddenError{Reason: "on the network " + network + ", not on TCP"}
	}
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return netip.Addr{}, &ForbiddenError{Reason: "not an address"}
	}
	return ap.Addr(), nil
}

// target is what the operator named by writing the URL.
type target struct {
	name     string
	literal  netip.Addr // the URL's host is this address, in its plain form
	loopback bool       // localhost, RFC 6761 section 6.3
	allowed  bool       // the name is in egress.allow
}

func (p *Policy) nameOf(urlHost string) target {
	name := normalName(urlHost)
	t := target{name: name, allowed: p.names[name], loopback: name == "localhost" || strings.HasSuffix(name, ".localhost")}
	// An IPv4-mapped address hides what it names, so it names nothing.
	if addr, err := netip.ParseAddr(urlHost); err == nil && addr.Zone() == "" && !addr.Is4In6() {
		t.literal = addr
	}
	return t
}

func (p *Policy) check(addr netip.Addr, named target) error {
	if err := p.checkNever(addr); err != nil {
		return err
	}
	addr = addr.Unmap()
	for _, inner := range embedded(addr) {
		if err := p.checkInner(addr, inner); err != nil {
			return err
		}
	}
	if wellKnownNAT64().Contains(addr) {
		return nil // translated to the address inside, which may be dialled
	}
	if p.public.SafeAddr(addr) == nil || named.allowed || named.literal == addr || (named.loopback && addr.IsLoopback()) || p.listed(addr) {
		return nil
	}
	return &ForbiddenError{Addr: addr, Reason: describe(addr) +
		"; to deliver there, write it as the host of the url, or put it or the host name into egress.allow"}
}

// checkInner judges the IPv4 address inside an IPv6 address. That the URL or a
// name in egress.allow stands for the outer address does not make it right to
// reach a private address through a translator: only a listed CIDR does.
func (p *Policy) checkInner(outer, inner netip.Addr) error {
	if err := p.checkNever(inner); err != nil {
		fe, _ := errors.AsType[*ForbiddenError](err)
		return &ForbiddenError{Addr: outer, Reason: "another form of " + inner.String() + ", which is " + fe.Reason}
	}
	if p.public.SafeAddr(inner) == nil || p.listed(inner) {
		return nil
	}
	return &ForbiddenError{Addr: outer, Reason: "another form of " + inner.String() + ", which is " + describe(inner) +
		"; to deliver there, put that address into egress.allow"}
}

func (p *Policy) listed(addr netip.Addr) bool {
	for _, prefix := range p.prefixes {
		if prefix.Contains(addr) {
			return true
		}
	}
	return false
}
