package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// attemptTimeout is the time for one attempt, the relay's default.
const attemptTimeout = 30 * time.Second

// retryAfter is the wait after the failure of the given attempt, the first being 1, and
// whether there is another attempt: the relay's default schedule.
func retryAfter(attempt int) (wait time.Duration, again bool) {
	schedule := []time.Duration{time.Minute, 5 * time.Minute, 30 * time.Minute}
	if attempt < 1 || attempt > len(schedule) {
		return 0, false
	}
	return schedule[attempt-1], true
}

// maxRetries is how many attempts follow the first.
func maxRetries() (n int) {
	for again := true; again; n++ {
		_, again = retryAfter(n + 1)
	}
	return n - 1
}

// destination is where the events of one helper go.
type destination struct {
	helper      string
	concurrency int
	url         string
	secret      []byte
	client      *http.Client
}

// newDestination reads "helper,concurrency,url".
func newDestination(text string, secret []byte) (*destination, error) {
	f := strings.SplitN(text, ",", 3)
	if len(f) != 3 {
		return nil, fmt.Errorf("%q is not helper,concurrency,url", text)
	}
	n, err := strconv.Atoi(f[1])
	if err != nil || n < 1 {
		return nil, fmt.Errorf("concurrency %q is no number above zero", f[1])
	}
	// Connections are kept: as many may be idle as there are attempts at a time.
	t := &http.Transport{MaxIdleConns: n, MaxIdleConnsPerHost: n, DisableCompression: true}
	return &destination{f[0], n, f[2], secret, &http.Client{Transport: t, Timeout: attemptTimeout}}, nil
}

// deliver signs and posts one event; nil means that it was taken.
func (d *destination) deliver(ctx context.Context, body []byte) error {
	m := hmac.New(sha256.New, d.secret)
	m.Write(body)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, d.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-Peanuts-Signature", "sha256="+hex.EncodeToString(m.Sum(nil)))
	resp, err := d.client.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, maxEvent)); err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	return nil
}
