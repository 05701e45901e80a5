package api

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/event"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

const (
	maxBody      = 1 << 20
	defaultLimit = 50
	maxLimit     = 1000
	maxCursor    = 256 // bytes; a cursor of the store is far shorter
)

// params returns the query's parameters, each of which must be known and given
// at most once.
func params(r *http.Request, known ...string) (url.Values, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, bad("", "the query cannot be read: %v", err)
	}
	for name, given := range values {
		if !slices.Contains(known, name) {
			return nil, bad(name, "unknown parameter %q%s", name, instead(name, known))
		}
		if len(given) > 1 {
			return nil, bad(name, "parameter %q is given %d times", name, len(given))
		}
	}
	return values, nil
}

// instead ends a sentence about an unknown word with what was probably meant
// and what there is.
func instead(word string, known []string) string {
	var b strings.Builder
	if meant := event.Suggest(word, known); meant != "" {
		b.WriteString(", did you mean " + strconv.Quote(meant) + "?")
		return b.String()
	}
	if len(known) == 0 {
		return "; there are none"
	}
	b.WriteString("; there are: " + strings.Join(known, ", "))
	return b.String()
}

// decode reads a JSON object into v and lifts the deadline that guard set for
// it. An empty body leaves v as it is.
func decode(w http.ResponseWriter, r *http.Request, v any, known ...string) error {
	body, err := readBody(w, r)
	if err != nil || len(body) == 0 {
		return err
	}
	if _, err := keys("", body, known...); err != nil {
		return err
	}
	return fillIn(body, v)
}

// readBody reads the whole body, which must be JSON by its type; an empty one
// has none.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(r.Body)
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	if err != nil {
		if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return nil, fail(http.StatusRequestEntityTooLarge, rest.CodeTooLarge, "", "the body is larger than %d bytes", tooLarge.Limit)
		}
		return nil, bad("", "the body cannot be read: %v", err)
	}
	if kind := r.Header.Get("Content-Type"); kind != "" && len(body) > 0 {
		if media, _, err := mime.ParseMediaType(kind); err != nil || media != "application/json" {
			return nil, fail(http.StatusUnsupportedMediaType, rest.CodeUnsupportedType, "Content-Type", "the body must be application/json, not %q", kind)
		}
	}
	return body, nil
}

// keys takes a JSON object apart. Its keys must be known, with their case, and
// given once each, neither of which encoding/json minds. field is where the
// object stands; "" = it is the body.
func keys(field string, object []byte, known ...string) (map[string]json.RawMessage, error) {
	what := cmp.Or(field, "the body")
	var all map[string]json.RawMessage
	if err := json.Unmarshal(object, &all); err != nil {
		return nil, bad(field, "%s is not a JSON object: %v", what, err)
	}
	// It is well-formed: what follows meets no error.
	dec := json.NewDecoder(bytes.NewReader(object))
	_, _ = dec.Token()
	seen := make(map[string]bool, len(all))
	for dec.More() {
		token, _ := dec.Token()
		key, _ := token.(string)
		at := key
		if field != "" {
			at = field + "." + key
		}
		if !slices.Contains(known, key) {
			return nil, bad(at, "unknown key %q%s", at, instead(key, known))
		}
		if seen[key] {
			return nil, bad(at, "key %q is given twice", at)
		}
		seen[key] = true
		var skipped json.RawMessage
		_ = dec.Decode(&skipped)
	}
	return all, nil
}

// fillIn decodes a JSON object whose keys were checked.
func fillIn(object []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(object))
	dec.UseNumber() // where the kind of number is open, see number
	if err := dec.Decode(v); err != nil {
		if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return bad(wrong.Field, "%q must be a %s, not a %s", wrong.Field, jsonKind(wrong.Type.String()), wrong.Value)
		}
		return bad("", "the body cannot be decoded: %v", err)
	}
	return nil
}

func jsonKind(goType string) string {
	switch {
	case goType == "bool":
		return "boolean"
	case goType == "float64":
		return "number"
	case goType == "int":
		return "whole number"
	case strings.HasPrefix(goType, "[]"):
		return "list"
	case strings.HasPrefix(goType, "map["):
		return "JSON object"
	}
	return goType
}

// moment reads a time: RFC 3339, or a duration before now. "" is the zero time.
func moment(field, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	if ago, ok := duration(text); ok {
		return now.Add(-ago), nil
	}
	return time.Time{}, bad(field, "%q is neither a time such as 2025-01-15T14:32:00Z nor a duration ago such as 90m, 2h or 7d", text)
}

// duration reads a Go duration that may begin with a number of days. A century
// is the most that makes sense and keeps the arithmetic far from overflow.
func duration(text string) (time.Duration, bool) {
	const most = 100 * 365 * 24 * time.Hour
	var days time.Duration
	if before, after, ok := strings.Cut(text, "d"); ok {
		n, err := strconv.ParseUint(before, 10, 16)
		if err != nil {
			return 0, false
		}
		days = time.Duration(n) * 24 * time.Hour
		text = after
		if text == "" {
			return days, days <= most
		}
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 || d > most {
		return 0, false
	}
	return days + d, days+d <= most
}

// span reads since and until.
func span(since, until string, now time.Time) (from, to time.Time, err error) {
	if from, err = moment("since", since, now); err != nil {
		return from, to, err
	}
	if to, err = moment("until", until, now); err != nil {
		return from, to, err
	}
	if !from.IsZero() && !to.IsZero() && !from.Before(to) {
		return from, to, bad("until", "until (%s) is not after since (%s)", rest.At(to), rest.At(from))
	}
	return from, to, nil
}

// statuses reads a list separated by commas, each one of known.
func statuses(text string, known []string) ([]string, error) {
	if text == "" {
		return nil, nil
	}
	var list []string
	for word := range strings.SplitSeq(text, ",") {
		word = strings.TrimSpace(word)
		if !slices.Contains(known, word) {
			return nil, bad("status", "unknown status %q%s", word, instead(word, known))
		}
		if !slices.Contains(list, word) {
			list = append(list, word)
		}
	}
	return list, nil
}

// limitOf reads limit.
func limitOf(text string) (int, error) {
	if text == "" {
		return defaultLimit, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > maxLimit {
		return 0, bad("limit", "limit must be a number from 1 to %d, not %q", maxLimit, text)
	}
	return n, nil
}
