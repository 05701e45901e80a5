package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/peanutsapp/peanuts-relay/sinks"
)

// Settings are those of one webhook: either WebhookURL, or Token and Channel.
type Settings struct {
	WebhookURL sinks.URL    `json:"webhook_url" description:"URL of an incoming webhook; it belongs to one channel, and its messages cannot be edited or deleted" example:"https://hooks.slack.com/services/T00000000/B00000000/XXXXXXXX"`
	Token      sinks.Secret `json:"token" description:"bot token (xoxb-…) of an app with the scope chat:write"`
	Channel    string       `json:"channel" description:"where the bot posts: a channel's id, or its name; the app has to be in it" maxLength:"100" example:"C0123456789"`
	OnDelete   string       `json:"on_delete" enum:"delete,strike" default:"delete" description:"what entry.deleted does to the entry's message: remove it, or strike it through; only with a token"`
	Template   string       `json:"template" maxLength:"16384" description:"text of the message, in Slack's mrkdwn, as a Go text/template over the event; one that comes out empty sends nothing"`
	BaseURL    string       `json:"base_url" pattern:"^https?://" description:"where requests go instead of https://slack.com and https://hooks.slack.com, for a proxy, a test or GovSlack" example:"https://slack-gov.com"`
}

// mode is how messages reach Slack.
type mode int

const (
	byWebhook mode = iota + 1
	byToken
)

// finding is one thing that is wrong with settings.
type finding struct {
	path, summary, detail string
	warning               bool
}

// check finds what the schema cannot say, and which mode it is.
func (s Settings) check() (mode, []finding) {
	var found []finding
	add := func(warning bool, path, summary, detail string) {
		found = append(found, finding{path, summary, detail, warning})
	}
	hook, token := s.WebhookURL.Reveal() != nil, !s.Token.IsZero()
	by := byWebhook
	switch {
	case hook && token:
		add(false, "/token", "webhook_url and token exclude each other", "keep the token to have messages edited and deleted, the webhook_url for the least rights")
	case hook:
		if s.Channel != "" {
			add(false, "/channel", "an incoming webhook posts to the one channel that it was made for", "leave channel out, or use a token")
		}
		if s.OnDelete == onDeleteStrike {
			add(true, "/on_delete", "an incoming webhook cannot change its messages: a deleted entry becomes a new message", "use a token, or leave on_delete out")
		}
		s.checkHook(add)
	case token:
		by = byToken
		s.checkToken(add)
	default:
		add(false, "", "how to reach Slack is missing", "say webhook_url, or token and channel")
	}
	if _, err := s.base(); err != nil {
		add(false, "/base_url", err.Error(), "")
	}
	if _, err := compile(s.Template); err != nil {
		add(false, "/template", err.Error(), "the names that a template can use are in docs/sinks/slack.md")
	}
	return by, found
}

const onDeleteStrike = "strike"

func (s Settings) checkHook(add func(warning bool, path, summary, detail string)) {
	u := s.WebhookURL.Reveal()
	copyIt := "copy it from the app's page at https://api.slack.com/apps, Incoming Webhooks"
	switch {
	case strings.HasPrefix(u.Path, "/workflows/"), strings.HasPrefix(u.Path, "/triggers/"):
		add(false, "/webhook_url", "the URL of a workflow, which takes no messages", copyIt)
	case !strings.HasPrefix(u.Path, "/services/"):
		add(false, "/webhook_url", "not the URL of an incoming webhook: its path has to begin with /services/", copyIt)
	case u.User != nil:
		add(false, "/webhook_url", "not the URL of an incoming webhook: it has no user and password", copyIt)
	case s.BaseURL == "" && u.Scheme != "https":
		add(false, "/webhook_url", "has to begin with https://", copyIt)
	case s.BaseURL == "" && !slices.Contains([]string{"hooks.slack.com", "hooks.slack-gov.com"}, strings.ToLower(u.Host)):
		add(false, "/webhook_url", "not the URL of an incoming webhook: its host has to be hooks.slack.com", copyIt)
	}
}

func (s Settings) checkToken(add func(warning bool, path, summary, detail string)) {
	if strings.Trim(s.Channel, "# ") == "" {
		add(false, "/channel", "with a token, channel says where to post", "give the channel's id: its name in Slack, View channel details, at the bottom")
	}
	token := s.Token.Reveal()
	switch install := "take the Bot User OAuth Token (xoxb-…) from the app's page at https://api.slack.com/apps, OAuth & Permissions"; {
	case strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }):
		add(false, "/token", "has a character that no token has, such as a blank or a line break", install)
	case strings.HasPrefix(token, "xapp-"), strings.HasPrefix(token, "xoxe-"):
		add(false, "/token", "a token of another kind: it cannot post messages", install)
	case strings.HasPrefix(token, "xoxe."):
		add(true, "/token", "a token that expires after 12 hours, and is not renewed here", "turn token rotation off for the app, and "+install)
	case !strings.HasPrefix(token, "xoxb-"):
		add(true, "/token", "not a bot token", install)
	}
}

// Validate reports what check finds and, online, whether Slack knows the token. An
// incoming webhook is not tried: each request is a message.
func (s Settings) Validate(ctx context.Context, v *sinks.Validation) {
	by, found := s.check()
	for _, f := range found {
		if f.warning {
			v.Warn(f.path, f.summary, f.detail)
		} else {
			v.Error(f.path, f.summary, f.detail)
		}
	}
	if !v.Online || by != byToken || slices.ContainsFunc(found, func(f finding) bool { return !f.warning }) {
		return
	}
	base, err := s.base()
	if err != nil {
		return // found above
	}
	a := &api{base: base, token: s.Token, client: v.Env.HTTP()}
	answer, err := a.call(ctx, authTest, struct{}{})
	switch refusal, refused := errors.AsType[*refusal](err); {
	case refused && sinks.VerdictOf(refusal.verdict()).Outcome == sinks.OutcomeMisconfigured:
		v.Error("/token", "Slack does not accept the token: "+refusal.code, hint(refusal.code))
	case err != nil:
		v.Warn("/token", "Slack could not be asked about the token: "+err.Error(), "")
	case answer.scopes != "" && !slices.Contains(strings.FieldsFunc(answer.scopes, func(r rune) bool { return r == ',' || r == ' ' }), "chat:write"):
		v.Error("/token", "the app may not post messages: its token lacks the scope chat:write", hint("missing_scope"))
	}
}

// base is the origin of the Web API.
func (s Settings) base() (string, error) {
	if s.BaseURL == "" {
		return "https://slack.com", nil
	}
	u, err := url.Parse(s.BaseURL)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", errors.New("has to be a URL of a host, such as http://127.0.0.1:8080, without user, query and fragment")
	}
	return strings.TrimSuffix(s.BaseURL, "/"), nil
}

// New is the plugin. What it opens shares one pacer.
func New() sinks.Plugin[Settings] {
	return newPlugin(newPacer(time.Second), time.Now)
}

func newPlugin(p *pacer, now func() time.Time) sinks.Plugin[Settings] {
	return sinks.Plugin[Settings]{
		Name:     "slack",
		Version:  cmp.Or(version, "unknown"),
		Summary:  "posts entries to a Slack channel, and keeps their messages up to date",
		Homepage: "https://github.com/peanutsapp/peanuts-relay/blob/main/docs/sinks/slack.md",
		// "Posting messages: 1 per second" and "Incoming webhooks: 1 per second"
		// (https://docs.slack.dev/apis/web-api/rate-limits).
		Capabilities: sinks.Capabilities{MaxConcurrency: 1, MaxPerSecond: 1, UsesState: true},
		Open: func(_ context.Context, env sinks.Env, s Settings) (sinks.Sink, error) {
			return open(p, now, env.HTTP(), s)
		},
	}
}

func open(p *pacer, now func() time.Time, client *http.Client, s Settings) (sinks.Sink, error) {
	by, found := s.check()
	for _, f := range found {
		if !f.warning {
			return nil, &sinks.SettingError{Path: f.path, Err: errors.New(f.summary)}
		}
	}
	tmpl, err := compile(s.Template)
	if err != nil {
		return nil, &sinks.SettingError{Path: "/template", Err: err}
	}
	base, err := s.base()
	if err != nil {
		return nil, &sinks.SettingError{Path: "/base_url", Err: err}
	}
	write := writer{template: tmpl, now: now}
	if by == byToken {
		return &bot{
			api:     &api{base: base, token: s.Token, client: client},
			writer:  write,
			pacer:   p,
			channel: strings.TrimSpace(s.Channel),
			strike:  s.OnDelete == onDeleteStrike,
		}, nil
	}
	to := s.WebhookURL.Reveal().String()
	if s.BaseURL != "" {
		u := *s.WebhookURL.Reveal()
		to = base + u.RequestURI()
	}
	if _, err := http.NewRequest(http.MethodPost, to, nil); err != nil {
		return nil, &sinks.SettingError{Path: "/webhook_url", Err: fmt.Errorf("not a URL that can be requested")}
	}
	return &hook{to: to, secrets: secretsOf(to), writer: write, pacer: p, client: client}, nil
}
