// Package slacktest is a Slack for tests: the methods of its Web API that post, edit and
// remove messages, and incoming webhooks.
//
// Guarantee: it answers as Slack does, errors included, and keeps channels and messages,
// so that a test sees what a member of the workspace would. What it does and why:
//
//   - A method that fails answers 200 with "ok": false
//     (https://docs.slack.dev/apis/web-api/#responses); a webhook with a status and a word
//     (https://api.slack.com/changelog/2016-05-17-changes-to-errors-for-incoming-webhooks).
//   - Tokens, scopes and memberships are checked
//     (https://docs.slack.dev/reference/methods/chat.postMessage and its like).
//   - An answer repeats the message. Whether the call went well, and where the message is,
//     comes first; what is not ASCII is escaped, which makes six bytes of a character.
//   - Blocks and texts that are too long or malformed are refused, never shortened; where
//     Slack does not say what it counts, the strictest reading holds.
//   - More than one message a second and channel, and more than 50 edits or removals a
//     minute, are answered 429 with Retry-After
//     (https://docs.slack.dev/apis/web-api/rate-limits). Slack lets short bursts through;
//     this one only those that were asked for.
package slacktest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Channel is one of the workspace.
type Channel struct {
	ID, Name string
	Private  bool
	Absent   bool // the app is not a member
	Archived bool
	ReadOnly bool // a preference keeps the app from posting
}

// Token is what an app signs in with.
type Token struct {
	Value  string
	App    string   // who posts; messages of another app cannot be edited
	Scopes []string // "chat:write", "chat:write.public"
	Error  string   // what is answered instead, such as "token_revoked"; "" = valid
}

// Message is one that was posted.
type Message struct {
	Channel, TS, App string
	Text             string
	Blocks           json.RawMessage
	Unfurl           bool // pages behind links are shown
	Edits            int
	Removed          bool
	Posted           time.Time
}

// Call is one request, as it arrived.
type Call struct {
	Method string // "chat.postMessage", or the path of a webhook
	Header http.Header
	Body   []byte
	Status int    // of the answer; 0 when there was none
	Error  string // of the answer; "" = ok
}

// Fault replaces the answers of a number of calls.
type Fault struct {
	Method       string // only of this method; "" = any
	Times        int    // 0 = 1
	Error        string // answered with 200 and "ok": false; webhooks answer the word alone
	Status       int    // 0 = 200
	RetryAfter   string // header; "" = none
	Body         string // the whole answer, instead of one made of Error
	AfterEffect, // does what was asked first
	Hang bool // does not answer until the sender gives up
}

// Options of a [Service].
type Options struct {
	Now         func() time.Time // nil = the real clock
	Burst       int              // how many messages a channel takes at once; 0 = 1
	KeepAll     bool             // compliance exports: nothing can be deleted
	EditWindow  time.Duration    // how long messages can be edited; 0 = for ever
	NoRateLimit bool
}

// Service is a Slack with one workspace, https://acme.slack.com. It is safe for
// concurrent use.
type Service struct {
	o Options

	mu       sync.Mutex
	channels []*Channel
	tokens   []Token
	webhooks map[string]string // path → id of the channel
	messages []*Message
	calls    []Call
	faults   []Fault
	buckets  map[string]time.Time   // by app and channel: when it is empty again
	edits    map[string][]time.Time // by app and method: those of the last minute
}

// New is an empty workspace.
func New(o Options) *Service {
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Burst = max(o.Burst, 1)
	return &Service{o: o, webhooks: map[string]string{}, buckets: map[string]time.Time{}, edits: map[string][]time.Time{}}
}

// SetChannel adds a channel, or replaces the one with its id.
func (s *Service) SetChannel(c Channel) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.channels = slices.DeleteFunc(s.channels, func(o *Channel) bool { return o.ID == c.ID })
	s.channels = append(s.channels, &c)
}

// SetToken adds a token, or replaces the one with its value.
func (s *Service) SetToken(t Token) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens = slices.DeleteFunc(s.tokens, func(o Token) bool { return o.Value == t.Value })
	s.tokens = append(s.tokens, t)
}

// SetWebhook makes a path such as "/services/T0/B0/xyz" an incoming webhook of a channel;
// "" removes it.
func (s *Service) SetWebhook(path, channel string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.webhooks[path] = channel
}

// Break adds faults, which are used up in order.
func (s *Service) Break(faults ...Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, faults...)
}

// Messages are those that members of a channel see, in order.
func (s *Service) Messages(channel string) []Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Message
	for _, m := range s.messages {
		if m.Channel == channel && !m.Removed {
			out = append(out, *m)
		}
	}
	return out
}

// Remove takes a message away as a member would, or all of a channel when ts is empty.
func (s *Service) Remove(channel, ts string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.messages {
		if m.Channel == channel && (ts == "" || m.TS == ts) {
			m.Removed = true
		}
	}
}

// Calls are all that arrived, in order.
func (s *Service) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls)
}

// maxRequest is what is read of a request.
const maxRequest = 4 << 20

// reply is what a call gets.
type reply struct {
	status     int
	retryAfter string
	err        string         // the word; "" = ok
	doc        map[string]any // of a method
	scopes     []string
	body       string // instead of all that
	hang       bool
}

// ServeHTTP answers methods below /api/ and webhooks.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxRequest))
	if err != nil {
		return // the sender gave up
	}
	method, isAPI := strings.CutPrefix(r.URL.Path, "/api/")
	a := s.handle(method, isAPI, r.Header, body)
	if a.hang {
		<-r.Context().Done()
		return
	}
	if a.retryAfter != "" {
		w.Header().Set("Retry-After", a.retryAfter)
	}
	out := a.body
	switch {
	case out != "":
	case isAPI:
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		if len(a.scopes) > 0 {
			w.Header().Set("X-Oauth-Scopes", strings.Join(a.scopes, ","))
		}
		out = document(a.err, a.doc)
	case a.err != "":
		out = a.err
	default:
		out = "ok"
	}
	w.WriteHeader(max(a.status, http.StatusOK))
	_, _ = io.WriteString(w, out) // the sender may be gone
}

func (s *Service) handle(method string, isAPI bool, header http.Header, body []byte) (a reply) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() {
		c := Call{Method: method, Header: header.Clone(), Body: body, Status: max(a.status, http.StatusOK), Error: a.err}
		if a.hang {
			c.Status = 0
		}
		s.calls = append(s.calls, c)
	}()
	i := slices.IndexFunc(s.faults, func(f Fault) bool { return f.Method == "" || f.Method == method })
	if i >= 0 {
		f := s.faults[i]
		if s.faults[i].Times--; s.faults[i].Times <= 0 {
			s.faults = slices.Delete(s.faults, i, i+1)
		}
		if f.AfterEffect {
			s.act(method, isAPI, header, body)
		}
		return reply{status: f.Status, retryAfter: f.RetryAfter, err: f.Error, body: f.Body, hang: f.Hang}
	}
	return s.act(method, isAPI, header, body)
}

// act does what a call asks for. s.mu is held.
func (s *Service) act(method string, isAPI bool, header http.Header, body []byte) reply {
	if !isAPI {
		return s.webhook(method, body)
	}
	value, ok := strings.CutPrefix(header.Get("Authorization"), "Bearer ")
	if !ok || value == "" {
		return reply{err: "not_authed"}
	}
	i := slices.IndexFunc(s.tokens, func(t Token) bool { return t.Value == value })
	if i < 0 {
		return reply{err: "invalid_auth"}
	}
	t := s.tokens[i]
	if t.Error != "" {
		return reply{err: t.Error}
	}
	var a reply
	switch method {
	case "auth.test":
		a = reply{doc: map[string]any{"url": "https://acme.slack.com/", "team": "Acme", "user": t.App, "team_id": "T0ACME", "user_id": "U0" + strings.ToUpper(t.App), "bot_id": "B0" + strings.ToUpper(t.App)}}
	case "chat.postMessage", "chat.update", "chat.delete":
		a = s.chat(method, t, header, body)
	default:
		a = reply{err: "unknown_method"}
	}
	a.scopes = t.Scopes
	return a
}

// arguments of the chat methods.
type arguments struct {
	Channel string          `json:"channel"`
	TS      string          `json:"ts"`
	Text    string          `json:"text"`
	Blocks  json.RawMessage `json:"blocks"`
	Unfurl  *bool           `json:"unfurl_links"`
}

func (s *Service) chat(method string, t Token, header http.Header, body []byte) reply {
	if !slices.Contains(t.Scopes, "chat:write") {
		return reply{err: "missing_scope", doc: map[string]any{"needed": "chat:write", "provided": strings.Join(t.Scopes, ",")}}
	}
	if kind, _, _ := strings.Cut(header.Get("Content-Type"), ";"); kind != "application/json" {
		return reply{err: "invalid_post_type"}
	}
	var args arguments
	if json.Unmarshal(body, &args) != nil {
		return reply{err: "invalid_json"}
	}
	i := slices.IndexFunc(s.channels, func(c *Channel) bool { return c.ID == args.Channel })
	if i < 0 && method == "chat.postMessage" { // only it knows names
		i = slices.IndexFunc(s.channels, func(c *Channel) bool { return c.Name == strings.TrimPrefix(args.Channel, "#") })
	}
	if i < 0 || (s.channels[i].Private && s.channels[i].Absent) {
		return reply{err: "channel_not_found"}
	}
	c := s.channels[i]
	switch method {
	case "chat.update":
		return s.update(t, c, args)
	case "chat.delete":
		return s.remove(t, c, args)
	}
	switch {
	case c.Archived:
		return reply{err: "is_archived"}
	case c.Absent && !slices.Contains(t.Scopes, "chat:write.public"):
		return reply{err: "not_in_channel"}
	case c.ReadOnly:
		return reply{err: "restricted_action_read_only_channel"}
	}
	if code, problems := check(args.Text, args.Blocks, maxPostText); code != "" {
		return malformed(code, problems)
	}
	if wait := s.tooFast(t.App + " " + c.ID); wait > 0 {
		return slow(wait)
	}
	m := s.post(c.ID, t.App, args)
	return reply{doc: map[string]any{"channel": c.ID, "ts": m.TS, "message": m.shown()}}
}

func malformed(code string, problems []string) reply {
	return reply{err: code, doc: map[string]any{"errors": problems, "response_metadata": map[string]any{"messages": problems}}}
}

// slow is the answer to too many calls.
func slow(wait time.Duration) reply {
	seconds := int((wait + time.Second - 1) / time.Second)
	return reply{status: http.StatusTooManyRequests, retryAfter: fmt.Sprint(seconds), err: "ratelimited"}
}

// post makes a message. s.mu is held.
func (s *Service) post(channel, app string, args arguments) *Message {
	now := s.o.Now()
	m := &Message{
		Channel: channel, App: app, Text: args.Text, Blocks: args.Blocks, Posted: now,
		TS:     fmt.Sprintf("%d.%06d", now.Unix(), len(s.messages)+1),
		Unfurl: args.Unfurl == nil || *args.Unfurl,
	}
	s.messages = append(s.messages, m)
	return m
}

// find is a message that members see, or why it cannot be changed.
func (s *Service) find(t Token, c *Channel, ts, notAllowed string) (*Message, string) {
	i := slices.IndexFunc(s.messages, func(m *Message) bool { return m.Channel == c.ID && m.TS == ts && !m.Removed })
	if i < 0 {
		return nil, "message_not_found"
	}
	if s.messages[i].App != t.App {
		return nil, notAllowed
	}
	return s.messages[i], ""
}

func (s *Service) update(t Token, c *Channel, args arguments) reply {
	m, code := s.find(t, c, args.TS, "cant_update_message")
	switch {
	case c.Archived:
		return reply{err: "is_inactive"}
	case code != "":
		return reply{err: code}
	case s.o.EditWindow > 0 && s.o.Now().Sub(m.Posted) > s.o.EditWindow:
		return reply{err: "edit_window_closed"}
	}
	if code, problems := check(args.Text, args.Blocks, maxUpdateText); code != "" {
		return malformed(code, problems)
	}
	if wait := s.tooMany(t.App + " chat.update"); wait > 0 {
		return slow(wait)
	}
	m.Text, m.Blocks = args.Text, args.Blocks
	m.Edits++
	return reply{doc: map[string]any{"channel": c.ID, "ts": m.TS, "text": m.Text, "message": m.shown()}}
}

func (s *Service) remove(t Token, c *Channel, args arguments) reply {
	m, code := s.find(t, c, args.TS, "cant_delete_message")
	switch {
	case code != "":
		return reply{err: code}
	case s.o.KeepAll:
		return reply{err: "compliance_exports_prevent_deletion"}
	}
	if wait := s.tooMany(t.App + " chat.delete"); wait > 0 {
		return slow(wait)
	}
	m.Removed = true
	return reply{doc: map[string]any{"channel": c.ID, "ts": m.TS}}
}

// shown is a message as answers repeat it, with all of its blocks.
func (m *Message) shown() map[string]any {
	return map[string]any{
		"type": "message", "user": "U0" + strings.ToUpper(m.App), "bot_id": "B0" + strings.ToUpper(m.App), "app_id": "A0" + strings.ToUpper(m.App), "team": "T0ACME",
		"text": m.Text, "blocks": m.Blocks, "ts": m.TS,
	}
}

// webhook posts to the channel behind a path.
func (s *Service) webhook(path string, body []byte) reply {
	channel, ok := s.webhooks[path]
	i := slices.IndexFunc(s.channels, func(c *Channel) bool { return c.ID == channel })
	var args arguments
	switch {
	case !strings.HasPrefix(path, "/services/"):
		return reply{status: http.StatusNotFound, err: "not found"}
	case !ok || channel == "":
		return reply{status: http.StatusNotFound, err: "no_service"}
	case i < 0:
		return reply{status: http.StatusNotFound, err: "channel_not_found"}
	case s.channels[i].Archived:
		return reply{status: http.StatusGone, err: "channel_is_archived"}
	case s.channels[i].ReadOnly:
		return reply{status: http.StatusForbidden, err: "action_prohibited"}
	case json.Unmarshal(body, &args) != nil:
		return reply{status: http.StatusBadRequest, err: "invalid_payload"}
	}
	if code, _ := check(args.Text, args.Blocks, maxPostText); code != "" {
		return reply{status: http.StatusBadRequest, err: code}
	}
	if wait := s.tooFast(path); wait > 0 {
		a := slow(wait)
		a.err = "rate_limited"
		return a
	}
	s.post(channel, path, args)
	return reply{}
}

// tooFast counts a message, or says how long to wait: a bucket that holds Burst and gets
// one a second. s.mu is held.
func (s *Service) tooFast(key string) time.Duration {
	if s.o.NoRateLimit {
		return 0
	}
	now := s.o.Now()
	empty := s.buckets[key]
	if empty.Before(now) {
		empty = now
	}
	if wait := empty.Sub(now) - time.Duration(s.o.Burst-1)*time.Second; wait > 0 {
		return wait
	}
	s.buckets[key] = empty.Add(time.Second)
	return 0
}

// tooMany counts a call of tier 3, or says how long to wait. s.mu is held.
func (s *Service) tooMany(key string) time.Duration {
	if s.o.NoRateLimit {
		return 0
	}
	now := s.o.Now()
	recent := slices.DeleteFunc(s.edits[key], func(t time.Time) bool { return now.Sub(t) >= time.Minute })
	s.edits[key] = recent
	if len(recent) >= 50 {
		return recent[0].Add(time.Minute).Sub(now)
	}
	s.edits[key] = append(recent, now)
	return 0
}
