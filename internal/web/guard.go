package web

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

// policy is what a browser may do with an answer. There are no exceptions in it, so no
// text that got past the escaping could run, load or send anything.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

// guard decides, before anything else, from where requests may come.
type guard struct {
	hosts  map[string]bool // in lower case
	origin *http.CrossOriginProtection
	// anyHost and anyOrigin leave a check out. Tests set them, to show what it is for.
	anyHost, anyOrigin bool
}

func newGuard(hosts []string) guard {
	g := guard{hosts: map[string]bool{"localhost": true}, origin: http.NewCrossOriginProtection()}
	for _, host := range hosts {
		g.hosts[strings.ToLower(host)] = true
	}
	return g
}

// allowed reports whether a request may be for host, a value of the header of this name.
// Ports do not matter: those of ssh -L and of proxies are any. A page whose name was
// bound to this address anew still sends its own name, which is what this refuses.
func (g *guard) allowed(host string) bool {
	name := hostName(host)
	return g.anyHost || g.hosts[name] || isLoopback(name)
}

// hostName is the name in a header Host, in lower case and without port and brackets.
func hostName(host string) string {
	name := host
	if before, _, err := net.SplitHostPort(host); err == nil {
		name = before
	} else if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		name = host[1 : len(host)-1]
	}
	return strings.ToLower(name)
}

func isLoopback(name string) bool {
	addr, err := netip.ParseAddr(name)
	return err == nil && addr.Zone() == "" && addr.IsLoopback()
}

// crossOrigin says why a request was sent by a page of another origin; "" = it was not.
func (g *guard) crossOrigin(r *http.Request) string {
	if g.anyOrigin {
		return ""
	}
	if err := g.origin.Check(r); err != nil {
		return "the request comes from a page of another origin"
	}
	// To follow a link from elsewhere is fine. To load parts of the page into another
	// one is not, nor is to listen to its updates.
	switch r.Header.Get("Sec-Fetch-Site") {
	case "cross-site", "same-site":
		if r.Header.Get("Sec-Fetch-Mode") != "navigate" || r.Header.Get("Sec-Fetch-Dest") != "document" {
			return "the request is for a part of a page of another origin"
		}
	}
	return ""
}

// protect lets through what comes from where it may, and sets what holds for every answer.
func (s *Server) protect(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		deadlines(w, r)
		if !s.guard.allowed(r.Host) {
			s.refuse(w, r, http.StatusForbidden, rest.CodeForbidden, fmt.Sprintf("requests for the host %q are refused; "+
				"if a reverse proxy offers the page under this name, add it to listen.web_hosts", clip(r.Host, 100)))
			return
		}
		if why := s.guard.crossOrigin(r); why != "" {
			s.refuse(w, r, http.StatusForbidden, rest.CodeForbidden, why+
				"; behind a reverse proxy, let it pass the header Host on unchanged")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// deadlines bound the time that a client may take to send a body and to read an answer.
// The API and the live updates set their own while they write.
func deadlines(w http.ResponseWriter, r *http.Request) {
	out := http.NewResponseController(w)
	_ = out.SetWriteDeadline(time.Now().Add(bodyTimeout))
	if r.ContentLength != 0 {
		_ = out.SetReadDeadline(time.Now().Add(bodyTimeout))
	}
}

// refuse answers a program with a document and a person with a page.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, status int, code, message string) {
	for _, prefix := range []string{"/v1/", "/metrics", "/livez", "/readyz"} {
		if strings.HasPrefix(r.URL.Path, prefix) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			// The client has gone when this fails.
			_ = json.NewEncoder(w).Encode(rest.Error{Error: rest.ErrorBody{Code: code, Message: message}})
			return
		}
	}
	s.trouble(w, r, status, message)
}

// clip is text, cut to most bytes where it is longer.
func clip(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}
