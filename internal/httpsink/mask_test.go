package httpsink

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/secret"
)

// A cookie or token can have several KiB.
func TestTheEchoOfALongSecretIsMasked(t *testing.T) {
	var b strings.Builder
	random := rand.New(rand.NewPCG(1, 2))
	for b.Len() < 8<<10 {
		b.WriteByte("abcdefghijklmnopqrstuvwxyz/+="[random.IntN(29)])
	}
	long := b.String()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprintf(w, "cookie %s, escaped %s, end", r.Header.Get("Cookie"), url.QueryEscape(r.Header.Get("Cookie")))
	}))
	t.Cleanup(srv.Close)
	s := newSink(t, srv.URL, func(o *Options) {
		o.Headers = []Header{{Name: "Cookie", Value: secret.New(long)}}
	})
	a := deliver(t, s, outbound())
	if got := string(a.Body); got != "cookie ********, escaped ********, end" {
		t.Errorf("the body that is kept begins %q and has %d bytes", got[:min(len(got), 80)], len(got))
	}
}

func TestAHostInALocationIsMaskedBeforeItIsCut(t *testing.T) {
	const token = "token-that-is-a-label-of-a-host"
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", "https://"+strings.Repeat("a", 175)+"."+token+".example.com/")
		w.WriteHeader(http.StatusFound)
	}))
	t.Cleanup(srv.Close)
	s := newSink(t, srv.URL, func(o *Options) {
		o.Headers = []Header{{Name: "Authorization", Value: secret.New("Bearer " + token)}}
	})
	if a := deliver(t, s, outbound()); strings.Contains(a.Error, token[:8]) {
		t.Errorf("the error has a part of the secret: %s", a.Error)
	}
}

// A proxy that complains shows what it was sent, in plain text or as it came.
func TestTheEchoOfTheProxysPasswordIsMasked(t *testing.T) {
	const password = "word-of-the-proxy/1"
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent := r.Header.Get("Proxy-Authorization")
		w.Header().Set("X-Sent", sent)
		w.WriteHeader(http.StatusBadGateway)
		given := &http.Request{Header: http.Header{"Authorization": {sent}}}
		_, plain, _ := given.BasicAuth()
		fmt.Fprintf(w, "sent %s, that is %s, end", sent, plain)
	}))
	t.Cleanup(srv.Close)
	s := newSink(t, "http://partner.example/hook", func(o *Options) {
		o.Proxy = func(*http.Request) (*url.URL, error) {
			u, err := url.Parse(srv.URL)
			if err == nil {
				u.User = url.UserPassword("us", password)
			}
			return u, err
		}
	})
	a := deliver(t, s, outbound())
	if got := string(a.Body); got != "sent Basic ********, that is ********, end" {
		t.Errorf("the body that is kept is %q", got)
	}
	for _, h := range a.Headers {
		if h.Name == "X-Sent" && h.Value != "Basic ********" {
			t.Errorf("the header that is kept is %q", h.Value)
		}
	}
}
