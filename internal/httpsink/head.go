package httpsink

import (
	"bytes"
	"fmt"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
)

// head is the part of a request's head that all requests of a sink share, as
// net/http writes it. It is immutable.
type head struct {
	start string // to where the value of Content-Length follows
	lines []line // the other headers, sorted by name
	end   string // what follows them
	err   error  // why there can be no request, to be told once there is a connection
}

// line is one header: its name, and all of it with the line break.
type line struct{ name, text string }

// newHead has net/http write a POST without a body and takes it apart. p is the
// proxy on the way, nil for none.
func newHead(u *url.URL, static http.Header, p *proxy) *head {
	req := http.Request{Method: http.MethodPost, URL: u, Host: u.Host, Header: static,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Body: http.NoBody}
	var text bytes.Buffer
	write, end := req.Write, "\r\n"
	if p != nil && p.forwards {
		write, end = req.WriteProxy, p.authorization+end
	}
	if err := write(&text); err != nil {
		return &head{err: err}
	}
	// The first match is the right one: no value before it holds a line break.
	const length = "\r\nContent-Length: "
	start, rest, _ := strings.Cut(text.String(), length+"0\r\n")
	h := &head{start: start + length, end: end}
	for l := range strings.SplitSeq(strings.TrimSuffix(rest, "\r\n"), "\r\n") {
		if name, _, ok := strings.Cut(l, ":"); ok {
			h.lines = append(h.lines, line{name, l + "\r\n"})
		}
	}
	return h
}

// fields appends the headers that differ from request to request, sorted by
// name as net/http sends them.
func fields(dst []delivery.Header, o *delivery.Outbound, sigs []delivery.Header) []delivery.Header {
	dst = append(dst,
		delivery.Header{Name: headerAttempt, Value: strconv.Itoa(o.Attempt)},
		delivery.Header{Name: headerDelivery, Value: o.DeliveryID},
		delivery.Header{Name: headerEvent, Value: o.EventType},
		delivery.Header{Name: headerEventID, Value: o.EventID})
	dst = append(dst, sigs...)
	if o.Test {
		dst = append(dst, delivery.Header{Name: headerTest, Value: "true"})
	}
	if o.Replayed {
		dst = append(dst, delivery.Header{Name: headerReplay, Value: "true"})
	}
	slices.SortFunc(dst, func(a, b delivery.Header) int { return strings.Compare(a.Name, b.Name) })
	return dst
}

// write appends the head of a request with length bytes of body. fields are
// sorted by name; one of the name of a shared header replaces it.
func (h *head) write(dst []byte, fields []delivery.Header, length int) ([]byte, error) {
	dst = append(dst, h.start...)
	dst = strconv.AppendInt(dst, int64(length), 10)
	dst = append(dst, "\r\n"...)
	shared := h.lines
	for i := range fields {
		f := &fields[i]
		if !validField(f) {
			return nil, fmt.Errorf("net/http: invalid header field value for %q", f.Name)
		}
		for len(shared) > 0 && shared[0].name < f.Name {
			dst = append(dst, shared[0].text...)
			shared = shared[1:]
		}
		if len(shared) > 0 && shared[0].name == f.Name {
			shared = shared[1:]
		}
		dst = append(dst, f.Name...)
		dst = append(dst, ": "...)
		dst = append(dst, textproto.TrimString(f.Value)...)
		dst = append(dst, "\r\n"...)
	}
	for _, l := range shared {
		dst = append(dst, l.text...)
	}
	return append(dst, h.end...), nil
}

// validField reports whether a header can be sent without becoming another one.
func validField(h *delivery.Header) bool {
	for _, r := range h.Name {
		if !validNameRune(r) {
			return false
		}
	}
	for i := range len(h.Value) {
		if c := h.Value[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return h.Name != ""
}
