package web

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

// How fast a token may be guessed: in a burst, then one for each interval, in the whole
// process. Behind a proxy all clients have one address, and a local one may claim any.
// Whoever guesses without end keeps others from logging in meanwhile; sessions that there
// are and the admin socket go on. Forms and headers are counted apart.
const (
	loginBurst  = 10
	loginEvery  = 3 * time.Second
	bearerBurst = 30
	bearerEvery = time.Second
)

// throttle bounds how often something may go wrong: a bucket that failures empty.
type throttle struct {
	burst float64
	every time.Duration

	mu     sync.Mutex // guards the following
	left   float64
	filled time.Time // when left was right
}

func newThrottle(burst int, every time.Duration) *throttle {
	return &throttle{burst: float64(burst), every: every, left: float64(burst)}
}

// try runs attempt unless there were too many failures: then it says how long to wait. A
// failure costs, a success does not. One attempt is made at a time, so that as many at
// once are not more than one after the other.
func (t *throttle) try(now time.Time, attempt func() bool) (ok bool, wait time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if since := now.Sub(t.filled); since > 0 {
		t.left = min(t.burst, t.left+since.Seconds()/t.every.Seconds())
	}
	t.filled = now
	if t.left < 1 {
		return false, time.Duration((1-t.left)*float64(t.every)) + time.Second
	}
	if attempt() {
		return true, 0
	}
	t.left--
	return false, 0
}

// isToken compares in a time that tells nothing of the token.
func (s *Server) isToken(given string) bool {
	sum := sha256.Sum256([]byte(given))
	return subtle.ConstantTimeCompare(sum[:], s.key[:]) == 1 && given != ""
}

// withToken lets requests through that have the token in the header Authorization.
func (s *Server) withToken(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		given, ok := bearer(r)
		if !ok {
			// It costs nothing: there is nothing in it to guess by.
			w.Header().Set("WWW-Authenticate", `Bearer realm="peanuts-relay"`)
			s.refuse(w, r, http.StatusUnauthorized, rest.CodeUnauthorized, "this needs the header Authorization: Bearer TOKEN, with the token of listen.web_token")
			return
		}
		ok, wait := s.bearers.try(s.Now(), func() bool { return s.isToken(given) })
		switch {
		case wait > 0:
			s.slow(w, wait)
			s.refuse(w, r, http.StatusTooManyRequests, rest.CodeTooMany, fmt.Sprintf("too many wrong tokens; try again in %s seconds", w.Header().Get("Retry-After")))
		case !ok:
			s.Logger.Warn("wrong token on the web listener", "host", clip(r.Host, 100))
			w.Header().Set("WWW-Authenticate", `Bearer realm="peanuts-relay", error="invalid_token"`)
			s.refuse(w, r, http.StatusUnauthorized, rest.CodeUnauthorized, "the token in the header Authorization is not that of listen.web_token")
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// slow says in the answer how long to wait.
func (s *Server) slow(w http.ResponseWriter, wait time.Duration) {
	w.Header().Set("Retry-After", strconv.Itoa(max(1, int(wait/time.Second))))
}

// bearer is the token of a request (RFC 6750, section 2.1).
func bearer(r *http.Request) (token string, ok bool) {
	given := r.Header.Values("Authorization")
	if len(given) != 1 {
		return "", false
	}
	scheme, token, found := strings.Cut(given[0], " ")
	return strings.TrimSpace(token), found && strings.EqualFold(scheme, "Bearer")
}
