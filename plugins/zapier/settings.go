package main

import (
	"cmp"
	"context"
	"errors"
	"net/url"
	"regexp"
	"strings"

	"github.com/peanutsapp/peanuts-relay/sinks"
)

// Settings are those of one webhook.
type Settings struct {
	URL     sinks.URL `json:"url" required:"true" description:"the URL that the Zap's trigger shows (Webhooks by Zapier, Catch Hook)" example:"https://hooks.zapier.com/hooks/catch/123456/abcdef/"`
	Flatten bool      `json:"flatten" default:"true" description:"adds each field of the entry that is text, a number, true, false or null as data_<name> at the top, which Zapier's editor maps best"`
	BaseURL string    `json:"base_url" pattern:"^https?://" description:"where requests go instead of https://hooks.zapier.com, for a proxy or a test; the path stays that of url" example:"http://127.0.0.1:8080"`
}

// zapierHost is where Zapier takes hooks.
const zapierHost = "hooks.zapier.com"

// hookPath has the account and the hook; "silent" at the end makes Zapier answer
// without a body. legacyPath has no account.
var (
	hookPath   = regexp.MustCompile(`^/hooks/(catch|standard)/[^/]+/[^/]+(/.*)?$`)
	legacyPath = regexp.MustCompile(`^/hooks/(catch|standard)/[^/]+/?$`)
)

// Validate finds a URL that is not that of a Zap, which otherwise would show at the
// first delivery. Nothing is sent: every request to a hook starts the Zap.
func (s Settings) Validate(_ context.Context, v *sinks.Validation) {
	if _, err := s.target(); err != nil {
		if se, ok := errors.AsType[*sinks.SettingError](err); ok {
			v.Error(se.Path, se.Err.Error(), "copy the URL from the trigger of the Zap: Webhooks by Zapier, Catch Hook, tab Test")
		}
		return
	}
	if u := s.URL.Reveal(); legacyPath.MatchString(u.Path) {
		// https://help.zapier.com/hc/en-us/articles/29972220283789-Webhooks-by-Zapier-rate-limits
		v.Warn("/url", "an old URL without the number of the account: Zapier takes only 1,000 requests in five minutes there",
			"copy the URL from the Zap's trigger again")
	}
}

// target is where requests go. Its errors are [sinks.SettingError] and do not show the URL.
func (s Settings) target() (*url.URL, error) {
	wrong := func(path, what string) error { return &sinks.SettingError{Path: path, Err: errors.New(what)} }
	u := s.URL.Reveal()
	switch {
	case u == nil:
		return nil, wrong("/url", "the URL of the Zap is missing")
	case !hookPath.MatchString(u.Path) && !legacyPath.MatchString(u.Path):
		return nil, wrong("/url", "not the URL of a Zap: its path has to begin with /hooks/catch/ or /hooks/standard/")
	case u.User != nil:
		return nil, wrong("/url", "not the URL of a Zap: it has no user and password")
	case s.BaseURL == "" && u.Scheme != "https":
		return nil, wrong("/url", "has to begin with https://")
	case s.BaseURL == "" && !strings.EqualFold(u.Host, zapierHost):
		return nil, wrong("/url", "not the URL of a Zap: its host has to be "+zapierHost)
	case s.BaseURL == "":
		return u, nil
	}
	base, err := url.Parse(s.BaseURL)
	if err != nil || base.Host == "" || base.User != nil || base.RawQuery != "" || base.Fragment != "" {
		return nil, wrong("/base_url", "has to be a URL of a host, such as http://127.0.0.1:8080, without user, query and fragment")
	}
	to := *u
	to.Scheme, to.Host, to.User = base.Scheme, base.Host, nil
	to.Path = strings.TrimSuffix(base.Path, "/") + u.Path
	if u.RawPath != "" {
		to.RawPath = strings.TrimSuffix(base.EscapedPath(), "/") + u.RawPath
	}
	return &to, nil
}

// New is the plugin.
func New() sinks.Plugin[Settings] {
	return sinks.Plugin[Settings]{
		Name:     "zapier",
		Version:  cmp.Or(version, "unknown"),
		Summary:  "starts a Zap with each delivery (Webhooks by Zapier)",
		Homepage: "https://github.com/peanutsapp/peanuts-relay/blob/main/docs/sinks/zapier.md",
		// Zapier takes 30 requests a second for one hook
		// (https://docs.zapier.com/integrations/build/operating-constraints) and 10,000 in
		// five minutes for all hooks of a user, 33 a second
		// (https://help.zapier.com/hc/en-us/articles/29972220283789-Webhooks-by-Zapier-rate-limits).
		// A third of it leaves room for other webhooks; a burst and a second's rate together
		// stay below 30.
		Capabilities: sinks.Capabilities{MaxConcurrency: 4, MaxPerSecond: 10, Burst: 10},
		Open:         open,
	}
}

func open(_ context.Context, env sinks.Env, s Settings) (sinks.Sink, error) {
	to, err := s.target()
	if err != nil {
		return nil, err
	}
	return &sink{to: to, flatten: s.Flatten, client: env.HTTP(), secrets: secretsOf(s.URL.Reveal(), to)}, nil
}
