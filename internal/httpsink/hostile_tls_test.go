package httpsink

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
)

// shakes makes a receiver that is good but for its handshake.
func shakes(config *tls.Config) func(net.Conn, int) {
	return func(c net.Conn, _ int) { answersWell(tls.Server(c, config)) }
}

// tlsServer shakes hands with config and answers every request with 200.
func tlsServer(t *testing.T, config *tls.Config) string { return rawServer(t, shakes(config)) }

// handshakes are receivers whose certificate or version is wrong; all are trusted
// but for what their name says.
func handshakes(t *testing.T, ca *authority) []hostile {
	expired := time.Date(2025, 1, 1, 12, 0, 0, 0, time.UTC)
	future := time.Now().AddDate(1, 0, 0)
	with := func(change func(*x509.Certificate)) func(net.Conn, int) {
		return shakes(serverConfig(ca.issue(t, change)))
	}
	versions := func(v uint16, ciphers ...uint16) func(net.Conn, int) {
		c := tlsVersion(ca.issue(t, nil), v)
		c.CipherSuites = ciphers
		return shakes(c)
	}
	good := serverConfig(ca.issue(t, nil))
	stapled := ca.issue(t, nil)
	stapled.OCSPStaple = []byte("nonsense")
	chain := func(n int) func(net.Conn, int) {
		cert := ca.issue(t, nil)
		for range n {
			cert.Certificate = append(cert.Certificate, ca.cert.Raw)
		}
		return shakes(serverConfig(cert))
	}
	return []hostile{
		{name: "expired", says: "certificate expired on 2025-01-01", serve: with(func(c *x509.Certificate) { c.NotBefore, c.NotAfter = expired.AddDate(-1, 0, 0), expired })},
		{name: "not yet valid", says: "not valid before " + future.UTC().Format(time.DateOnly), serve: with(func(c *x509.Certificate) { c.NotBefore = future })},
		{name: "wrong name", says: "is for other.example, not for 127.0.0.1", serve: with(func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, []string{"other.example"} })},
		{name: "no name", says: "names no host", serve: with(func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, nil })},
		{name: "its name as the common name only", says: "names no host", serve: with(func(c *x509.Certificate) {
			c.IPAddresses, c.DNSNames, c.Subject.CommonName = nil, nil, "127.0.0.1"
		})},
		{name: "a wildcard for everything", says: "not for 127.0.0.1", serve: with(func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, []string{"*", "*.0.0.1"} })},
		{name: "for clients only", says: "not valid", serve: with(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })},
		{name: "a critical extension that nobody knows", says: "unhandled critical extension", serve: with(func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}}}
		})},
		{name: "unknown authority", says: "does not trust; name the authority in tls.ca", serve: shakes(serverConfig(newAuthority(t).issue(t, nil)))},
		{name: "self-signed", says: "self-signed", serve: shakes(serverConfig(selfSigned(t)))},
		{name: "issued by one that may not", says: "", serve: shakes(serverConfig(issuedByALeaf(t, ca)))},
		{name: "TLS 1.0", says: "TLS", serve: versions(tls.VersionTLS10)},
		{name: "TLS 1.1", says: "TLS", serve: versions(tls.VersionTLS11)},
		{name: "TLS 1.2 with RC4", says: "TLS", serve: versions(tls.VersionTLS12, tls.TLS_ECDHE_ECDSA_WITH_RC4_128_SHA)},
		{name: "a chain of 400 KB", says: "TLS", serve: chain(1000)},
		// TLS 1.3 tells after the handshake, and the reset that follows can
		// overtake it.
		{name: "wants a client certificate", or: delivery.CodeConnection, serve: shakes(clientAuth(t, ca, tls.VersionTLS13))},
		{name: "wants a client certificate, TLS 1.2", says: "refused the TLS connection", serve: shakes(clientAuth(t, ca, tls.VersionTLS12))},
		{name: "plain HTTP on a TLS port", says: "speaks plain HTTP", serve: speaks("HTTP/1.1 400 Bad Request\r\n\r\n")},
		{name: "nonsense on a TLS port", says: "does not speak TLS", serve: speaks("SSH-2.0-OpenSSH_9.2\r\n")},
		{name: "SSL 2", says: "does not speak TLS", serve: speaks("\x80\x2e\x04\x00\x01\x00\x02\x00\x13\x00\x03\x00\x10" + string(bytes.Repeat([]byte{7}, 40)))},
		{name: "SSL 3", says: "TLS", serve: speaks(record(22, 0x0300, "\x02\x00\x00\x26\x03\x00"+string(make([]byte, 36))))},
		{name: "an alert", says: "refused the TLS connection: handshake failure", serve: speaks(record(21, 0x0303, "\x02\x28"))},
		{name: "an alert that nobody knows", says: "refused the TLS connection", serve: speaks(record(21, 0x0303, "\x02\xfe"))},
		{name: "warnings without end", says: "TLS", serve: speaks(string(bytes.Repeat([]byte(record(21, 0x0303, "\x01\x5a")), 10_000)))},
		{name: "a record of another type", says: "TLS", serve: speaks(record(99, 0x0303, "hello"))},
		{name: "a record that is too long", says: "TLS", serve: speaks("\x16\x03\x03\xff\xff" + string(make([]byte, 1<<16)))},
		{name: "a message of 16 MB", says: "TLS", serve: speaks(string(bytes.Repeat([]byte(record(22, 0x0303, "\x02\xff\xff\xff"+string(make([]byte, 16000)))), 1000)))},
		{name: "empty records without end", says: "TLS", serve: speaks(string(bytes.Repeat([]byte(record(22, 0x0303, "")), 10_000)))},
		{name: "silent handshake", code: delivery.CodeTimeout, says: "in the TLS handshake with 127.0.0.1:", serve: func(c net.Conn, _ int) { untilClosed(c) }},
		{name: "half a record and silence", code: delivery.CodeTimeout, says: "in the TLS handshake with 127.0.0.1:", serve: speaks("\x16\x03\x03\x00\x7a\x02\x00")},
		{name: "a handshake that drips", code: delivery.CodeTimeout, says: "in the TLS handshake with 127.0.0.1:", serve: dripsHandshake},
		{name: "silent after the handshake", code: delivery.CodeTimeout, says: "waiting for the response of 127.0.0.1:", serve: func(c net.Conn, _ int) {
			tc := tls.Server(c, good)
			if tc.Handshake() == nil {
				untilClosed(c)
			}
		}},
		{name: "reset in the handshake", says: "closed during the TLS handshake", serve: func(c net.Conn, _ int) {
			_, _ = c.Read(make([]byte, 100))
			reset(c)
		}},
		{name: "closed in the handshake", says: "closed during the TLS handshake", serve: func(c net.Conn, _ int) { _, _ = c.Read(make([]byte, 4096)) }},
		{name: "cut off in a record of the answer", outcome: delivery.Delivered, serve: func(c net.Conn, _ int) {
			tc := tls.Server(c, good)
			if _, _, err := readRequest(tc); err == nil {
				_, _ = io.WriteString(tc, ok200+"Content-Length: 100\r\n\r\nabc")
				_, _ = io.WriteString(c, "\x17\x03\x03\x40\x00half")
				c.Close()
			}
		}},
		{name: "a record that was tampered with", or: delivery.CodeConnection, says: "TLS", serve: func(c net.Conn, _ int) {
			tc := tls.Server(c, good)
			if _, _, err := readRequest(tc); err == nil {
				_, _ = io.WriteString(c, record(23, 0x0303, string(make([]byte, 64))))
				untilClosed(c)
			}
		}},
		// Nothing is asked about revocation: what comes unasked changes nothing.
		{name: "a stapled status of nonsense", outcome: delivery.Delivered, serve: shakes(serverConfig(stapled))},
	}
}

// speaks reads something, says something and waits.
func speaks(answer string) func(net.Conn, int) {
	return func(c net.Conn, _ int) {
		_, _ = c.Read(make([]byte, 100))
		_, _ = io.WriteString(c, answer)
		untilClosed(c)
	}
}

// record is a record of TLS.
func record(kind byte, version uint16, text string) string {
	return string([]byte{kind, byte(version >> 8), byte(version), byte(len(text) >> 8), byte(len(text))}) + text
}

// dripsHandshake sends a ServerHello without end, a byte at a time.
func dripsHandshake(c net.Conn, _ int) {
	_, _ = c.Read(make([]byte, 100))
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for _, err := io.WriteString(c, "\x16\x03\x03\x30\x00\x02\x00\x2f\xfc\x03\x03"); err == nil; _, err = io.WriteString(c, "x") {
		<-tick.C
	}
}

func TestHostileTLS(t *testing.T) {
	ca := newAuthority(t)
	cases := handshakes(t, ca)
	for i := range cases {
		if h := &cases[i]; h.outcome == 0 {
			h.outcome = delivery.Retry
			if h.code == "" {
				h.code = delivery.CodeTLS
			}
		}
	}
	good := serverConfig(ca.issue(t, nil))
	answers := func(c net.Conn) { answersWell(tls.Server(c, good)) }
	played := 0
	for _, m := range []mode{
		{name: "direct", url: func(addr string) string { return "https://" + addr + "/hook" }, good: answers, exact: true, alone: true,
			set: func(_ *testing.T, o *Options, _ string) { o.TLS.CAPEM = ca.pem() }},
		{name: "through a tunnel", url: func(string) string { return "https://partner.example/hook" }, good: answers,
			set: func(t *testing.T, o *Options, addr string) {
				tunnel, _ := forwardProxy(t, addr, http.StatusOK)
				o.TLS.CAPEM, o.Proxy = ca.pem(), http.ProxyURL(&url.URL{Scheme: "http", Host: tunnel})
			}},
	} {
		played += m.play(t, cases)
	}
	t.Run("TLS on a plain port", func(t *testing.T) {
		m := mode{url: func(addr string) string { return "http://" + addr + "/hook" }, good: answersWell, exact: true, alone: true}
		m.meet(t, &hostile{outcome: delivery.Retry, code: delivery.CodeConnection, says: "by 127.0.0.1:", serve: shakes(good)})
	})
	t.Attr("cases", strconv.Itoa(played+1))
}

// The control of the table above: with insecure_skip_verify each certificate of it is
// taken, and the attempt says so. Versions and nonsense are refused all the same.
func TestWhatVerificationRefusesIsTakenWithoutIt(t *testing.T) {
	ca := newAuthority(t)
	writer := log.Writer()
	log.SetOutput(io.Discard)
	t.Cleanup(func() { log.SetOutput(writer) })
	taken := map[string]bool{"expired": true, "not yet valid": true, "wrong name": true, "no name": true, "its name as the common name only": true, "a wildcard for everything": true,
		"for clients only": true, "a critical extension that nobody knows": true, "unknown authority": true, "self-signed": true, "issued by one that may not": true,
		"TLS 1.0": false, "TLS 1.1": false, "TLS 1.2 with RC4": false, "wants a client certificate, TLS 1.2": false, "plain HTTP on a TLS port": false, "SSL 3": false}
	seen := 0
	for _, h := range handshakes(t, ca) {
		want, listed := taken[h.name]
		if !listed {
			continue
		}
		seen++
		t.Run(h.name, func(t *testing.T) {
			s := newSink(t, "https://"+rawServer(t, h.serve)+"/hook", func(o *Options) { o.TLS.InsecureSkipVerify = true })
			a := deliver(t, s, outbound())
			if (a.Outcome == delivery.Delivered) != want || a.Message != delivery.UnverifiedMessage {
				t.Errorf("%v %q %q, message %q", a.Outcome, a.Code, a.Error, a.Message)
			}
		})
	}
	if seen != len(taken) {
		t.Errorf("%d of %d cases were found", seen, len(taken))
	}
	plain := newSink(t, "http://"+rawServer(t, func(c net.Conn, _ int) { answersWell(c) })+"/hook", func(o *Options) { o.TLS.InsecureSkipVerify = true })
	if a := deliver(t, plain, outbound()); a.Message != "" {
		t.Errorf("plain HTTP says %q", a.Message)
	}
}

func serverConfig(cert tls.Certificate) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{cert}}
}

func tlsVersion(cert tls.Certificate, v uint16) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS10, MaxVersion: v}
}

func clientAuth(t *testing.T, ca *authority, version uint16) *tls.Config {
	c := tlsVersion(ca.issue(t, nil), version)
	c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
	c.ClientCAs.AddCert(ca.cert)
	return c
}

func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key := newKey(t)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(3), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	return tls.Certificate{Certificate: [][]byte{certify(t, tmpl, tmpl, key, key).Raw}, PrivateKey: key}
}

// issuedByALeaf is a certificate whose issuer is trusted, but no authority.
func issuedByALeaf(t *testing.T, ca *authority) tls.Certificate {
	t.Helper()
	leaf := ca.issue(t, nil)
	cert, err := x509.ParseCertificate(leaf.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	forger := &authority{cert: cert, key: leaf.PrivateKey.(*ecdsa.PrivateKey)}
	forged := forger.issue(t, nil)
	forged.Certificate = append(forged.Certificate, leaf.Certificate[0])
	return forged
}
