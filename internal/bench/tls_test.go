package main

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestTheReceiverIsTrustedByItsCertificateOnly(t *testing.T) {
	s := &receiver{streams: map[string]*stream{}, held: make(chan struct{})}
	file := filepath.Join(t.TempDir(), "receiver.pem")
	l, err := listenTLS(file)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.accept(l) }()
	defer func() {
		l.Close()
		<-done
	}()
	request := func(ca string) error {
		trust, err := trusting(ca)
		if err != nil {
			return err
		}
		transport := &http.Transport{TLSClientConfig: trust, DisableKeepAlives: true}
		post := httpPoster(&http.Client{Timeout: 30 * time.Second, Transport: transport}, "https://"+l.Addr().String()+"/ok/tls")
		return post(appendEvent(nil, "bench", 1, 1, time.Now()), "")
	}
	if err := request(file); err != nil {
		t.Error(err)
	}
	if got := s.stream("/ok/tls").stats(false).Unique; got != 1 {
		t.Errorf("%d arrived", got)
	}
	if err := request(""); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("the system trusts it: %v", err)
	}
	if err := request(filepath.Join(t.TempDir(), "none.pem")); err == nil {
		t.Error("a file that does not exist is no error")
	}
}
