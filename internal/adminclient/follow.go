package adminclient

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strings"

	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

// ErrStreamEnded says that the daemon ended the stream: it stops.
var ErrStreamEnded = errors.New("the daemon ended the stream")

// maxLine bounds one line of the stream. A change is well under 2 KiB unless
// its ids or its error are very long.
const maxLine = 1 << 20

// Followed is one element of a stream: a change, or how many were lost before
// the next one because this side read too slowly.
type Followed struct {
	rest.Change
	Missed uint64 // > 0: no change, but this many lost
}

// FollowQuery selects changes.
type FollowQuery struct {
	Webhook string   // helper.webhook; "" = all
	Status  []string // of rest.Statuses; empty = all
}

// Follow opens the stream of changes. It returns when the daemon has begun to
// send, so that nothing that happens afterwards is left out. The caller closes
// the stream.
func (c *Client) Follow(ctx context.Context, q FollowQuery) (*Stream, error) {
	values := url.Values{}
	set(values, "webhook", q.Webhook)
	set(values, "status", strings.Join(q.Status, ","))
	ctx, cancel := context.WithCancel(ctx)
	resp, err := c.do(ctx, "GET", "/v1/deliveries/stream", values, nil)
	if err != nil {
		cancel()
		return nil, err
	}
	return &Stream{Reader: NewReader(resp.Body), ctx: ctx, cancel: cancel, resp: resp}, nil
}

// Stream is an open stream of changes. One goroutine reads it; Close may be
// called from any.
type Stream struct {
	*Reader
	ctx    context.Context // of the request; ends with Close
	cancel context.CancelFunc
	resp   *http.Response
}

// Close ends the stream; a Next that waits returns an error.
func (s *Stream) Close() {
	s.cancel()
	_ = s.resp.Body.Close()
}

// Next waits for the next element. It returns [ErrStreamEnded] when the daemon
// stops, and the context's cause when that ended.
func (s *Stream) Next() (Followed, error) {
	f, err := s.Reader.Next()
	if err != nil && s.ctx.Err() != nil {
		err = context.Cause(s.ctx)
	}
	return f, err
}

// All goes through what comes until the stream ends; the reason is the last
// element.
func (s *Stream) All() iter.Seq2[Followed, error] {
	return func(yield func(Followed, error) bool) {
		for {
			f, err := s.Next()
			if !yield(f, err) || err != nil {
				return
			}
		}
	}
}

// Reader decodes the body of a stream (server-sent events, WHATWG HTML section
// 9.2). It is not for concurrent use.
type Reader struct{ lines *bufio.Scanner }

// NewReader returns a decoder of r.
func NewReader(r io.Reader) *Reader {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	return &Reader{lines}
}

// Next waits for the next element; [ErrStreamEnded] is the end.
func (r *Reader) Next() (Followed, error) {
	var name string
	var data bytes.Buffer
	for r.lines.Scan() {
		line := r.lines.Bytes()
		if len(line) == 0 {
			f, known, err := decodeEvent(name, data.Bytes())
			if known || err != nil {
				return f, err
			}
			name = ""
			data.Reset()
			continue
		}
		field, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(field) {
		case "event":
			name = string(value)
		case "data":
			if data.Len()+len(value) > maxLine {
				return Followed{}, fmt.Errorf("read stream: event longer than %d bytes", maxLine)
			}
			if data.Len() > 0 {
				data.WriteByte('\n')
			}
			data.Write(value)
		}
	}
	if err := r.lines.Err(); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return Followed{}, fmt.Errorf("read stream: %w", err)
	}
	return Followed{}, ErrStreamEnded
}

// decodeEvent decodes one server-sent event; known is false for comments and
// for names that a later daemon may send.
func decodeEvent(name string, data []byte) (f Followed, known bool, err error) {
	switch name {
	case "delivery":
		err = json.Unmarshal(data, &f.Change)
	case "missed":
		var m rest.Missed
		err = json.Unmarshal(data, &m)
		f.Missed = m.Missed
	default:
		return f, false, nil
	}
	if err != nil {
		return Followed{}, true, fmt.Errorf("decode stream: %w", err)
	}
	return f, true, nil
}
