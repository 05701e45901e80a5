package httpsink

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"flag"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/secret"
	"github.com/peanutsapp/peanuts-relay/internal/signing"
	"github.com/peanutsapp/peanuts-relay/sinks"
)

// programName is the test binary's as a plugin.
const programName = "peanuts-sink-http"

func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == programName {
		sinks.Serve(Plugin())
	}
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil { // what runs at the same time waits, mostly
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

const (
	testSecret  = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	testPayload = `{"event":"entry.created","entry":{"id":"e-1","data":{"amount":42.5}}}`
)

func testSigner(t testing.TB, specs ...signing.Spec) *signing.Signer {
	t.Helper()
	if specs == nil {
		specs = []signing.Spec{{Scheme: signing.Peanuts}}
	}
	s, err := signing.New(specs, []secret.String{secret.New(testSecret)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// newSink makes a sink for url without a proxy; change may be nil.
func newSink(t testing.TB, url string, change func(*Options)) *Sink {
	t.Helper()
	o := Options{URL: secret.New(url), Signer: testSigner(t), Timeout: 30 * time.Second, Concurrency: 2, Proxy: http.ProxyURL(nil)}
	if change != nil {
		change(&o)
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func outbound() *delivery.Outbound {
	return &delivery.Outbound{DeliveryID: "del_1", EventID: "evt_1", EventType: "entry.created", EntryID: "e-1",
		Webhook: "expenses.backend", Attempt: 1, Payload: []byte(testPayload)}
}

func deliver(t testing.TB, s *Sink, o *delivery.Outbound) delivery.Attempt {
	t.Helper()
	var a delivery.Attempt
	s.Deliver(t.Context(), o, &a)
	if a.Outcome == 0 {
		t.Error("no outcome")
	}
	if a.Outcome != delivery.Delivered && (a.Code == "" || a.Error == "") {
		t.Errorf("outcome %v without a code and a sentence: %q %q", a.Outcome, a.Code, a.Error)
	}
	return a
}

// rawServer speaks whatever handle writes; number counts the connections from
// 0. Connections are closed when handle returns and at the end of the test.
func rawServer(t testing.TB, handle func(c net.Conn, number int)) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	open := make(map[net.Conn]bool)
	wg.Go(func() {
		for number := 0; ; number++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[c] = true
			mu.Unlock()
			wg.Go(func() {
				defer c.Close()
				handle(c, number)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for c := range open {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return l.Addr().String()
}

// readRequest reads one request with its body.
func readRequest(c io.Reader) (*http.Request, []byte, error) {
	br, ok := c.(*bufio.Reader)
	if !ok {
		br = bufio.NewReader(c)
	}
	r, err := http.ReadRequest(br)
	if err != nil {
		return nil, nil, err
	}
	body, err := io.ReadAll(r.Body)
	return r, body, err
}

// untilClosed waits for the other end.
func untilClosed(c net.Conn) { _, _ = io.Copy(io.Discard, c) }

func reset(c net.Conn) {
	if tc, ok := c.(*tls.Conn); ok {
		c = tc.NetConn()
	}
	if tc, ok := c.(*net.TCPConn); ok {
		_ = tc.SetLinger(0)
	}
	c.Close()
}

// authority issues certificates for tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().AddDate(-3, 0, 0), NotAfter: time.Now().AddDate(3, 0, 0)}
	a := &authority{key: newKey(t)}
	a.cert = certify(t, tmpl, tmpl, a.key, a.key)
	return a
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func certify(t testing.TB, tmpl, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// issue makes a certificate for 127.0.0.1 and partner.example; change may alter the template.
func (a *authority) issue(t testing.TB, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "receiver"}, NotBefore: time.Now().AddDate(-2, 0, 0),
		NotAfter: time.Now().AddDate(2, 0, 0), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"partner.example"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	if change != nil {
		change(tmpl)
	}
	key := newKey(t)
	return tls.Certificate{Certificate: [][]byte{certify(t, tmpl, a.cert, key, a.key).Raw}, PrivateKey: key}
}

// client makes a certificate and its key in PEM form.
func (a *authority) client(t testing.TB) (cert []byte, key secret.String) {
	t.Helper()
	pair := a.issue(t, nil)
	der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return inPEM("CERTIFICATE", pair.Certificate[0]), secret.New(string(inPEM("PRIVATE KEY", der)))
}

func (a *authority) pem() []byte { return inPEM("CERTIFICATE", a.cert.Raw) }

func inPEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
