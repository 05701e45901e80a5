package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/peanutsapp/peanuts-relay/sinks"
)

// Methods of the Web API.
const (
	authTest    = "auth.test"
	postMessage = "chat.postMessage"
	update      = "chat.update"
	remove      = "chat.delete"
)

// maxAnswer is how much of an answer is read. One with a message repeats its blocks, and
// may be longer: see read.
const maxAnswer = 64 << 10

// api calls Slack's Web API (https://docs.slack.dev/apis/web-api).
type api struct {
	base   string
	token  sinks.Secret
	client *http.Client
}

// answer is what all methods answer, as far as it is used.
type answer struct {
	OK       bool   `json:"ok"`
	Error    string `json:"error"`
	Channel  string `json:"channel"`
	TS       string `json:"ts"`
	URL      string `json:"url"`    // of the workspace: auth.test
	Needed   string `json:"needed"` // scopes: missing_scope
	Provided string `json:"provided"`
	Metadata struct {
		Messages []string `json:"messages"` // what is wrong with the arguments
	} `json:"response_metadata"`

	scopes string // of the token, separated by commas; "" = Slack did not say
}

// refusal is an answer with "ok": false.
type refusal struct {
	method, code, detail string
}

func (r *refusal) Error() string {
	s := "Slack refused " + r.method + ": " + r.code
	if r.detail != "" {
		s += " (" + r.detail + ")"
	}
	if h := hint(r.code); h != "" {
		s += ": " + h
	}
	return s
}

// call makes one request. The error is a *[refusal] when Slack understood it and said no;
// else it says what to make of it as any error of Deliver does.
func (a *api) call(ctx context.Context, method string, args any) (answer, error) {
	body, err := encode(args)
	if err != nil {
		return answer{}, sinks.Reject("bad_message", fmt.Errorf("write the arguments of %s: %w", method, err))
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.base+"/api/"+method, bytes.NewReader(body))
	if err != nil {
		return answer{}, sinks.Misconfigured("base_url", errors.New("base_url cannot be requested"))
	}
	req.Header.Set("Authorization", "Bearer "+a.token.Reveal())
	resp, said, err := post(a.client, req, secretsOf(a.token.Reveal()))
	if err != nil {
		return answer{}, err
	}
	if resp.StatusCode != http.StatusOK {
		_, err := refused(resp)
		return answer{}, err
	}
	out, ok := read(said)
	if !ok {
		return answer{}, sinks.Retry("bad_answer", 0, fmt.Errorf("answered %s with 200, but not as Slack does", method))
	}
	out.scopes = resp.Header.Get("X-Oauth-Scopes")
	switch {
	case out.OK:
		return out, nil
	case out.Error == "ratelimited", out.Error == "rate_limited":
		resp.StatusCode = http.StatusTooManyRequests // so that Retry-After is read
		_, err := refused(resp)
		return answer{}, err
	}
	return answer{}, &refusal{method: method, code: word(out.Error), detail: out.detail()}
}

// read takes an answer as far as it goes. Slack says first whether it did what was asked
// for and where the message is; that the rest was cut off must not make a second message.
func read(said []byte) (a answer, ok bool) {
	if json.Unmarshal(said, &a) == nil {
		return a, true
	}
	a = answer{}
	members := map[string]json.RawMessage{}
	dec := json.NewDecoder(bytes.NewReader(said))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return a, false
	}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			break
		}
		var value json.RawMessage
		if dec.Decode(&value) != nil {
			break
		}
		if text, isText := name.(string); isText {
			members[text] = value
		}
	}
	whole, err := json.Marshal(members)
	if err != nil || json.Unmarshal(whole, &a) != nil {
		return answer{}, false
	}
	return a, a.OK || a.Error != ""
}

func (a answer) detail() string {
	parts := a.Metadata.Messages
	if a.Needed != "" {
		parts = append(slices.Clone(parts), "needed: "+a.Needed+", provided: "+a.Provided)
	}
	return sinks.Truncate(strings.Join(parts, "; "), 500)
}

// encode writes JSON as people read it.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// post sends a request with a JSON body and reads the answer, without secrets. The
// response's body holds the same text and need not be closed.
func post(client *http.Client, req *http.Request, secrets *strings.Replacer) (*http.Response, []byte, error) {
	// Without a charset Slack adds a warning to its answers.
	req.Header.Set("Content-Type", "application/json; charset=utf-8")
	req.Header.Set("User-Agent", "Peanuts-Webhook/1.0")
	resp, err := client.Do(req)
	if ue, ok := errors.AsType[*url.Error](err); ok {
		err = ue.Err // without the URL
	}
	if err != nil {
		// What is no answer of HTTP is in the error, and may repeat the request.
		if clean := secrets.Replace(err.Error()); clean != err.Error() {
			err = errors.New(clean)
		}
		return nil, nil, fmt.Errorf("post to Slack: %w", err)
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, nil, fmt.Errorf("read Slack's answer %d: %w", resp.StatusCode, err)
	}
	said = []byte(secrets.Replace(string(said)))
	resp.Body = io.NopCloser(bytes.NewReader(said))
	return resp, said, nil
}

// refused judges an answer by its status alone. The addresses are fixed, so that one
// which is not there, or somewhere else, is a matter of settings.
func refused(resp *http.Response) (sinks.Receipt, error) {
	receipt := sinks.Receipt{Status: resp.StatusCode}
	switch s := resp.StatusCode; {
	case s == http.StatusNotFound, s == http.StatusGone, s >= 300 && s < 400:
		return receipt, sinks.Misconfigured("not_slack", fmt.Errorf("answered %d: there is nothing of Slack at this address; correct base_url or webhook_url", s))
	case s >= 200 && s < 300:
		return receipt, sinks.Retry("bad_answer", 0, fmt.Errorf("answered %d, which Slack does not do", s))
	}
	return sinks.FromResponse(resp)
}

// notWord is what a code does not consist of.
var notWord = regexp.MustCompile(`[^a-z0-9_]+`)

// word makes a code of an error that Slack named.
func word(s string) string {
	s = notWord.ReplaceAllString(strings.ToLower(strings.TrimSpace(s)), "_")
	if s == "" {
		return "unknown_error"
	}
	return s[:min(len(s), 64)]
}

// secretsOf takes a token or a URL out of a text; of a URL also its path, and the end of it.
func secretsOf(secret string) *strings.Replacer {
	words := []string{secret}
	if u, err := url.Parse(secret); err == nil && u.Host != "" {
		path := strings.TrimSuffix(u.EscapedPath(), "/")
		words = append(words, path, path[strings.LastIndexByte(path, '/')+1:])
	}
	var pairs []string
	for _, w := range words {
		if len(w) >= 5 {
			pairs = append(pairs, w, "***")
		}
	}
	return strings.NewReplacer(pairs...)
}
