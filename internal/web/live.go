package web

import (
	"context"
	"net/http"
	"time"
)

// maxTest is longer than any attempt may be.
const maxTest = 11 * time.Minute

// live passes the stream of changes on to a page, until the session ends. The stream sets
// a deadline of its own for each write.
func (s *Server) live(w http.ResponseWriter, r *http.Request) {
	one, _ := s.session(r, false)
	if one == nil {
		s.trouble(w, r, http.StatusForbidden, "The session has ended.")
		return
	}
	ctx, cancel := context.WithDeadline(r.Context(), time.Now().Add(one.ends.Sub(s.Now())))
	defer cancel()
	defer context.AfterFunc(one.ctx, cancel)()
	in := r.Clone(ctx)
	in.URL.Path, in.URL.RawPath = "/v1/deliveries/stream", ""
	in.RequestURI = in.URL.RequestURI()
	s.API.ServeHTTP(w, in)
}
