package main

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
)

// browse logs in to the page and reads every view of it: now, and later whenever the
// function that it returns is called.
func (v *vault) browse(deliveries []string, hook string) (read func(when string)) {
	v.t.Helper()
	status, err := v.admin.Status(v.t.Context())
	if err != nil || status.Listen.Web == "" {
		v.t.Fatalf("the page is at %q: %v", status.Listen.Web, err)
	}
	origin := "http://" + status.Listen.Web
	jar, err := cookiejar.New(nil)
	if err != nil {
		v.t.Fatal(err)
	}
	transport := &http.Transport{}
	v.t.Cleanup(transport.CloseIdleConnections)
	client := &http.Client{Jar: jar, Transport: transport, Timeout: patience}
	get := func(method, path, body string) (int, string) {
		req, err := http.NewRequestWithContext(v.t.Context(), method, origin+path, strings.NewReader(body))
		if err != nil {
			v.t.Fatal(err)
		}
		req.Header.Set("Origin", origin)
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		resp, err := client.Do(req)
		if err != nil {
			v.t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			v.t.Fatal(err)
		}
		return resp.StatusCode, string(text)
	}
	for _, token := range []string{vaultWeb + "x", vaultWeb} { // the first is wrong, and must not come back either
		code, text := get("POST", "/login", "next=%2F&token="+url.QueryEscape(token))
		v.add("page", "login", []byte(text))
		if want := token == vaultWeb; want != (code == http.StatusOK) {
			v.t.Fatalf("the login answered %d: %s", code, text)
		}
	}
	const first = "at first"
	paths := []string{"/", "/deliveries", "/replays", "/configuration", "/webhooks/" + hook, "/events/first", "/nothing"}
	for _, id := range deliveries {
		paths = append(paths, "/deliveries/"+id)
	}
	read = func(when string) {
		v.t.Helper()
		for _, path := range paths {
			code, text := get("GET", path, "")
			if when == first && code != http.StatusOK && path != "/nothing" { // later a delivery may be discarded
				v.t.Errorf("GET %s, %s: %d", path, when, code)
			}
			v.add("page", path+", "+when, []byte(text))
		}
	}
	read(first)
	return read
}
