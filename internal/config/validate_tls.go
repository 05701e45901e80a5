package config

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/secret"
)

// maxTLSBytes bounds a PEM file; a bundle of every public authority has 250 KB.
const maxTLSBytes = 4 << 20

// validateTLS makes the paths absolute and keeps what they name.
func (l *loader) validateTLS(w *WebhookKeys, path []string) {
	t := &w.TLS
	if t.CA == "" && t.Cert == "" && t.Key == "" && !t.InsecureSkipVerify {
		return
	}
	if strings.HasPrefix(w.URL.Reveal(), "http://") {
		l.problem(path, Finding{Code: codeMisplacedKey, Message: "the url is plain http, so there is no TLS"})
		return
	}
	if t.InsecureSkipVerify {
		l.problem(under(path, "insecure_skip_verify"), Finding{Severity: SeverityWarning, Code: codeUnverified,
			Message:    "the receiver's certificate is not verified: whoever is on the way can pass for the receiver, and read the url, the headers and the entries",
			Suggestion: "remove the key, and name the receiver's authority in tls.ca if it is not a public one"})
	}
	if !filepath.IsAbs(l.main) {
		l.problem(path, Finding{Code: codeBadTLS, Message: "the working directory cannot be determined"})
		return
	}
	if ca, ok := l.readPEM(&t.CA, under(path, "ca")); ok {
		t.CAPEM = ca.data
		l.validateAuthorities(ca.data, under(path, "ca"))
	}
	cert, certOK := l.readPEM(&t.Cert, under(path, "cert"))
	key, keyOK := l.readPEM(&t.Key, under(path, "key"))
	switch {
	case (t.Cert == "") != (t.Key == ""):
		l.problem(path, Finding{Code: codeMissingKey, Message: "cert and key belong together"})
	case certOK && keyOK:
		l.validatePair(cert, key, path)
		t.CertPEM, t.KeyPEM = cert.data, secret.New(string(key.data))
	}
}

// readPEM reads the file that a key names; ok is false without one.
func (l *loader) readPEM(file *string, path []string) (f refFile, ok bool) {
	if *file == "" {
		return f, false
	}
	if !filepath.IsAbs(*file) {
		*file = filepath.Join(filepath.Dir(l.main), *file)
	}
	f = l.refs.read(filepath.Clean(*file))
	if f.err != nil {
		l.problem(path, Finding{Code: codeBadTLS, Message: "the file cannot be used: " + reason(f.err)})
	}
	return f, f.err == nil
}

// certificates are those of a PEM file, in its order. What is wrong is a part of a
// sentence, "" for nothing: it quotes nothing of the file, which may be a key.
func certificates(data []byte) (list []*x509.Certificate, wrong string) {
	// Decode passes over what it cannot read.
	begun := bytes.Count(data, []byte("-----BEGIN CERTIFICATE-----"))
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Sprintf("certificate %d of the file is damaged", len(list)+1)
		}
		list = append(list, c)
	}
	switch {
	case begun == 0 || len(list) == 0:
		return nil, "the file has no certificate in PEM form"
	case len(list) != begun:
		return nil, fmt.Sprintf("only %d of the %d certificates of the file can be read", len(list), begun)
	}
	return list, ""
}

// validateAuthorities is stricter than crypto/tls, which passes over what it
// cannot read: then the one that is missing is noticed by failing deliveries.
func (l *loader) validateAuthorities(data []byte, path []string) {
	list, wrong := certificates(data)
	if wrong != "" {
		l.problem(path, Finding{Code: codeBadTLS, Message: wrong})
		return
	}
	if slices.ContainsFunc(list, func(c *x509.Certificate) bool { return period(c) == "" }) {
		return
	}
	l.problem(path, Finding{Severity: SeverityWarning, Code: codeBadTLS, Message: fmt.Sprintf("certificate 1 of the file %s, so nothing is trusted", period(list[0]))})
}

// period says that a certificate is not valid now, "" when it is.
func period(c *x509.Certificate) string {
	switch now := time.Now(); {
	case now.After(c.NotAfter):
		return "expired on " + c.NotAfter.UTC().Format(time.DateOnly)
	case now.Before(c.NotBefore):
		return "is not valid before " + c.NotBefore.UTC().Format(time.DateOnly)
	}
	return ""
}

// validatePair checks the client certificate with its key. An expired one is
// only warned of: it must not keep a daemon with other webhooks from starting.
func (l *loader) validatePair(cert, key refFile, path []string) {
	if key.mode&0o007 != 0 {
		l.problem(under(path, "key"), Finding{Severity: SeverityWarning, Code: codeOpenKey, Message: "the key's file is open to every user: its mode is " + modeText(key.mode), Suggestion: "chmod o= the file"})
	}
	list, wrong := certificates(cert.data)
	if wrong != "" {
		l.problem(under(path, "cert"), Finding{Code: codeBadTLS, Message: wrong})
		return
	}
	if wrong, suggestion := badKey(key.data); wrong != "" {
		l.problem(under(path, "key"), Finding{Code: codeBadTLS, Message: wrong, Suggestion: suggestion})
		return
	}
	if _, err := tls.X509KeyPair(cert.data, key.data); err != nil {
		l.problem(under(path, "cert"), mismatch(list, key.data))
		return
	}
	if p := period(list[0]); p != "" {
		l.problem(under(path, "cert"), Finding{Severity: SeverityWarning, Code: codeBadTLS, Message: "the client certificate " + p + ", so receivers will refuse it"})
	}
	if usage := list[0].ExtKeyUsage; len(usage) > 0 && !slices.Contains(usage, x509.ExtKeyUsageClientAuth) && !slices.Contains(usage, x509.ExtKeyUsageAny) {
		l.problem(under(path, "cert"), Finding{Severity: SeverityWarning, Code: codeBadTLS, Message: "the certificate is not for clients (its extended key usage), so receivers will refuse it"})
	}
}

func modeText(mode fs.FileMode) string { return fmt.Sprintf("%04o", mode.Perm()) }

// badKey says why a file holds no key that can be used; both are "" when it does.
func badKey(data []byte) (wrong, suggestion string) {
	for rest := data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return "the file has no private key in PEM form", ""
		}
		switch {
		case block.Type == "ENCRYPTED PRIVATE KEY", strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED"):
			return "the key is encrypted, and nobody is there to type its password", "decrypt it: openssl pkey -in FILE -out FILE.new; keep it readable for the daemon's user only"
		case block.Type == "OPENSSH PRIVATE KEY":
			return "the key has the form of OpenSSH", "make one with: openssl genpkey -algorithm ED25519"
		case block.Type != "PRIVATE KEY" && !strings.HasSuffix(block.Type, " PRIVATE KEY"):
			continue
		case private(block.Bytes) == nil:
			return "the key is damaged, or of a kind that TLS cannot use", ""
		}
		return "", ""
	}
}

// private reads a key in one of the forms that crypto/tls takes.
func private(der []byte) crypto.Signer {
	if key, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		signer, _ := key.(crypto.Signer)
		return signer
	}
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return key
	}
	if key, err := x509.ParseECPrivateKey(der); err == nil {
		return key
	}
	return nil
}

// mismatch finds out which certificate a key belongs to.
func mismatch(list []*x509.Certificate, keyPEM []byte) Finding {
	f := Finding{Code: codeBadTLS, Message: "the key is not that of the certificate", Suggestion: "when both are replaced, a moment between them looks like this too"}
	for i, c := range list[1:] {
		var block *pem.Block
		for rest := keyPEM; ; {
			if block, rest = pem.Decode(rest); block == nil {
				break
			}
			if signer := private(block.Bytes); signer != nil && samePublic(signer.Public(), c.PublicKey) {
				f.Message = fmt.Sprintf("the key is that of certificate %d of the file", i+2)
				f.Suggestion = "the client's own certificate comes first, then the one that issued it, and so on"
				return f
			}
		}
	}
	return f
}

func samePublic(a, b any) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}
