package ingest

import (
	"net/http"
	"strconv"
	"unicode/utf8"

	"github.com/peanutsapp/peanuts-relay/internal/id"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
)

// Answers are written by hand: they are on the path of every event, and
// reflection would cost more than parsing the event does.

// statusOf is how an accepted event is answered.
func statusOf(ev *queue.Event) int {
	if ev.Duplicate {
		return http.StatusOK
	}
	return http.StatusAccepted
}

// appendAccepted appends the members, without the braces, that tell what became
// of an accepted event.
func (s *Server) appendAccepted(dst []byte, it *item) []byte {
	ev, store := &it.ev, s.o.Store.StoreID()
	dst = append(dst, `"id":`...)
	if ev.ID != "" {
		dst = appendString(dst, ev.ID)
	} else {
		dst = append(dst, '"')
		dst = append(id.AppendEvent(dst, store, ev.Seq), '"')
	}
	if ev.Duplicate {
		dst = append(dst, `,"duplicate":true`...)
	}
	dst = append(dst, `,"deliveries":[`...)
	for i := range ev.Deliveries {
		if i > 0 {
			dst = append(dst, ',')
		}
		lane := ev.Deliveries[i].Lane
		dst = append(dst, `{"id":"`...)
		dst = append(dst, id.Delivery(store, uint32(lane), ev.Seq)...)
		dst = append(dst, `","webhook":`...)
		dst = append(appendString(dst, s.webhook(it, lane)), '}')
	}
	dst = append(dst, `],"skipped":[`...)
	for i := range ev.Skipped {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, `{"webhook":`...)
		dst = appendString(dst, s.webhook(it, ev.Skipped[i].Lane))
		dst = append(dst, `,"reason":"`...)
		dst = append(append(dst, ev.Skipped[i].Reason.String()...), `"}`...)
	}
	return append(dst, ']')
}

// webhook names a lane. A repeat may name one that left the file.
func (s *Server) webhook(it *item, lane queue.Lane) string {
	for i := range it.helper.Webhooks {
		if w := &it.helper.Webhooks[i]; w.Lane == lane {
			return w.Name
		}
	}
	return s.o.Store.LaneName(lane)
}

// appendError appends the member "error", with retry_after where there is no
// header to carry it.
func appendError(dst []byte, f *failure, inLine bool) []byte {
	dst = append(dst, `"error":{"code":`...)
	dst = appendString(dst, f.code)
	dst = append(dst, `,"message":`...)
	dst = appendString(dst, f.message)
	dst = append(dst, `,"field":`...)
	dst = appendString(dst, f.field)
	if f.offset >= 0 {
		dst = append(dst, `,"offset":`...)
		dst = strconv.AppendInt(dst, f.offset, 10)
	}
	if inLine && f.retryAfter > 0 {
		dst = append(dst, `,"retry_after":`...)
		dst = strconv.AppendInt(dst, int64(f.retryAfter), 10)
	}
	return append(dst, '}')
}

// appendResult appends the result line of one event of a stream.
func (s *Server) appendResult(dst []byte, it *item) []byte {
	if it.failure != nil {
		return appendFailedLine(dst, it.line, it.failure)
	}
	dst = appendLineHead(dst, it.line, statusOf(&it.ev))
	return append(s.appendAccepted(dst, it), "}\n"...)
}

func appendFailedLine(dst []byte, line int64, f *failure) []byte {
	return append(appendError(appendLineHead(dst, line, f.status), f, true), "}\n"...)
}

func appendLineHead(dst []byte, line int64, status int) []byte {
	dst = append(dst, `{"line":`...)
	dst = strconv.AppendInt(dst, line, 10)
	dst = append(dst, `,"status":`...)
	return append(strconv.AppendInt(dst, int64(status), 10), ',')
}

// appendString appends s as a JSON string (RFC 8259, section 7). Bytes that are
// not UTF-8 become U+FFFD.
func appendString(dst []byte, s string) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	from := 0
	for i := 0; i < len(s); {
		if c := s[i]; c < utf8.RuneSelf {
			if c < ' ' || c == '"' || c == '\\' {
				dst = append(dst, s[from:i]...)
				switch c {
				case '"', '\\':
					dst = append(dst, '\\', c)
				case '\n':
					dst = append(dst, '\\', 'n')
				default:
					dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
				}
				from = i + 1
			}
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size == 1 {
			dst = append(append(dst, s[from:i]...), "\ufffd"...)
			from = i + 1
		}
		i += size
	}
	return append(append(dst, s[from:]...), '"')
}
