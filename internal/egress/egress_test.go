package egress_test

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/egress"
)

func policy(t testing.TB, allow ...string) *egress.Policy {
	t.Helper()
	p, err := egress.New(allow)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// ask calls the Control function as the dialler does, which dials nothing.
func ask(p *egress.Policy, host, addr string) error {
	return p.Control(host)(network(addr), net.JoinHostPort(addr, "443"), nil)
}

func network(addr string) string {
	if strings.Contains(addr, ":") {
		return "tcp6"
	}
	return "tcp4"
}

const (
	public  = "public"  // always
	special = "special" // when the operator named it
	inner   = "inner"   // only when a CIDR lists the address inside
	never   = "never"
)

// addresses are the decision about every kind of address.
var addresses = []struct{ kind, list string }{
	{public, "1.1.1.1 8.8.8.8 93.184.216.34 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 " +
		"169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 192.0.1.0 192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0 " +
		"223.255.255.255 168.63.129.15 168.63.129.17 2606:4700::1111 2a00:1450:4001:81b::200e 2001:4860:4860::8888 " +
		"64:ff9b::8.8.8.8 64:ff9b::101:101"},
	{special, "127.0.0.1 127.0.0.2 127.1.2.3 127.255.255.255 10.0.0.1 10.255.255.255 172.16.0.1 172.31.255.255 192.168.0.1 " +
		"192.168.255.255 100.64.0.1 100.127.255.255 192.0.0.1 192.0.0.170 192.0.2.1 198.51.100.7 203.0.113.9 192.88.99.1 198.18.0.1 " +
		"198.19.255.255 192.31.196.1 192.52.193.1 192.175.48.1 ::1 fc00::1 fd00::1 fdff:ffff::1 fd12:3456:789a::1 fec0::1 " +
		"100::1 2001:db8::1 3fff::1 2001:2::1 2001:10::1 4000::1 5f00::1 " +
		"2002:808:808::1 ::ffff:0:808:808 ::808:808 64:ff9b:1::808:808"},
	{inner, "64:ff9b::7f00:1 64:ff9b::10.0.0.1 64:ff9b::192.168.1.1 64:ff9b::100.64.0.1 64:ff9b:1::7f00:1 64:ff9b:1:a00:0:100:: " +
		"2002:7f00:1:: 2002:a00:1::1 2002:c0a8:101::1 ::7f00:1 ::10.0.0.1 ::ffff:0:7f00:1 2001:0:7f00:1:0:0:fefe:fefe 2001:0:808:808:0:0:80ff:fffe " +
		"2001:0:808:808::f5ff:fffe fd00::5efe:10.0.0.1 fd00::200:5efe:127.0.0.1 2606:4700::5efe:a00:1"},
	{never, "0.0.0.0 0.0.0.1 0.255.255.255 169.254.0.1 169.254.169.254 169.254.170.2 169.254.255.255 224.0.0.1 239.255.255.255 " +
		"240.0.0.1 255.255.255.255 168.63.129.16 100.100.100.200 100.88.222.5 192.0.0.192 :: fe80::1 fe80::a9fe:a9fe febf::1 " +
		"fe80::1%lo fe80::1%eth0 2001:db8::1%1 ff02::1 ff0e::1 fd00:ec2::254 fd00:ec2::23 fd20:ce::254 fd00:c1::a9fe:a9fe fd00:42::42 " +
		"64:ff9b::169.254.169.254 64:ff9b::a9fe:a9fe 64:ff9b::0.0.0.0 64:ff9b::168.63.129.16 64:ff9b:1::a9fe:a9fe 2002:a9fe:a9fe::1 " +
		"::169.254.169.254 ::ffff:0:a9fe:a9fe 2001:0:a9fe:a9fe:: 2001:0:808:808::5601:5601 fd00::5efe:169.254.169.254 " +
		"64:ff9b:1:: 64:ff9b:1::1 64:ff9b:1::0.255.255.255 2002:6464:64c8::1 64:ff9b::224.0.0.1 ::ffff:169.254.169.254 ::ffff:0.0.0.0 ::ffff:168.63.129.16"},
}

func TestEveryKindOfAddress(t *testing.T) {
	strict := policy(t)
	named := policy(t, "partner.example")
	all := policy(t, "0.0.0.0/0", "::/0")
	count := 0
	for _, row := range addresses {
		for addr := range strings.FieldsSeq(row.list) {
			count++
			for _, c := range []struct {
				what    string
				policy  *egress.Policy
				host    string
				allowed bool
			}{
				{"an unknown name", strict, "partner.example", row.kind == public},
				{"a name beside the listed one", named, "other.example", row.kind == public},
				{"a part of the listed name", named, "evil.partner.example", row.kind == public},
				{"the listed name", named, "partner.example", row.kind == public || row.kind == special},
				{"the listed name, as an absolute one", named, "PARTNER.example.", row.kind == public || row.kind == special},
				{"the address itself in the URL", strict, addr, row.kind == public || row.kind == special},
				{"everything listed", all, "partner.example", row.kind != never},
				{"localhost", strict, "localhost", row.kind == public || loopback(addr)},
				{"a name under localhost", strict, "api.localhost", row.kind == public || loopback(addr)},
			} {
				err := ask(c.policy, c.host, addr)
				if (err == nil) != c.allowed {
					t.Errorf("%s (%s) for %s: %v", addr, row.kind, c.what, err)
				}
				if err == nil {
					continue
				}
				fe, ok := errors.AsType[*egress.ForbiddenError](err)
				if !ok || !fe.Addr.IsValid() || fe.Reason == "" {
					t.Errorf("%s: %T %v, want a *ForbiddenError that names the address", addr, err, err)
				}
			}
		}
	}
	if count < 100 {
		t.Errorf("%d addresses, want at least 100", count)
	}
}

func loopback(addr string) bool {
	a, err := netip.ParseAddr(addr)
	return err == nil && a.IsLoopback()
}

func TestAMappedFormIsJudgedAsTheAddressInside(t *testing.T) {
	for _, c := range []struct {
		host, addr string
		allowed    bool
	}{
		{"partner.example", "::ffff:8.8.8.8", true},
		{"partner.example", "::ffff:127.0.0.1", false},
		{"127.0.0.1", "::ffff:127.0.0.1", true},
		{"::ffff:127.0.0.1", "127.0.0.1", false}, // the URL hides what it names
		{"::ffff:7f00:1", "127.0.0.1", false},
		{"::1", "127.0.0.1", false}, // names the other one
		{"127.0.0.1", "127.0.0.2", false},
		{"10.0.0.1", "10.0.0.2", false},
	} {
		if err := ask(policy(t), c.host, c.addr); (err == nil) != c.allowed {
			t.Errorf("%s for a URL with the host %s: %v", c.addr, c.host, err)
		}
	}
}

// notations are other ways to write an address that resolvers of some systems
// understand. Go's does not, but cgo and proxies may.
var notations = []struct{ host, addr string }{
	{"0x7f.1", "127.0.0.1"}, {"127.1", "127.0.0.1"}, {"127.0.1", "127.0.0.1"}, {"2130706433", "127.0.0.1"}, {"0x7f000001", "127.0.0.1"},
	{"0X7F000001", "127.0.0.1"}, {"0177.0.0.1", "127.0.0.1"}, {"017700000001", "127.0.0.1"}, {"0x7f.0x0.0x0.0x1", "127.0.0.1"},
	{"0177.0.0.01", "127.0.0.1"}, {"127.0.0.1.", "127.0.0.1"}, {"10.1", "10.0.0.1"}, {"0xa.1", "10.0.0.1"}, {"167772161", "10.0.0.1"},
	{"3232235777", "192.168.1.1"}, {"0", "0.0.0.0"}, {"0x0", "0.0.0.0"}, {"0.0", "0.0.0.0"}, {"2852039166", "169.254.169.254"},
	{"0xa9fea9fe", "169.254.169.254"}, {"0251.0376.0251.0376", "169.254.169.254"}, {"169.254.43518", "169.254.169.254"},
	{"169.16689662", "169.254.169.254"}, {"0xa9.254.0251.254", "169.254.169.254"}, {"2822734096", "168.63.129.16"},
}

func TestNoOtherNotationNamesAnAddress(t *testing.T) {
	p := policy(t)
	for _, n := range notations {
		if err := ask(p, n.host, n.addr); err == nil {
			t.Errorf("the host %s allowed %s to be dialled", n.host, n.addr)
		}
		if err := p.CheckProxied(n.host); err == nil {
			t.Errorf("the host %s would go to a proxy, which may read it as %s", n.host, n.addr)
		}
	}
}

func TestBehindAProxyTheHostOfTheURLIsJudged(t *testing.T) {
	p := policy(t, "inside.example")
	for host, allowed := range map[string]bool{
		"partner.example": true, "inside.example": true, "8.8.8.8": true, "2606:4700::1111": true,
		"10.1.2.3": true, "fd00::1": true, // plainly written by the operator
		"134744072": true, "8.8.2056": true, // 8.8.8.8
		"169.254.169.254": false, "fd00:ec2::254": false, "::ffff:169.254.169.254": false, "::ffff:10.0.0.1": false,
		"64:ff9b::a9fe:a9fe": false, "64:ff9b::a00:1": false, "0.0.0.0": false, "::": false, "fe80::1%eth0": false,
		"metadata.google.internal": false, "METADATA.google.internal.": false, "metadata": false,
		"1.2.3.4.5": true, "0x": false, "256.1": true, "08": true, "1.2.3.": true, "127.0.0.1.nip.io": true, // names, except for 0x
	} {
		if err := p.CheckProxied(host); (err == nil) != allowed {
			t.Errorf("%s: %v", host, err)
		}
	}
}

func TestTheProxyOfTheEnvironmentMayBePrivateButNeverMetadata(t *testing.T) {
	control := policy(t).ProxyControl()
	for addr, allowed := range map[string]bool{"127.0.0.1": true, "10.0.0.1": true, "8.8.8.8": true, "169.254.169.254": false, "0.0.0.0": false} {
		if err := control("tcp4", addr+":3128", nil); (err == nil) != allowed {
			t.Errorf("%s: %v", addr, err)
		}
	}
}

func TestOnlyTCPToAnAddressIsDialled(t *testing.T) {
	control := policy(t).Control("partner.example")
	for _, c := range [][2]string{{"udp4", "8.8.8.8:53"}, {"unix", "/run/x.sock"}, {"tcp4", "8.8.8.8"}, {"tcp4", "host:80"}, {"tcp4", ""}} {
		if err := control(c[0], c[1], nil); err == nil {
			t.Errorf("%s %q was allowed", c[0], c[1])
		}
	}
}

func TestWhatAllowMeans(t *testing.T) {
	p := policy(t, "10.20.0.0/16", "192.168.7.9", "[fd00::5]", "fd01::/64", "db.internal.example", "10.30.1.2/16")
	for addr, allowed := range map[string]bool{
		"10.20.0.1": true, "10.20.255.255": true, "10.21.0.1": false, "192.168.7.9": true, "192.168.7.8": false,
		"fd00::5": true, "fd00::6": false, "fd01::abcd": true, "10.30.200.1": true, "64:ff9b::10.20.0.1": true, "64:ff9b::10.21.0.1": false,
	} {
		if err := ask(p, "partner.example", addr); (err == nil) != allowed {
			t.Errorf("%s: %v", addr, err)
		}
	}
}

func TestAnEntryOfAllowWithoutEffectIsAnError(t *testing.T) {
	for entry, want := range map[string]string{
		"": "empty", "http://db.internal": "this is a URL", "*.internal": "wildcards", "10.0.0.0/33": "not a CIDR", "db/16": "not a CIDR",
		"db:5432": "neither", "a b": "neither", "db..internal": "neither", "-": "", "0x7f.1": "four decimal", "2130706433": "four decimal",
		"169.254.0.0/16": "never dialled", "169.254.169.254": "never dialled", "fe80::1%eth0": "zone", "fe80::/10": "never dialled",
		"224.0.0.0/8": "never dialled", "fd00:ec2::254": "never dialled", "::ffff:10.0.0.1": "plain form", "0.0.0.0": "never dialled",
	} {
		_, err := egress.New([]string{entry})
		if want == "" {
			if err != nil {
				t.Errorf("%q: %v", entry, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want an error with %q", entry, err, want)
		}
	}
}

func FuzzControl(f *testing.F) {
	f.Add("partner.example", "127.0.0.1")
	f.Add("0x7f.1", "::ffff:7f00:1")
	f.Add("::1", "64:ff9b::a9fe:a9fe")
	p, err := egress.New([]string{"10.20.0.0/16", "partner.example"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, host, addr string) {
		_ = p.CheckProxied(host)
		if _, err := egress.New([]string{host}); err != nil && err.Error() == "" {
			t.Error("an error without words")
		}
		a, parseErr := netip.ParseAddr(addr)
		err := p.Control(host)("tcp", net.JoinHostPort(addr, "80"), nil)
		if err != nil {
			return
		}
		if parseErr != nil {
			t.Fatalf("%q is no address and was allowed", addr)
		}
		if a.Zone() != "" || a.IsUnspecified() || a.IsLinkLocalUnicast() || a.IsMulticast() || a.Unmap().IsLinkLocalUnicast() {
			t.Fatalf("%s was allowed for %q", a, host)
		}
	})
}
