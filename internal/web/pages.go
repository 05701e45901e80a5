package web

import (
	"bytes"
	"embed"
	"errors"
	"html/template"
	"io"
	"net/http"
	"net/url"
	"path"

	"github.com/peanutsapp/peanuts-relay/internal/adminclient"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

// files are the templates and what they refer to.
//
//go:embed templates/*.html assets/*
var files embed.FS

// renderer makes pages; *template.Template of html/template is one.
type renderer interface {
	ExecuteTemplate(w io.Writer, name string, data any) error
}

// parsePages panics when a template is wrong: it is part of the program.
func parsePages() renderer {
	return template.Must(template.New("").Funcs(functions()).ParseFS(files, "templates/*.html"))
}

// page is what every page shows around its own.
type page struct {
	Title  string
	Area   string // of the navigation
	Form   string // of the session, for forms; "" = nobody is logged in
	Flash  flash
	Status *rest.Status // nil = it could not be told, or nobody is logged in
	// Stream is the query of the live updates that concern the page; Live says that it
	// has some.
	Live   bool
	Stream string
	Body   any
}

// visit is one request of somebody who is logged in.
type visit struct {
	*http.Request
	id      string
	session *session
}

// routePages registers the pages and their forms.
func (s *Server) routePages(mux *http.ServeMux) {
	mux.HandleFunc("GET /login", s.getLogin)
	mux.HandleFunc("POST /login", s.postLogin)
	mux.HandleFunc("GET /assets/{name}", s.getAsset)
	for pattern, show := range map[string]func(*visit) (page, error){
		"GET /{$}":             s.overview,
		"GET /deliveries":      s.deliveries,
		"GET /deliveries/{id}": s.delivery,
		"GET /events/{id}":     s.event,
		"GET /webhooks/{id}":   s.webhook,
		"GET /replays":         s.replays,
		"GET /configuration":   s.configuration,
	} {
		mux.HandleFunc(pattern, s.show(show))
	}
	for pattern, act := range map[string]func(http.ResponseWriter, *http.Request, *visit){
		"POST /logout":                  s.postLogout,
		"POST /webhooks/{id}/test":      s.postTest,
		"POST /webhooks/{id}/enable":    s.postEnable(true),
		"POST /webhooks/{id}/disable":   s.postEnable(false),
		"POST /webhooks/{id}/replay":    s.postReplay,
		"POST /deliveries/{id}/retry":   s.postRetry,
		"POST /deliveries/{id}/discard": s.postDiscard,
		"POST /replays/{id}/cancel":     s.postCancel,
		"POST /configuration/reload":    s.postReload,
	} {
		mux.HandleFunc(pattern, s.act(act))
	}
	mux.HandleFunc("GET /find", s.find)
	mux.HandleFunc("GET /live", s.live)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		s.trouble(w, r, http.StatusNotFound, "There is no such page.")
	})
}

// show serves a page to whoever is logged in, and the login to others.
func (s *Server) show(build func(*visit) (page, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		again := r.Header.Get("X-Refresh") != "" // the page fetches itself
		one, id := s.session(r, !again)
		if one == nil {
			http.Redirect(w, r, "/login?next="+url.QueryEscape(r.URL.RequestURI()), http.StatusSeeOther)
			return
		}
		p, err := build(&visit{r, id, one})
		if err != nil {
			s.failed(w, r, err)
			return
		}
		if !again {
			p.Flash = s.sessions.told(one)
		}
		s.complete(w, r, one, p)
	}
}

// complete renders what a page shows around its own.
func (s *Server) complete(w http.ResponseWriter, r *http.Request, one *session, p page) {
	p.Form = one.form
	if p.Status == nil {
		if status, err := s.client.Status(r.Context()); err == nil {
			p.Status = &status
		}
	}
	s.render(w, http.StatusOK, p.template(), p)
}

// act serves a form of somebody who is logged in.
func (s *Server) act(do func(http.ResponseWriter, *http.Request, *visit)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		one, id := s.session(r, true)
		if one == nil {
			s.trouble(w, r, http.StatusForbidden, "The session has ended. Log in, and do it again.")
			return
		}
		if err := readForm(w, r); err != nil {
			s.trouble(w, r, http.StatusBadRequest, err.Error())
			return
		}
		if !one.hasForm(r.PostForm.Get("form")) {
			s.trouble(w, r, http.StatusForbidden, "This form is not one of your session: open the page again, and do it from there.")
			return
		}
		do(w, r, &visit{r, id, one})
	}
}

// failed shows why the API refused.
func (s *Server) failed(w http.ResponseWriter, r *http.Request, err error) {
	if refused, ok := errors.AsType[*adminclient.Error](err); ok {
		s.trouble(w, r, refused.Status, refused.Message)
		return
	}
	if r.Context().Err() == nil {
		s.Logger.Error("page failed", "route", r.Pattern, "err", err)
	}
	s.trouble(w, r, http.StatusInternalServerError, "The page could not be made; the daemon's log says why.")
}

// trouble says what went wrong, within the page for who is logged in.
func (s *Server) trouble(w http.ResponseWriter, r *http.Request, status int, message string) {
	p := page{Title: http.StatusText(status), Body: message}
	if one, _ := s.session(r, false); one != nil {
		p.Form = one.form
	}
	s.render(w, status, "trouble", p)
}

func (s *Server) render(w http.ResponseWriter, status int, name string, p page) {
	var body bytes.Buffer
	if err := s.pages.ExecuteTemplate(&body, name, p); err != nil {
		s.Logger.Error("page cannot be made", "template", name, "err", err)
		http.Error(w, "the page cannot be made; the daemon's log says why", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	// The client has gone when this fails; there is nobody left to tell.
	_, _ = w.Write(body.Bytes())
}

// getAsset serves a style, a script or a picture.
func (s *Server) getAsset(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	data, err := files.ReadFile("assets/" + name)
	kind := map[string]string{".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}[path.Ext(name)]
	if err != nil || kind == "" {
		s.trouble(w, r, http.StatusNotFound, "There is no such page.")
		return
	}
	w.Header().Set("Content-Type", kind)
	// The client has gone when this fails; there is nobody left to tell.
	_, _ = w.Write(data)
}

// template is the one of the body.
func (p page) template() string {
	switch p.Body.(type) {
	case overviewPage:
		return "overview"
	case deliveriesPage:
		return "deliveries"
	case deliveryPage:
		return "delivery"
	case rest.Events:
		return "event"
	case webhookPage:
		return "webhook"
	case rest.TestResult:
		return "test"
	case previewPage:
		return "preview"
	case rest.Replays:
		return "replays"
	case configurationPage:
		return "configuration"
	}
	return "trouble"
}
