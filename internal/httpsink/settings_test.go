package httpsink

import (
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/egress"
	"github.com/peanutsapp/peanuts-relay/internal/secret"
	"github.com/peanutsapp/peanuts-relay/internal/signing"
)

func TestNewRefusesWhatCannotBeSent(t *testing.T) {
	header := func(name, value string) func(*Options) {
		return func(o *Options) { o.Headers = []Header{{name, secret.New(value)}} }
	}
	withURL := func(u string) func(*Options) { return func(o *Options) { o.URL = secret.New(u) } }
	const planted = "planted-secret"
	for name, c := range map[string]struct {
		change func(*Options)
		want   string
	}{
		"no url":        {withURL(""), "url is missing"},
		"no scheme":     {withURL("partner.example/" + planted), "must start with http"},
		"other scheme":  {withURL("ftp://partner.example/" + planted), "must start with http"},
		"no host":       {withURL("https:///" + planted), "no host"},
		"bad escape":    {withURL("https://partner.example/%zz" + planted), "cannot be parsed"},
		"bad port":      {withURL("https://partner.example:99999/" + planted), "port outside"},
		"port of words": {withURL("https://partner.example:" + planted), "cannot be parsed"},
		"host header":   {header("host", "x"), "belongs to the connection"},
		"length":        {header("Content-Length", "1"), "belongs to the connection"},
		"encoding":      {header("transfer-encoding", "chunked"), "belongs to the connection"},
		"connection":    {header("CONNECTION", "close"), "belongs to the connection"},
		"expect":        {header("Expect", "100-continue"), "belongs to the connection"},
		"ours":          {header("x-peanuts-anything", "x"), "sets it itself"},
		"standard's":    {header("Webhook-Id", "x"), "sets it itself"},
		"the signature": {func(o *Options) {
			o.Signer = testSigner(t, signing.Spec{Scheme: signing.Hex, Header: "X-Sig"})
			header("x-sig", "x")(o)
		}, "sets it itself"},
		"empty name":     {header("", "x"), "not a valid header name"},
		"name with a :":  {header("X-A:", "x"), "not a valid header name"},
		"line break":     {header("X-A", planted+"\nX-B: c"), "control character"},
		"twice":          {func(o *Options) { o.Headers = []Header{{"X-A", secret.New("1")}, {"x-a", secret.New("2")}} }, "there twice"},
		"cert alone":     {func(o *Options) { o.TLS.CertPEM = []byte(planted) }, "come together"},
		"key alone":      {func(o *Options) { o.TLS.KeyPEM = secret.New(planted) }, "come together"},
		"no cert":        {func(o *Options) { o.TLS.CertPEM, o.TLS.KeyPEM = []byte(planted), secret.New(planted) }, "tls.cert"},
		"ca of nonsense": {func(o *Options) { o.TLS.CAPEM = inPEM("NONSENSE", []byte(planted)) }, "holds no PEM certificate"},
		"bad proxy": {func(o *Options) {
			o.Proxy = func(*http.Request) (*url.URL, error) { return nil, fmt.Errorf("invalid proxy address %q", planted) }
		}, "the proxy that the environment names"},
	} {
		t.Run(name, func(t *testing.T) {
			o := Options{URL: secret.New("https://partner.example/hook"), Signer: testSigner(t), Proxy: http.ProxyURL(nil)}
			c.change(&o)
			_, err := New(o)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("%v, want an error with %q", err, c.want)
			}
			if strings.Contains(err.Error(), planted) {
				t.Errorf("the error shows a secret: %v", err)
			}
		})
	}
}

func TestWhatIsShownOfARequest(t *testing.T) {
	for _, c := range []struct {
		url  secret.String
		want string
	}{
		{secret.New("https://partner.example/a/b?c=d"), "https://partner.example/********"},
		{secret.New("https://partner.example:8443"), "https://partner.example:8443"},
		{secret.New("https://partner.example/"), "https://partner.example"},
		{secret.New("https://user:pw@partner.example/"), "https://partner.example/********"},
		{secret.FromReference("https://partner.example/s3cret", "${env:URL}"), "${env:URL}"},
	} {
		s := newSink(t, "http://unused.example", func(o *Options) {
			o.URL, o.UserAgent = c.url, "mine/2"
			o.Headers = []Header{{"Authorization", secret.FromReference("Bearer abc", "Bearer ${env:TOKEN}")}, {"X-Env", secret.New("prod")}}
		})
		want := fmt.Sprint(delivery.Request{Method: "POST", URL: c.want, Headers: []delivery.Header{
			{Name: "User-Agent", Value: "mine/2"}, {Name: "Authorization", Value: "Bearer ${env:TOKEN}"}, {Name: "X-Env", Value: secret.Mask}}})
		if got := fmt.Sprint(*s.shown); got != want {
			t.Errorf("\n got %s\nwant %s", got, want)
		}
	}
}

// A receiver that sends back all that it got, in several forms, and in the
// places that are kept.
func TestNothingKeptShowsASecret(t *testing.T) {
	planted := []string{testSecret, strings.TrimPrefix(testSecret, "whsec_"), "t0ken/with \"quotes\" & more", "path-s3cret-part", "query-s3cret", "us3r-name-long", "passw0rd"}
	for _, status := range []int{200, 400, 500} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Echo", strings.Join(planted, " ")+r.URL.RequestURI())
			w.WriteHeader(status)
			pad := 0
			if status == 200 {
				pad = keepSuccess - 20 // so that the cut goes through a secret
			} else {
				pad = keepFailure - 200
			}
			for _, p := range planted {
				fmt.Fprintf(w, "%s %q %s %s %s ", p, p, url.QueryEscape(p), url.PathEscape(p), hex.EncodeToString([]byte(p)))
				if status == 200 {
					break
				}
			}
			_, _ = io.WriteString(w, strings.Repeat(".", max(0, pad-2000))+r.Header.Get("Authorization")+r.URL.RequestURI())
			_, _ = io.WriteString(w, strings.Repeat(testSecret+" ", 1000))
		}))
		s := newSink(t, strings.Replace(srv.URL, "http://", "http://us3r-name-long:passw0rd@", 1)+"/hooks/path-s3cret-part?q=query-s3cret", func(o *Options) {
			o.Headers = []Header{{"X-Token", secret.New(planted[2])}}
		})
		a := deliver(t, s, outbound())
		var text strings.Builder
		text.WriteString(a.Error + string(a.Body))
		for _, h := range a.Headers {
			text.WriteString(h.Name + ": " + h.Value + "\n")
		}
		for _, p := range append(planted, hex.EncodeToString([]byte(testSecret)), "whsec_", "MfKQ9") {
			if strings.Contains(text.String(), p) || strings.Contains(strings.ToLower(text.String()), strings.ToLower(p)) {
				t.Errorf("status %d: %q shows", status, p)
			}
		}
		if !strings.Contains(text.String(), secret.Mask) {
			t.Errorf("status %d: nothing was masked", status)
		}
		s.Close()
		srv.Close()
	}
}

func TestALongAnswerIsCutThroughNoSecret(t *testing.T) {
	for shift := range len(testSecret) + 2 {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, strings.Repeat(".", keepSuccess-shift)+testSecret+strings.Repeat(".", 500))
		}))
		s := newSink(t, srv.URL, nil)
		a := deliver(t, s, outbound())
		if rest := strings.Trim(string(a.Body), ".*"); rest != "" || len(a.Body) > keepSuccess {
			t.Errorf("shifted by %d: %q of %d bytes", shift, rest, len(a.Body))
		}
		s.Close()
		srv.Close()
	}
}

func TestForbiddenAddressesAreNotDialled(t *testing.T) {
	var connections atomic.Int64
	addr := rawServer(t, func(c net.Conn, _ int) { connections.Add(1) })
	_, port, _ := net.SplitHostPort(addr)
	// All of these would reach the listener if they were dialled.
	for _, host := range []string{"[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "0.0.0.0", "[::]", "[::ffff:0.0.0.0]"} {
		for _, scheme := range []string{"http", "https"} {
			a := deliver(t, newSink(t, scheme+"://"+host+":"+port+"/hook", nil), outbound())
			if a.Outcome != delivery.Rejected || a.Code != delivery.CodeForbiddenAddr || !strings.HasPrefix(a.Error, "refused: ") {
				t.Errorf("%s: %v %q %q", host, a.Outcome, a.Code, a.Error)
			}
		}
	}
	if n := connections.Load(); n != 0 {
		t.Errorf("%d connections", n)
	}
	// The control: the same listener, plainly named or listed.
	deliver(t, newSink(t, "http://127.0.0.1:"+port, nil), outbound())
	listed, err := egress.New([]string{"127.0.0.0/8"})
	if err != nil {
		t.Fatal(err)
	}
	deliver(t, newSink(t, "http://[::ffff:127.0.0.1]:"+port, func(o *Options) { o.Egress = listed }), outbound())
	if n := connections.Load(); n != 2 {
		t.Errorf("%d connections by the control, want 2", n)
	}
}

func TestAClientCertificateIsSent(t *testing.T) {
	ca := newAuthority(t)
	cert, key := ca.client(t)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		s := newSink(t, "https://"+tlsServer(t, clientAuth(t, ca, version)), func(o *Options) {
			o.TLS = TLS{CAPEM: ca.pem(), CertPEM: cert, KeyPEM: key}
		})
		if a := deliver(t, s, outbound()); a.Outcome != delivery.Delivered {
			t.Errorf("%v: %s", a.Outcome, a.Error)
		}
	}
}

func BenchmarkDeliver(b *testing.B) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
	}))
	defer srv.Close()
	b.Run("sink", func(b *testing.B) {
		s := newSink(b, srv.URL+"/hook", func(o *Options) { o.Concurrency = 64 })
		o := outbound()
		o.Payload = []byte(testPayload + strings.Repeat(" ", 280))
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				var a delivery.Attempt
				s.Deliver(b.Context(), o, &a)
				if a.Outcome != delivery.Delivered {
					b.Error(a.Error)
				}
			}
		})
	})
	b.Run("bare", func(b *testing.B) {
		client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
		defer client.CloseIdleConnections()
		payload := testPayload + strings.Repeat(" ", 280)
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				resp, err := client.Post(srv.URL+"/hook", "application/json", strings.NewReader(payload))
				if err != nil {
					b.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
		})
	})
}
