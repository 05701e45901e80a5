package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/peanutsapp/peanuts-relay/sinks"
)

const (
	// maxBody is what Zapier takes in one request, 10 MB
	// (https://docs.zapier.com/integrations/build/operating-constraints, "Webhook payload").
	maxBody = 10_000_000
	// maxAnswer is how much of an answer is read.
	maxAnswer = 64 << 10
)

type sink struct {
	to      *url.URL
	flatten bool
	client  *http.Client
	secrets *strings.Replacer // takes the URL out of what Zapier, or a proxy, says
}

// Deliver makes one request. It may be called concurrently.
func (s *sink) Deliver(ctx context.Context, d *sinks.Delivery) (sinks.Receipt, error) {
	b, err := body(d, s.flatten)
	if err != nil {
		return sinks.Receipt{}, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.to.String(), bytes.NewReader(b))
	if err != nil {
		return sinks.Receipt{}, errors.New("the request could not be made")
	}
	for name, value := range d.Headers {
		req.Header.Set(name, value)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "Peanuts-Webhook/1.0")
	req.Header.Set("X-Peanuts-Event", d.Event)
	req.Header.Set("X-Peanuts-Event-Id", d.EventID)
	req.Header.Set("X-Peanuts-Delivery", d.ID)
	req.Header.Set("X-Peanuts-Attempt", strconv.Itoa(d.Attempt))
	if d.Test {
		req.Header.Set("X-Peanuts-Test", "true")
	}
	resp, err := s.client.Do(req)
	if ue, ok := errors.AsType[*url.Error](err); ok {
		err = ue.Err // without the URL
	}
	if err != nil {
		// What is no answer of HTTP is in the error, and may repeat the request.
		if clean := s.secrets.Replace(err.Error()); clean != err.Error() {
			err = errors.New(clean)
		}
		return sinks.Receipt{}, fmt.Errorf("post to Zapier: %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil && len(answer) == 0 && resp.StatusCode < 300 {
		// The status says that Zapier has it; the body would only have named the request.
		return sinks.Receipt{Status: resp.StatusCode, Message: "accepted; the answer broke off"}, nil
	}
	return s.judge(resp, answer)
}

// judge says what an answer means. Zapier always answers 200 to a hook it has not
// forgotten, whether or not a Zap listens
// (https://help.zapier.com/hc/en-us/articles/8496288690317-Trigger-Zaps-from-webhooks).
func (s *sink) judge(resp *http.Response, answer []byte) (sinks.Receipt, error) {
	receipt := sinks.Receipt{Status: resp.StatusCode}
	switch status := resp.StatusCode; {
	case status >= 200 && status < 300:
		return s.accepted(receipt, answer)
	case status == http.StatusNotFound, status == http.StatusGone:
		return receipt, sinks.Misconfigured("unsubscribed", fmt.Errorf(
			"answered %d: nothing listens at this URL any more; turn the Zap on, or copy the URL of its trigger into the settings", status))
	case status == http.StatusRequestEntityTooLarge:
		return receipt, sinks.Reject("too_large", errors.New("answered 413: the event is too large for Zapier (10 MB)"))
	case status >= 300 && status < 400:
		return receipt, sinks.Misconfigured("redirected", fmt.Errorf(
			"answered %d, a redirection, which is not followed; copy the URL of the Zap's trigger into the settings, its last slash included", status))
	}
	resp.Body = io.NopCloser(strings.NewReader(s.secrets.Replace(string(answer))))
	return sinks.FromResponse(resp)
}

// accepted reads what a success says. Silent mode answers without a body.
func (s *sink) accepted(receipt sinks.Receipt, answer []byte) (sinks.Receipt, error) {
	var said struct {
		Status    string `json:"status"`
		RequestID string `json:"request_id"`
		ID        string `json:"id"`
	}
	_ = json.Unmarshal(answer, &said) // what is not JSON has no id, and is a success all the same
	if said.Status != "" && said.Status != "success" {
		return receipt, sinks.Retry("not_accepted", 0, fmt.Errorf("answered %d, but with the status %q",
			receipt.Status, s.secrets.Replace(sinks.Truncate(said.Status, 100))))
	}
	receipt.Message = "accepted by Zapier"
	if id := cmp.Or(said.RequestID, said.ID); id != "" {
		receipt.Message += ", request_id " + s.secrets.Replace(sinks.Truncate(id, 100))
	}
	return receipt, nil
}

// secretsOf takes URLs out of a text: whole, as a path, and the name of the hook alone.
func secretsOf(urls ...*url.URL) *strings.Replacer {
	var words []string
	for _, u := range urls {
		words = append(words, u.String(), u.Path, u.EscapedPath(), strings.TrimSuffix(u.Path, "/"), u.RawQuery)
		if parts := strings.Split(strings.Trim(u.Path, "/"), "/"); len(parts) > 2 {
			words = append(words, parts[2:]...)
		}
	}
	// A longer word first: strings.Replacer takes the first that fits.
	slices.SortFunc(words, func(a, b string) int { return len(b) - len(a) })
	var pairs []string
	for _, w := range words {
		if len(w) >= 5 && w != "silent" {
			pairs = append(pairs, w, "***")
		}
	}
	return strings.NewReplacer(pairs...)
}

// body is the payload with more members at its end: its own bytes are the beginning of
// the result, without the last brace.
func body(d *sinks.Delivery, flatten bool) ([]byte, error) {
	payload := bytes.TrimSpace(d.Payload)
	if !json.Valid(payload) || payload[0] != '{' {
		return nil, sinks.Reject("bad_payload", errors.New("the payload is not a JSON object"))
	}
	ids := member("event_id", quote(d.EventID)) + "," + member("delivery_id", quote(d.ID)) + "}"
	var added []byte
	if flatten {
		var err error
		if added, err = flat(d.Entry); err != nil {
			return nil, err
		}
	}
	begin := payload[:len(payload)-1]
	separator := ","
	if bytes.Equal(bytes.TrimSpace(begin), []byte("{")) {
		separator = ""
	}
	// Without the copies it may still fit.
	if len(begin)+len(separator)+len(added)+len(ids) > maxBody {
		added = nil
	}
	if n := len(begin) + len(separator) + len(ids); n > maxBody {
		return nil, sinks.Reject("too_large", fmt.Errorf("the request would have %d bytes; Zapier takes %d", n, maxBody))
	}
	return slices.Concat(begin, []byte(separator), added, []byte(ids)), nil
}

// flat are the entry's scalar fields as members `"data_<name>":value,`, in their order.
// Names of the payload's own members do not begin with "data_".
func flat(e sinks.Entry) ([]byte, error) {
	fields, err := e.Fields()
	if err != nil {
		return nil, sinks.Reject("bad_entry", fmt.Errorf("read the entry's fields: %w", err))
	}
	var b []byte
	for _, f := range fields {
		if len(f.Value) > 0 && (f.Value[0] == '{' || f.Value[0] == '[') {
			continue
		}
		b = append(b, member("data_"+f.Name, f.Value)...)
		b = append(b, ',')
	}
	return b, nil
}

func member(name string, value []byte) string {
	return string(quote(name)) + ":" + string(value)
}

// quote writes a JSON string in the payload's own way: nothing is escaped that need not be.
func quote(s string) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // a string always encodes
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
