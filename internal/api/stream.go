package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/queue"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

// heartbeat is how often a stream without changes sends a comment, so that both
// sides notice a connection that is gone.
const heartbeat = 15 * time.Second

// lookedUp is how many changes are looked up at once: an event of each, of about 500
// bytes, is in memory then.
const lookedUp = 64

// getStream sends server-sent events (WHATWG HTML, section 9.2): "delivery"
// with a rest.Change for every change from now on, and "missed" with a
// rest.Missed when the reader was too slow for some.
func (a *API) getStream(w http.ResponseWriter, r *http.Request) (any, error) {
	values, err := params(r, "webhook", "status")
	if err != nil {
		return nil, err
	}
	wanted, err := statuses(values.Get("status"), rest.Statuses())
	if err != nil {
		return nil, err
	}
	var lane queue.Lane
	if name := values.Get("webhook"); name != "" {
		hook, ok := a.webhook(name)
		if !ok {
			return nil, a.noWebhook(name)
		}
		lane = hook.Lane
	}
	sub, err := a.Feed.subscribe(lane)
	if errors.Is(err, errFeedFull) {
		return nil, fail(http.StatusTooManyRequests, rest.CodeTooMany, "", "the stream has %d readers, which is the limit", maxSubscribers)
	}
	if err != nil {
		return nil, err
	}
	defer a.Feed.unsubscribe(sub)
	s := &stream{api: a, w: w, out: http.NewResponseController(w), wanted: wanted}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if r.Method == http.MethodHead {
		return nil, nil
	}
	s.run(r, sub)
	return nil, nil
}

// stream is one reader being served. It belongs to its handler's goroutine.
type stream struct {
	api    *API
	w      http.ResponseWriter
	out    *http.ResponseController
	wanted []string // statuses; empty = all
	buf    bytes.Buffer
}

// run ends when the client goes, when it takes longer than writeTimeout to
// read, or with the feed.
func (s *stream) run(r *http.Request, sub *subscriber) {
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	s.buf.WriteString(": connected\n\n")
	for {
		if err := s.flush(); err != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-beat.C:
			s.buf.WriteString(": alive\n\n")
		case <-sub.wake:
			cs, missed, ended := sub.take()
			if missed > 0 {
				s.event("missed", rest.Missed{Missed: missed})
			}
			if err := s.changes(cs); err != nil || ended {
				return
			}
		}
	}
}

// changes writes cs, a few at a time: each few are looked up together, and are
// flushed, so that the buffer stays small and the reader's pace is felt. What the
// reader did not ask for is not looked up.
func (s *stream) changes(cs []change) error {
	v := s.api.view()
	for few := range slices.Chunk(cs, lookedUp) {
		var wanted []queue.Change
		var events []rest.Change
		for i := range few {
			c := &few[i]
			status := v.status(&queue.Summary{Lane: c.Lane, Seq: c.Seq, State: c.State})
			if len(s.wanted) == 0 || slices.Contains(s.wanted, status) {
				wanted = append(wanted, c.Change)
				events = append(events, rest.Change{Kind: c.Kind, At: rest.At(c.at), Delivery: rest.Delivery{Status: status}})
			}
		}
		if len(wanted) == 0 {
			continue
		}
		sums, err := s.api.Store.Summaries(wanted)
		if err != nil {
			return err
		}
		for i := range wanted {
			asChanged(&sums[i], &wanted[i])
			events[i].Delivery = v.row(&sums[i], events[i].Delivery.Status)
			s.event("delivery", events[i])
		}
		if err := s.flush(); err != nil {
			return err
		}
	}
	return s.flush()
}

func (s *stream) event(name string, document any) {
	data, err := json.Marshal(document)
	if err != nil {
		s.api.Logger.Error("stream event cannot be encoded", "err", err)
		return
	}
	fmt.Fprintf(&s.buf, "event: %s\ndata: %s\n\n", name, data)
}

func (s *stream) flush() error {
	if s.buf.Len() == 0 {
		return nil
	}
	if err := s.out.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	if _, err := s.w.Write(s.buf.Bytes()); err != nil {
		return err
	}
	s.buf.Reset()
	return s.out.Flush()
}

// asChanged makes the row of a delivery what it was when the change left it, which
// may not be as it is now. Of a row that has gone from the log the change is all there
// is.
func asChanged(s *queue.Summary, c *queue.Change) {
	if s.Attempts != c.Attempts || s.State != c.State {
		s.Error, s.Finished = "", time.Time{}
	}
	s.State, s.Attempts, s.StatusCode, s.Code, s.Next = c.State, c.Attempts, c.StatusCode, c.Code, c.Next
}
