package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/testhost"
)

// issuer makes certificates that it signs, itself first.
type issuer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func (by *issuer) issue(t *testing.T, change func(*x509.Certificate)) (is *issuer, cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "one"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	if change != nil {
		change(template)
	}
	parent, signer := template, private
	if by.cert != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &private.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return &issuer{c, private}, block("CERTIFICATE", der), block("PRIVATE KEY", pkcs8)
}

func block(kind string, data []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data}))
}

// What is wrong with the files of a webhook is told by the place of the key that
// names them, and by what is wrong, before a delivery finds out.
func TestEachFaultOfACertificateIsExplained(t *testing.T) {
	root, ca, _ := (&issuer{}).issue(t, nil)
	_, leaf, leafKey := root.issue(t, nil)
	_, other, otherKey := root.issue(t, nil)
	past := time.Date(2024, 5, 6, 0, 0, 0, 0, time.UTC)
	expire := func(c *x509.Certificate) { c.NotBefore, c.NotAfter = past.AddDate(-1, 0, 0), past }
	_, expired, expiredKey := root.issue(t, expire)
	_, early, earlyKey := root.issue(t, func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().AddDate(1, 0, 0), time.Now().AddDate(2, 0, 0)
	})
	_, server, serverKey := root.issue(t, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })
	ecKey, err := x509.MarshalECPrivateKey(root.key)
	if err != nil {
		t.Fatal(err)
	}
	cut := func(s string) string { return s[:len(s)/2] + "!" + s[len(s)/2:] }
	const sev = SeverityWarning
	for _, c := range []struct {
		name           string
		ca, cert, key  string
		mode           os.FileMode // of the key; 0 = 0600
		severity, says string      // "" = nothing is wrong
		column         int
	}{
		{name: "an authority", ca: ca},
		{name: "two, one of them expired", ca: expired + ca},
		{name: "text around them", ca: "# ours\n" + ca + "and another\n" + other},
		{name: "a pair", cert: leaf, key: leafKey},
		{name: "a chain", cert: leaf + ca, key: leafKey},
		{name: "a key in SEC 1 form with its parameters", cert: ca, key: block("EC PARAMETERS", []byte{6, 1, 1}) + block("EC PRIVATE KEY", ecKey)},
		{name: "certificate and key in one file", cert: leaf + leafKey, key: leaf + leafKey},

		{name: "no authority", ca: "hunter2", severity: SeverityError, says: "no certificate in PEM form", column: 19},
		{name: "a key for an authority", ca: leafKey, severity: SeverityError, says: "no certificate in PEM form", column: 19},
		{name: "an authority of nonsense", ca: block("CERTIFICATE", []byte("hunter2")), severity: SeverityError, says: "certificate 1 of the file is damaged", column: 19},
		{name: "a damaged one among good ones", ca: ca + cut(leaf) + other, severity: SeverityError, says: "only 2 of the 3 certificates", column: 19},
		{name: "an expired authority", ca: expired, severity: sev, says: "certificate 1 of the file expired on 2024-05-06, so nothing is trusted", column: 19},

		{name: "another key", cert: leaf, key: otherKey, severity: SeverityError, says: "the key is not that of the certificate", column: 21},
		{name: "a chain upside down", cert: ca + leaf, key: leafKey, severity: SeverityError, says: "the key is that of certificate 2 of the file", column: 21},
		{name: "swapped", cert: leafKey, key: leaf, severity: SeverityError, says: "the file has no certificate in PEM form", column: 21},
		{name: "no key", cert: leaf, key: "hunter2", severity: SeverityError, says: "no private key in PEM form", column: 32},
		{name: "an encrypted key", cert: leaf, key: block("ENCRYPTED PRIVATE KEY", []byte("hunter2")), severity: SeverityError, says: "the key is encrypted", column: 32},
		{name: "an encrypted key of old", cert: leaf, key: string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY",
			Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-256-CBC,00"}, Bytes: []byte("hunter2")})), severity: SeverityError, says: "the key is encrypted", column: 32},
		{name: "a key of OpenSSH", cert: leaf, key: block("OPENSSH PRIVATE KEY", []byte("hunter2")), severity: SeverityError, says: "the form of OpenSSH", column: 32},
		{name: "a damaged key", cert: leaf, key: block("PRIVATE KEY", []byte("hunter2")), severity: SeverityError, says: "the key is damaged", column: 32},
		{name: "a key that everybody can read", cert: leaf, key: leafKey, mode: 0o644, severity: sev, says: "its mode is 0644", column: 32},
		{name: "a key that the group can read", cert: leaf, key: leafKey, mode: 0o640},
		{name: "an expired pair", cert: expired, key: expiredKey, severity: sev, says: "the client certificate expired on 2024-05-06", column: 21},
		{name: "a pair of the future", cert: early, key: earlyKey, severity: sev, says: "is not valid before", column: 21},
		{name: "a certificate of a server", cert: server, key: serverKey, severity: sev, says: "not for clients", column: 21},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := write(t, map[string]string{"ca": c.ca, "cert": c.cert, "config.yaml": base("        tls: {ca: ca}")})
			if c.ca == "" {
				writeFile(t, filepath.Join(dir, "config.yaml"), base("        tls: {cert: cert, key: key}"), 0o600)
			}
			writeFile(t, filepath.Join(dir, "key"), c.key, max(c.mode, 0o600))
			got, r := Load(options(filepath.Join(dir, "config.yaml")))
			if strings.Contains(outputs(t, r), planted) {
				t.Errorf("what a file holds is printed:\n%s", outputs(t, r))
			}
			if c.says == "" {
				if len(r.Findings) != 0 {
					t.Errorf("\n%s", text1(t, r))
				}
				return
			}
			if len(r.Findings) != 1 || r.Findings[0].Severity != c.severity || !strings.Contains(r.Findings[0].Message, c.says) || r.Findings[0].Line != 7 || r.Findings[0].Column != c.column {
				t.Errorf("want %s at 7:%d with %q, got:\n%s", c.severity, c.column, c.says, text1(t, r))
			}
			if (got != nil) != (c.severity == sev) {
				t.Errorf("accepted %v with a finding of severity %s", got != nil, c.severity)
			}
		})
	}
}

func TestAKeyThatTheDaemonMayNotReadIsAnError(t *testing.T) {
	if testhost.AsUser(t) {
		return
	}
	_, cert, key := (&issuer{}).issue(t, nil)
	dir := write(t, map[string]string{"cert": cert, "config.yaml": base("        tls: {cert: cert, key: key}")})
	writeFile(t, filepath.Join(dir, "key"), key, 0o000)
	if _, r := Load(options(filepath.Join(dir, "config.yaml"))); len(r.Findings) != 1 || r.Findings[0].Column != 32 || !strings.Contains(r.Findings[0].Message, "permission denied") {
		t.Errorf("\n%s", text1(t, r))
	}
}

// Only the word true, by the key of that name, and never without a warning.
func TestVerificationIsSkippedByOneWordOnly(t *testing.T) {
	for _, c := range []struct {
		tls  string
		skip bool
		code string
	}{
		{"{}", false, ""},
		{"{insecure_skip_verify: false}", false, ""},
		{"{insecure_skip_verify: true}", true, codeUnverified},
		{"{insecure_skip_verify: '${env:WORD}'}", false, codeWrongType},
		{"{insecure_skip_verify: yes}", false, codeWrongType},
		{"{insecure_skip_verify: 1}", false, codeWrongType},
		{"{insecure: true}", false, codeUnknownKey},
		{"{skip_verify: true}", false, codeUnknownKey},
		{"{verify: false}", false, codeUnknownKey},
		{"{InsecureSkipVerify: true}", false, codeUnknownKey},
	} {
		cfg, r := loadText(t, base("        tls: "+c.tls))
		if got := strings.Join(codes(r), " "); got != c.code || cfg != nil && cfg.Webhooks()[0].TLS.InsecureSkipVerify != c.skip {
			t.Errorf("%s: %s, want %s\n%s", c.tls, got, c.code, text1(t, r))
		}
		if strings.Contains(outputs(t, r), planted) {
			t.Errorf("%s: a value is printed", c.tls)
		}
	}
	dir := write(t, map[string]string{"peanuts-sink-mine": "#!/bin/sh\n"})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "peanuts-sink-mine"), 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "config.yaml")
	writeFile(t, path, base()+webhookWith("sink: mine, tls: {insecure_skip_verify: true}", dir)+"\n", 0o600)
	if cfg, r := Load(Options{Path: path, LookupEnv: environment(nil)}); cfg != nil || !strings.Contains(text1(t, r), "tls is for the http sink") {
		t.Errorf("a plugin's webhook: accepted %v\n%s", cfg != nil, text1(t, r))
	}
}
