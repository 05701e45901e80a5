package httpsink

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
)

// A proxy that is spoken to by TLS is the environment's, not the webhook's: it is
// verified whatever the webhook says, and gets no certificate of the webhook's.
func TestAProxyOverTLSIsVerifiedWhateverTheWebhookSays(t *testing.T) {
	ca := newAuthority(t)
	cert, key := ca.client(t)
	for name, change := range map[string]func(*Options){
		"trusted by the webhook":        func(o *Options) { o.TLS.CAPEM = ca.pem() },
		"verification is skipped":       func(o *Options) { o.TLS.InsecureSkipVerify = true },
		"the webhook has a certificate": func(o *Options) { o.TLS.CertPEM, o.TLS.KeyPEM, o.TLS.InsecureSkipVerify = cert, key, true },
	} {
		t.Run(name, func(t *testing.T) {
			addr := tlsServer(t, serverConfig(ca.issue(t, nil)))
			for _, target := range []string{"http://partner.example/hook", "https://partner.example/hook"} {
				s := newSink(t, target, func(o *Options) {
					o.Proxy = http.ProxyURL(&url.URL{Scheme: "https", Host: addr})
					change(o)
				})
				if a := deliver(t, s, outbound()); a.Outcome != delivery.Retry || a.Code != delivery.CodeProxy ||
					!strings.Contains(a.Error, "no connection to the proxy: the certificate is of an authority that this system does not trust; add") {
					t.Errorf("%s: %v %q %q", target, a.Outcome, a.Code, a.Error)
				}
			}
		})
	}
}

// The system's authorities are read once in a process, so this needs its own.
func TestAProxyOverTLSCarriesRequestsAndSeesNoCertificateOfOurs(t *testing.T) {
	const marker = "HTTPSINK_TEST_TLS_PROXY"
	if os.Getenv(marker) == "" {
		cmd := exec.Command(os.Args[0], "-test.v", "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), marker+"=1")
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS") {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	system, own := newAuthority(t), newAuthority(t)
	file := filepath.Join(t.TempDir(), "roots.pem")
	if err := os.WriteFile(file, system.pem(), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSL_CERT_FILE", file)
	cert, key := own.client(t)
	asks := serverConfig(system.issue(t, nil))
	asks.ClientAuth = tls.RequestClientCert
	partner := clientAuth(t, own, tls.VersionTLS13)
	addr := rawServer(t, func(c net.Conn, _ int) {
		tc := tls.Server(c, asks)
		r, _, err := readRequest(tc)
		if err != nil {
			return
		}
		if n := len(tc.ConnectionState().PeerCertificates); n > 0 {
			t.Errorf("the proxy was shown %d certificates", n)
		}
		if r.Method != http.MethodConnect {
			_, _ = io.WriteString(tc, ok200+"Content-Length: 0\r\n\r\n")
			return
		}
		if _, err := io.WriteString(tc, ok200+"\r\n"); err == nil {
			answersWell(tls.Server(tc, partner))
		}
	})
	for _, target := range []string{"http://partner.example/hook", "https://partner.example/hook"} {
		s := newSink(t, target, func(o *Options) {
			o.Proxy = http.ProxyURL(&url.URL{Scheme: "https", Host: addr})
			o.TLS = TLS{CAPEM: own.pem(), CertPEM: cert, KeyPEM: key}
		})
		if a := deliver(t, s, outbound()); a.Outcome != delivery.Delivered {
			t.Errorf("%s: %v %q %q", target, a.Outcome, a.Code, a.Error)
		}
	}
}
