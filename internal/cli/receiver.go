package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/secret"
	"github.com/peanutsapp/peanuts-relay/internal/signing"
)

// receiver is the handler of the receive command.
type receiver struct {
	*app

	flags   *receiveFlags
	secrets []secret.String

	// mu guards what follows and keeps lines whole.
	mu       sync.Mutex
	failures int             // answers that are still to be failures
	done     map[string]bool // delivery ids that were answered 2xx
	order    []string        // of done, oldest first
	counts   struct{ received, verified, invalid, duplicates int }
}

// maxRemembered bounds the delivery ids that duplicates are told by.
const maxRemembered = 100_000

// received is one request, as --json prints it: one flat object, so that a line
// of it can be read without a second level. Hence the number of fields.
type received struct {
	Time       string          `json:"time"`
	Method     string          `json:"method"`
	Path       string          `json:"path"`
	Event      string          `json:"event"`
	EntryID    string          `json:"entry_id"`
	EventID    string          `json:"event_id"`
	DeliveryID string          `json:"delivery_id"`
	Attempt    int             `json:"attempt"`
	Test       bool            `json:"test"`
	Bytes      int             `json:"bytes"`
	Status     int             `json:"status"` // as answered
	Duplicate  bool            `json:"duplicate"`
	Verified   *bool           `json:"verified"` // null when there was no secret
	Schemes    []string        `json:"schemes"`
	Problems   []string        `json:"problems"`
	Headers    http.Header     `json:"headers,omitempty"`
	Body       json.RawMessage `json:"body,omitempty"` // a text when it is not JSON
}

// ServeHTTP implements [http.Handler].
func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := readAllBounded(http.MaxBytesReader(w, req.Body, maxInput), maxInput)
	if err != nil {
		http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		return
	}
	rec := r.describe(req, body)
	r.verify(req.Header, body, &rec)
	r.decide(&rec)
	if r.flags.delay > 0 {
		select {
		case <-time.After(r.flags.delay):
		case <-req.Context().Done():
			return
		}
	}
	r.print(&rec, body)
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(rec.Status)
	if rec.Status != http.StatusNoContent && rec.Status != http.StatusNotModified {
		text := http.StatusText(rec.Status)
		if len(rec.Problems) > 0 && rec.Status == http.StatusUnauthorized {
			text = strings.Join(rec.Problems, "\n")
		}
		_, _ = io.WriteString(w, text+"\n")
	}
}

func (r *receiver) describe(req *http.Request, body []byte) received {
	h := req.Header
	rec := received{
		Time: r.Now().UTC().Format("2006-01-02T15:04:05.000Z"), Method: req.Method, Path: req.URL.RequestURI(),
		Event: h.Get("X-Peanuts-Event"), EventID: h.Get("X-Peanuts-Event-Id"), Test: h.Get("X-Peanuts-Test") == "true",
		DeliveryID: h.Get("X-Peanuts-Delivery"), Bytes: len(body), Schemes: []string{}, Problems: []string{},
	}
	if rec.DeliveryID == "" {
		rec.DeliveryID = h.Get(signing.HeaderStandardID)
	}
	rec.Attempt, _ = strconv.Atoi(h.Get("X-Peanuts-Attempt"))
	// Both formats; what the body lacks stays empty.
	var payload struct {
		Event string `json:"event"`
		Type  string `json:"type"`
		Entry struct {
			ID string `json:"id"`
		} `json:"entry"`
		Data struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	if json.Unmarshal(body, &payload) == nil {
		rec.Event = firstOf(rec.Event, payload.Event, payload.Type)
		rec.EntryID = firstOf(payload.Entry.ID, payload.Data.ID)
	}
	if r.flags.header {
		rec.Headers = h
	}
	if r.flags.body {
		rec.Body = quoteJSON(string(body))
		if json.Valid(body) {
			rec.Body = body
		}
	}
	return rec
}

func firstOf(words ...string) string {
	for _, w := range words {
		if w != "" {
			return w
		}
	}
	return ""
}

// verify checks every signature that the request carries; all must be valid.
func (r *receiver) verify(headers http.Header, body []byte, rec *received) {
	specs := signatureSpecs(headers)
	for _, spec := range specs {
		rec.Schemes = append(rec.Schemes, string(spec.Scheme))
	}
	if len(r.secrets) == 0 {
		return
	}
	if len(specs) == 0 {
		rec.Problems = append(rec.Problems, "the request has no signature")
	}
	for _, spec := range specs {
		err := signing.Verify(signing.VerifyInput{Spec: spec, Headers: headers, Body: body, Secrets: r.secrets, Now: r.Now()})
		if err != nil {
			rec.Problems = append(rec.Problems, schemeError(spec, err))
		}
	}
	rec.Verified = new(len(rec.Problems) == 0)
}

// decide counts the request and settles the answer: a failure that was asked
// for, then a bad signature, then --status.
func (r *receiver) decide(rec *received) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts.received++
	invalid := rec.Verified != nil && !*rec.Verified
	switch {
	case invalid:
		r.counts.invalid++
	case rec.Verified != nil:
		r.counts.verified++
	}
	switch {
	case r.failures > 0:
		r.failures--
		rec.Status = http.StatusInternalServerError
		if r.flags.status != 0 {
			rec.Status = r.flags.status
		}
	case invalid:
		rec.Status = http.StatusUnauthorized
	case r.flags.status != 0 && r.flags.fail == 0:
		rec.Status = r.flags.status
	default:
		rec.Status = http.StatusOK
	}
	if rec.DeliveryID == "" {
		return
	}
	if r.done[rec.DeliveryID] {
		rec.Duplicate = true
		r.counts.duplicates++
	} else if rec.Status < 300 {
		r.remember(rec.DeliveryID)
	}
}

func (r *receiver) remember(deliveryID string) {
	if len(r.order) == maxRemembered {
		delete(r.done, r.order[0])
		r.order = r.order[1:]
	}
	r.done[deliveryID] = true
	r.order = append(r.order, deliveryID)
}

func (r *receiver) print(rec *received, body []byte) {
	var b bytes.Buffer
	if r.flags.json {
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		// Every field can be encoded: Body was checked.
		_ = enc.Encode(rec)
	} else {
		r.line(&b, rec)
		for _, name := range slices.Sorted(maps.Keys(rec.Headers)) {
			for _, value := range rec.Headers[name] {
				fmt.Fprintf(&b, "  %s: %s\n", oneLine(name), oneLine(value))
			}
		}
		if r.flags.body {
			fmt.Fprintf(&b, "  %s\n", strings.ReplaceAll(safeText(string(body)), "\n", "\n  "))
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	_, _ = r.Out.Write(b.Bytes())
}

// line is the request for people: time, answer, event, entry, delivery, attempt
// and what became of the signature.
func (r *receiver) line(b *bytes.Buffer, rec *received) {
	st := r.outStyle()
	status := strconv.Itoa(rec.Status)
	if rec.Status < 300 {
		status = st.good(status)
	} else {
		status = st.bad(status)
	}
	fields := []string{r.Now().Local().Format(time.TimeOnly), status}
	what := firstOf(rec.Event, rec.Method+" "+rec.Path)
	fields = append(fields, oneLine(what), oneLine(dash(rec.EntryID)), oneLine(dash(rec.DeliveryID)))
	if rec.Attempt > 0 {
		fields = append(fields, "attempt "+strconv.Itoa(rec.Attempt))
	}
	fields = append(fields, plural(rec.Bytes, "byte", "bytes"))
	if rec.Test {
		fields = append(fields, "test")
	}
	if rec.Duplicate {
		fields = append(fields, st.warn("duplicate"))
	}
	schemes := ""
	if len(rec.Schemes) > 0 {
		schemes = " (" + strings.Join(rec.Schemes, ", ") + ")"
	}
	switch {
	case rec.Verified == nil:
		fields = append(fields, st.faint("not checked"+schemes))
	case *rec.Verified:
		fields = append(fields, st.good("verified")+schemes)
	default:
		fields = append(fields, st.bad("NOT VERIFIED")+" "+oneLine(strings.Join(rec.Problems, "; ")))
	}
	b.WriteString(strings.Join(fields, "  ") + "\n")
}

func (r *receiver) summary() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.counts
	text := fmt.Sprintf("%s received, %d verified, %s", plural(c.received, "request", "requests"), c.verified, plural(c.duplicates, "duplicate", "duplicates"))
	if c.invalid > 0 {
		text += fmt.Sprintf(", %d with a signature that is not valid", c.invalid)
	}
	return text
}
