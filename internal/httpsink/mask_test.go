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
