package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

func TestTheScheduleIsThatOfTheRelay(t *testing.T) {
	for attempt, want := range map[int]time.Duration{0: 0, 1: time.Minute, 2: 5 * time.Minute, 3: 30 * time.Minute, 4: 0} {
		if wait, again := retryAfter(attempt); wait != want || again != (want > 0) {
			t.Errorf("after attempt %d: %v, %v", attempt, wait, again)
		}
	}
	if n := maxRetries(); n != 3 {
		t.Errorf("%d retries", n)
	}
}

func TestADestinationIsReadOrRefused(t *testing.T) {
	d, err := newDestination("bench,64,http://127.0.0.1:1/a,b", nil)
	if err != nil || d.helper != "bench" || d.concurrency != 64 || d.url != "http://127.0.0.1:1/a,b" {
		t.Errorf("%+v, %v", d, err)
	}
	for _, text := range []string{"", "bench,64", "bench,0,http://a", "bench,many,http://a"} {
		if _, err := newDestination(text, nil); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

func TestAnEventIsAnsweredByWhatTheQueueSays(t *testing.T) {
	var stored atomic.Int64
	h := newIngest(func(_ context.Context, helper string, body []byte) error {
		if bytes.Contains(body, []byte("full")) {
			return errors.New("no room")
		}
		stored.Add(1)
		return nil
	}, []*destination{{helper: "bench"}})
	for _, row := range []struct {
		body   string
		status int
	}{
		{`{"helper":{"id":"bench"}}`, 202},
		{`{"helper":{"id":"bench"},"x":"full"}`, 500},
		{`{"helper":{"id":"other"}}`, 404},
		{`{"helper"`, 400},
		{strings.Repeat(" ", maxEvent+1), 400},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/v1/events", strings.NewReader(row.body)))
		if w.Code != row.status {
			t.Errorf("%.40q: status %d, want %d", row.body, w.Code, row.status)
		}
	}
	if stored.Load() != 1 {
		t.Errorf("%d events stored", stored.Load())
	}
}

// receiver answers with a status and passes on what it got: "signature body".
func receiver(t *testing.T, status int) (url string, got chan string) {
	t.Helper()
	got = make(chan string, 100)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		got <- r.Header.Get("X-Peanuts-Signature") + " " + string(b)
		w.WriteHeader(status)
	}))
	t.Cleanup(s.Close)
	return s.URL, got
}

func TestADeliveryIsSignedAndRefusedByAnyOtherStatus(t *testing.T) {
	const signed = "sha256=9307b3b915efb5171ff14d8cb55fbcc798c6c0ef1456d66ded1a6aa723a58b7b hello" // HMAC-SHA256 of "hello" under "key"
	for status, taken := range map[int]bool{200: true, 204: true, 302: false, 410: false, 500: false} {
		url, got := receiver(t, status)
		d, err := newDestination("bench,1,"+url, []byte("key"))
		if err != nil {
			t.Fatal(err)
		}
		if err := d.deliver(t.Context(), []byte("hello")); (err == nil) != taken {
			t.Errorf("status %d: %v", status, err)
		}
		if s := <-got; s != signed {
			t.Errorf("received %q", s)
		}
	}
}

// endToEnd runs a shim on a store, sends events and waits for all of them.
func endToEnd(t *testing.T, queue, store string) {
	t.Helper()
	url, got := receiver(t, 200)
	dir, err := os.MkdirTemp("", "shim") // the path of a socket has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		ended <- run(ctx, []string{queue, "-listen", socket, "-store", store, "-to", "bench,4," + url})
	}()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the shim ended: %v", err)
		}
	}()
	hc := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	waiting := map[string]bool{}
	for i := range 20 {
		body := fmt.Sprintf(`{"helper":{"id":"bench"},"n":%s}`, strconv.Itoa(i))
		waiting[body] = true
		for end := time.Now().Add(30 * time.Second); ; {
			resp, err := hc.Post("http://shim/v1/events", "application/json", strings.NewReader(body))
			if err == nil {
				resp.Body.Close()
				if resp.StatusCode != http.StatusAccepted {
					t.Fatalf("status %d", resp.StatusCode)
				}
				break
			}
			select {
			case err := <-ended:
				t.Fatalf("the shim ended: %v", err)
			case <-time.After(10 * time.Millisecond): // it does not listen yet
			}
			if time.Now().After(end) {
				t.Fatal(err)
			}
		}
	}
	for len(waiting) > 0 {
		select {
		case s := <-got:
			_, body, _ := strings.Cut(s, " ")
			delete(waiting, body)
		case <-time.After(30 * time.Second):
			t.Fatalf("%d events were answered and never came", len(waiting))
		}
	}
}

func TestWhatNATSHasAnsweredArrives(t *testing.T) {
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), SyncAlways: true, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(30 * time.Second) {
		t.Fatal("the server does not start")
	}
	endToEnd(t, "nats", s.ClientURL())
}

func TestWhatAsynqHasAnsweredArrives(t *testing.T) {
	path, err := exec.LookPath("redis-server")
	if err != nil { // the same program, as Debian's redis-tools has it; its name says what it does
		path, err = exec.LookPath("redis-check-rdb")
	}
	if err != nil && os.Getenv("CI") == "true" {
		t.Fatal("redis-server is not installed")
	}
	if err != nil {
		t.Skip("redis-server is not installed")
	}
	dir, err := os.MkdirTemp("", "shim")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "redis.sock")
	c := exec.Command(path, "--port", "0", "--unixsocket", socket, "--dir", dir, "--appendonly", "yes", "--appendfsync", "always", "--save", "")
	c.Args[0] = "redis-server"
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
	for end := time.Now().Add(30 * time.Second); ; {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			conn.Close()
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
		<-time.After(5 * time.Millisecond)
	}
	endToEnd(t, "asynq", socket)
}

func TestAShimThatCannotReachItsQueueSaysSo(t *testing.T) {
	for queue, store := range map[string]string{"nats": "nats://127.0.0.1:1", "asynq": filepath.Join(t.TempDir(), "none")} {
		if err := run(t.Context(), []string{queue, "-store", store}); err == nil || !strings.Contains(err.Error(), "open "+queue+" at "+store) {
			t.Errorf("%s: %v", queue, err)
		}
	}
	if err := run(t.Context(), []string{"rabbit"}); err == nil {
		t.Error("an unknown queue is no error")
	}
}
