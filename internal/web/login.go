package web

import (
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// loginPage is the form that asks for the token.
type loginPage struct {
	Next string // where to go then
	Told string // why it did not work; "" = it was not tried
}

func (s *Server) getLogin(w http.ResponseWriter, r *http.Request) {
	next := destination(r.URL.Query().Get("next"))
	if one, _ := s.session(r, true); one != nil {
		http.Redirect(w, r, next, http.StatusSeeOther)
		return
	}
	in := loginPage{Next: next}
	if r.URL.Query().Has("kept") {
		in.Told = "The browser did not keep the cookie of the session. Under a name of listen.web_hosts the page works through https only; http works on localhost."
	}
	s.render(w, http.StatusOK, "login", page{Title: "Log in", Body: in})
}

// postLogin begins a session for whoever has the token.
func (s *Server) postLogin(w http.ResponseWriter, r *http.Request) {
	if err := readForm(w, r); err != nil {
		s.trouble(w, r, http.StatusBadRequest, err.Error())
		return
	}
	next := destination(r.PostForm.Get("next"))
	given := strings.TrimSpace(r.PostForm.Get("token"))
	ok, wait := s.logins.try(s.Now(), func() bool { return s.isToken(given) })
	if !ok {
		status, told := http.StatusForbidden, "This is not the token."
		if wait > 0 {
			s.slow(w, wait)
			status, told = http.StatusTooManyRequests, fmt.Sprintf("There were too many wrong tokens. Try again in %s seconds.", w.Header().Get("Retry-After"))
		} else {
			s.Logger.Warn("login with a wrong token", "host", clip(r.Host, 100))
		}
		s.render(w, status, "login", page{Title: "Log in", Body: loginPage{Next: next, Told: told}})
		return
	}
	if old, err := r.Cookie(s.cookie); err == nil {
		s.sessions.finish(old.Value)
	}
	http.SetCookie(w, s.newCookie(r, s.sessions.begin()))
	s.Logger.Info("login", "host", clip(r.Host, 100))
	// By way of the login page, which notices a browser that keeps no cookie.
	http.Redirect(w, r, "/login?kept&next="+url.QueryEscape(next), http.StatusSeeOther)
}

// newCookie carries the id of a session, or ends it when id is "". Under other names than
// those of the loopback it travels by https only.
func (s *Server) newCookie(r *http.Request, id string) *http.Cookie {
	name := hostName(r.Host)
	c := &http.Cookie{Name: s.cookie, Value: id, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode,
		Secure: name != "localhost" && !isLoopback(name), MaxAge: int(sessionLife.Seconds())}
	if id == "" {
		c.MaxAge = -1
	}
	return c
}

func (s *Server) postLogout(w http.ResponseWriter, r *http.Request, in *visit) {
	s.sessions.finish(in.id)
	http.SetCookie(w, s.newCookie(r, ""))
	http.Redirect(w, r, "/login", http.StatusSeeOther)
}

// session is that of a request, and its id; nil = there is none.
func (s *Server) session(r *http.Request, use bool) (*session, string) {
	c, err := r.Cookie(s.cookie)
	if err != nil {
		return nil, ""
	}
	return s.sessions.find(c.Value, use), c.Value
}

// destination is next when that is a path of this page, else the overview: nobody is sent
// elsewhere.
func destination(next string) string {
	u, err := url.Parse(next)
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil || !strings.HasPrefix(next, "/") || strings.HasPrefix(next, "//") ||
		strings.ContainsAny(next, "\\\r\n\t") || strings.HasPrefix(u.Path, "//") || u.Path == "/login" || len(next) > 2048 {
		return "/"
	}
	return next
}

// readForm reads a form of bounded size, of the one type that forms without files have.
func readForm(w http.ResponseWriter, r *http.Request) error {
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != "application/x-www-form-urlencoded" {
		return errors.New("this takes a form of this page")
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	err = r.ParseForm()
	// A deadline that passes while the handler works would look like a client that has gone.
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	if err != nil {
		return fmt.Errorf("the form cannot be read: %w", err)
	}
	return nil
}
