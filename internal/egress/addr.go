package egress

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"code.dny.dev/ssrf"
)

type rule struct {
	prefix netip.Prefix
	what   string
}

// neverRules are the addresses that no configuration makes reachable. The
// metadata addresses are those that the providers document and that lie
// outside of the link-local ranges.
func neverRules() []rule {
	metadata := func(addr, whose string) rule {
		a := netip.MustParseAddr(addr)
		return rule{netip.PrefixFrom(a, a.BitLen()), "cloud metadata (" + whose + ")"}
	}
	return []rule{
		metadata("169.254.169.254", "all large providers"),
		{netip.MustParsePrefix("169.254.0.0/16"), "link-local"}, // RFC 3927
		{netip.MustParsePrefix("0.0.0.0/8"), "unspecified"},     // RFC 791 section 3.2; Linux dials itself
		{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},     // RFC 5771
		{netip.MustParsePrefix("240.0.0.0/4"), "reserved"},      // RFC 1112 section 4, broadcast included
		metadata("168.63.129.16", "Azure"),
		metadata("100.100.100.200", "Alibaba Cloud"),
		metadata("100.88.222.5", "Tencent Cloud"),
		metadata("192.0.0.192", "Oracle Cloud"),
		metadata("fd00:ec2::254", "AWS"),
		metadata("fd00:ec2::23", "AWS EKS"),
		metadata("fd20:ce::254", "Google Cloud"),
		metadata("fd00:c1::a9fe:a9fe", "Oracle Cloud"),
		metadata("fd00:42::42", "Scaleway"),
		{netip.MustParsePrefix("::/128"), "unspecified"},
		{netip.MustParsePrefix("fe80::/10"), "link-local"}, // RFC 4291 section 2.5.6
		{netip.MustParsePrefix("ff00::/8"), "multicast"},   // RFC 4291 section 2.7
	}
}

// metadataName reports whether a name is that of a metadata service.
func metadataName(name string) bool {
	switch name {
	case "metadata", "metadata.google.internal", "metadata.goog", "instance-data", "instance-data.ec2.internal",
		"metadata.tencentyun.com", "metadata.platformequinix.com", "metadata.packet.net":
		return true
	}
	return false
}

func (p *Policy) checkNever(addr netip.Addr) error {
	if addr.Zone() != "" {
		return &ForbiddenError{Addr: addr, Reason: "an address with a zone, which is never dialled"}
	}
	plain := addr.Unmap()
	for _, r := range p.never {
		if r.prefix.Contains(plain) {
			return &ForbiddenError{Addr: addr, Reason: "a " + r.what + " address, which is never dialled"}
		}
	}
	return nil
}

// wellKnownNAT64 is the prefix of RFC 6052 section 2.1, behind which networks
// without IPv4 reach it.
func wellKnownNAT64() netip.Prefix { return ssrf.IPv6NAT64Prefix }

// embedded returns the IPv4 addresses that an IPv6 address stands for, or may
// stand for where the format does not tell.
func embedded(addr netip.Addr) []netip.Addr {
	if !addr.Is6() {
		return nil
	}
	b := addr.As16()
	at := func(i int) netip.Addr { return netip.AddrFrom4([4]byte(b[i : i+4])) }
	in := func(prefix string) bool { return netip.MustParsePrefix(prefix).Contains(addr) }
	switch {
	case addr.IsLoopback():
		return nil // ::1 has the form of 0.0.0.1
	case in("::/96"), // IPv4-compatible, RFC 4291 section 2.5.5.1
		in("::ffff:0:0:0/96"), // IPv4-translated, RFC 2765
		in("64:ff9b::/96"):    // NAT64, RFC 6052
		return []netip.Addr{at(12)}
	case in("64:ff9b:1::/48"): // local NAT64, RFC 8215: any length of RFC 6052 section 2.2
		found := slices.DeleteFunc([]netip.Addr{
			at(12),
			netip.AddrFrom4([4]byte{b[6], b[7], b[9], b[10]}),   // /48
			netip.AddrFrom4([4]byte{b[7], b[9], b[10], b[11]}),  // /56
			netip.AddrFrom4([4]byte{b[9], b[10], b[11], b[12]}), // /64
		}, func(a netip.Addr) bool { return a.As4()[0] == 0 }) // zeroes: not where the address is
		if len(found) == 0 {
			return []netip.Addr{at(12)} // of 0.0.0.0/8, wherever it is
		}
		return found
	case in("2002::/16"): // 6to4, RFC 3056
		return []netip.Addr{at(2)}
	case in("2001::/32"): // Teredo, RFC 4380: the server, and the client inverted
		return []netip.Addr{at(4), netip.AddrFrom4([4]byte{^b[12], ^b[13], ^b[14], ^b[15]})}
	// #nosec G602 -- b has sixteen bytes
	case (b[8] == 0 || b[8] == 2) && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe: // ISATAP, RFC 5214 section 6.1
		return []netip.Addr{at(12)}
	}
	return nil
}

// describe names the kind of a special-purpose address, with its article.
func describe(addr netip.Addr) string {
	switch {
	case addr.IsLoopback():
		return "a loopback address"
	case addr.IsPrivate():
		return "a private address"
	case netip.MustParsePrefix("100.64.0.0/10").Contains(addr):
		return "a shared (carrier-grade NAT) address"
	}
	return "a special-purpose address that is not on the public internet"
}

// parseNumeric reads the notations of inet_aton(3), which C libraries and
// proxies understand and Go does not: one to four parts, each decimal, octal
// (0…) or hexadecimal (0x…), the last filling the rest. ok is false for the
// plain form, which netip reads, and for names.
func parseNumeric(host string) (addr netip.Addr, ok bool) {
	if _, err := netip.ParseAddr(host); err == nil {
		return netip.Addr{}, false
	}
	parts := strings.Split(strings.TrimSuffix(host, "."), ".")
	if len(parts) > 4 {
		return netip.Addr{}, false
	}
	var value uint64
	for i, part := range parts {
		n, err := parsePart(part)
		if err != nil {
			return netip.Addr{}, false
		}
		if last := i == len(parts)-1; last {
			bits := 8 * (4 - i)
			if n >= 1<<bits {
				return netip.Addr{}, false
			}
			value = value<<bits | n
			continue
		}
		if n > 255 {
			return netip.Addr{}, false
		}
		value = value<<8 | n
	}
	return netip.AddrFrom4([4]byte{byte(value >> 24), byte(value >> 16), byte(value >> 8), byte(value)}), true
}

func parsePart(part string) (uint64, error) {
	digits, base := part, 10
	switch {
	case strings.HasPrefix(part, "0x"), strings.HasPrefix(part, "0X"):
		digits, base = part[2:], 16
		if digits == "" {
			digits = "0" // inet_aton reads a lone 0x as zero
		}
	case len(part) > 1 && part[0] == '0':
		digits, base = part[1:], 8
	}
	if strings.ContainsAny(digits, "+-_") {
		return 0, strconv.ErrSyntax
	}
	return strconv.ParseUint(digits, base, 33)
}

// normalName is the form in which host names are compared: RFC 4343 ignores
// case, and one final dot marks the name as absolute.
func normalName(host string) string { return strings.TrimSuffix(strings.ToLower(host), ".") }

func validName(name string) bool {
	if name == "" || len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 {
			return false
		}
		for i := range len(label) {
			c := label[i]
			if c != '-' && c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') {
				return false
			}
		}
	}
	return true
}
