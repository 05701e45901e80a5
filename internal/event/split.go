package event

import (
	"bytes"
	"time"
	"unicode/utf8"
)

// Parts are what a payload is made of. Data is a part of the payload itself, byte by
// byte; texts are decoded, with U+FFFD for what UTF-8 cannot say.
type Parts struct {
	Type      string
	ID        string    // of the event; only FormatEvent has it
	Timestamp time.Time // of the event
	// Helper is what the payload says of it; zero in FormatEvent.
	Helper    struct{ ID, Name, Command string }
	EntryID   string    // "" in FormatEvent, which has it within Data
	CreatedAt time.Time // of the entry; zero in FormatEvent
	Data      []byte    // a JSON object
	UserID    string
	HasUser   bool
}

// Split takes a payload of either format apart, without copying or rewriting the data.
// ok is false when [Encode] cannot have written it; what was found is returned all the
// same.
func Split(payload []byte) (p Parts, ok bool) {
	if len(payload) < 2 || payload[0] != '{' || payload[len(payload)-1] != '}' {
		return p, false
	}
	ok = true
	timed := false
	for key, value := range members(payload) {
		switch string(key) {
		case "event", "type":
			ok = ok && takeText(&p.Type, value)
		case "id":
			ok = ok && takeText(&p.ID, value)
		case "timestamp", "created_at":
			timed = takeTime(&p.Timestamp, value)
			ok = ok && timed
		case "data":
			p.Data = value
		case "helper":
			for key, value := range members(value) {
				switch string(key) {
				case "id":
					ok = ok && takeText(&p.Helper.ID, value)
				case "name":
					ok = ok && takeText(&p.Helper.Name, value)
				case "command":
					ok = ok && takeText(&p.Helper.Command, value)
				}
			}
		case "entry":
			ok = ok && p.takeEntry(value)
		case "user":
			p.HasUser = true
			for key, value := range members(value) {
				if string(key) == "id" {
					ok = ok && takeText(&p.UserID, value)
				}
			}
		}
	}
	return p, ok && timed && p.Type != "" && len(p.Data) > 1 && p.Data[0] == '{'
}

func (p *Parts) takeEntry(entry []byte) bool {
	ok := true
	for key, value := range members(entry) {
		switch string(key) {
		case "id":
			ok = ok && takeText(&p.EntryID, value)
		case "data":
			p.Data = value
		case "created_at":
			ok = ok && takeTime(&p.CreatedAt, value)
		}
	}
	return ok
}

// quoted is what stands between the quotes of a JSON string.
func quoted(value []byte) (raw []byte, ok bool) {
	if len(value) < 2 || value[0] != '"' || value[len(value)-1] != '"' {
		return nil, false
	}
	return value[1 : len(value)-1], true
}

func takeText(to *string, value []byte) bool {
	raw, ok := quoted(value)
	if !ok {
		return false
	}
	if !bytes.Contains(raw, []byte{'\\'}) {
		*to = validText(raw)
		return true
	}
	text := make([]byte, 0, len(raw))
	for len(raw) > 0 {
		if raw[0] != '\\' {
			next := bytes.IndexByte(raw, '\\')
			if next < 0 {
				next = len(raw)
			}
			text = append(text, raw[:next]...)
			raw = raw[next:]
			continue
		}
		n, err := escapeLen(raw, 0)
		if err != nil {
			return false
		}
		r, m := unescape(raw)
		text = utf8.AppendRune(text, r) // a lone surrogate becomes U+FFFD
		raw = raw[max(n, m):]
	}
	*to = validText(text)
	return true
}

// validText copies raw once, and the types that every helper has not at all:
// bytes.ToValidUTF8 always copies.
func validText(raw []byte) string {
	switch {
	case string(raw) == Created:
		return Created
	case string(raw) == Updated:
		return Updated
	case string(raw) == Deleted:
		return Deleted
	case utf8.Valid(raw):
		return string(raw)
	}
	return string(bytes.ToValidUTF8(raw, []byte("\uFFFD")))
}

func takeTime(to *time.Time, value []byte) (ok bool) {
	raw, ok := quoted(value)
	if ok {
		*to, ok = parseTime(raw)
	}
	return ok
}
