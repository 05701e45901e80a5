package adminclient

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
)

// Through returns a client of a daemon in the same process: every call is one of h, which
// answers on the goroutine of the caller. There is nothing to close.
func Through(h http.Handler) *Client {
	return &Client{socket: "of this process", limit: maxAnswer, http: &http.Client{Transport: through{h},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// through carries requests to a handler.
type through struct{ handler http.Handler }

// RoundTrip implements [net/http.RoundTripper]. An answer is in memory as a whole.
func (t through) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	in := r.Clone(r.Context()) // as a server sees it
	in.RequestURI, in.Host = r.URL.RequestURI(), r.URL.Host
	if in.Body == nil {
		in.Body = http.NoBody
	}
	defer in.Body.Close()
	w := &answer{header: http.Header{}, status: http.StatusOK}
	t.handler.ServeHTTP(w, in)
	if w.body.Len() > maxAnswer {
		return nil, fmt.Errorf("read answer: longer than %d bytes", maxAnswer)
	}
	return &http.Response{Status: fmt.Sprintf("%d %s", w.status, http.StatusText(w.status)), StatusCode: w.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: w.header, Body: io.NopCloser(&w.body), ContentLength: int64(w.body.Len()), Request: r}, nil
}

// answer keeps what a handler writes, up to a little more than maxAnswer.
type answer struct {
	header http.Header
	status int
	wrote  bool
	body   bytes.Buffer
}

func (w *answer) Header() http.Header { return w.header }

func (w *answer) WriteHeader(status int) {
	if !w.wrote {
		w.status, w.wrote = status, true
	}
}

func (w *answer) Write(p []byte) (int, error) {
	w.wrote = true
	if w.body.Len() > maxAnswer {
		return 0, io.ErrShortWrite
	}
	return w.body.Write(p)
}
