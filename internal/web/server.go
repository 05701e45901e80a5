package web

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/netutil"

	"github.com/peanutsapp/peanuts-relay/internal/adminclient"
	"github.com/peanutsapp/peanuts-relay/internal/secret"
)

const (
	// maxConns bounds the connections: a browser has up to six, and one of them may be
	// the live updates of a page.
	maxConns      = 128
	headerTimeout = 10 * time.Second
	bodyTimeout   = 30 * time.Second
	idleTimeout   = 2 * time.Minute
	maxHeader     = 32 << 10
	// maxForm bounds the body of a form; the largest field is a token.
	maxForm = 16 << 10
)

// Options are what the listener works with. API and Token are required.
type Options struct {
	// API answers the REST routes, and is what the pages are made of: the handler of
	// package api, which bounds bodies, sets a deadline for each write, and checks
	// nothing of who asks.
	API   http.Handler
	Token secret.String
	// Hosts are the names besides those of the loopback for which requests may come.
	Hosts []string
	// Name tells this daemon's cookies from those of others on the same host: cookies do
	// not know ports. It is no secret.
	Name   string
	Logger *slog.Logger     // nil discards
	Now    func() time.Time // nil = time.Now
}

// Server is the listener. Its methods may be called concurrently.
type Server struct {
	Options

	guard    guard
	key      [sha256.Size]byte // hash of the token, so that comparing tells nothing of its length
	logins   *throttle
	bearers  *throttle
	sessions *sessions
	cookie   string // its name
	client   *adminclient.Client
	pages    renderer
	srv      *http.Server
}

// New returns a server that serves nothing yet.
func New(o Options) *Server {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	named := sha256.Sum256([]byte(o.Name))
	s := &Server{
		Options: o, guard: newGuard(o.Hosts), key: sha256.Sum256([]byte(o.Token.Reveal())),
		logins: newThrottle(loginBurst, loginEvery), bearers: newThrottle(bearerBurst, bearerEvery),
		sessions: newSessions(o.Now), cookie: "peanuts_relay_" + hex.EncodeToString(named[:4]),
		client: adminclient.Through(o.API), pages: parsePages(),
	}
	s.srv = &http.Server{Handler: s.Handler(), ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		ErrorLog: slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug)}
	return s
}

// Serve answers requests on l, which it closes, until Shutdown.
func (s *Server) Serve(l net.Listener) error {
	err := s.srv.Serve(netutil.LimitListener(l, maxConns))
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve the page: %w", err)
}

// Shutdown stops listening, ends every session with the updates of its pages, and waits
// for the requests under way. When ctx ends first their connections are closed.
func (s *Server) Shutdown(ctx context.Context) error {
	s.sessions.close()
	if err := s.srv.Shutdown(ctx); err != nil {
		return errors.Join(fmt.Errorf("stop the server of the page: %w", err), s.srv.Close())
	}
	return nil
}

// Handler serves everything.
func (s *Server) Handler() http.Handler { return s.protect(s.routes()) }

// routes are who may see what: the pages a session, REST the token, and whether the
// daemon lives everybody.
func (s *Server) routes() *http.ServeMux {
	mux := http.NewServeMux()
	mux.Handle("/v1/", s.withToken(s.API))
	mux.Handle("/metrics", s.withToken(s.API))
	mux.Handle("/livez", s.API)
	mux.Handle("/readyz", s.API)
	s.routePages(mux)
	return mux
}
