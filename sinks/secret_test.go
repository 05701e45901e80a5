package sinks_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
	"github.com/peanutsapp/peanuts-relay/sinks"
)

func TestASecretDoesNotPrint(t *testing.T) {
	const hidden = "s3cr3t"
	u, err := sinks.NewURL("https://user:" + hidden + "@example.com/" + hidden + "?token=" + hidden)
	if err != nil {
		t.Fatal(err)
	}
	secret := sinks.NewSecret(hidden)
	type inside struct {
		Secret  sinks.Secret
		secret  sinks.Secret
		pointer *sinks.Secret
		URL     sinks.URL
		url     sinks.URL
	}
	for name, v := range map[string]any{
		"secret": secret, "pointer": &secret, "url": u, "pointer to url": &u,
		"struct": inside{secret, secret, &secret, u, u}, "list": []any{secret, u}, "map": map[string]any{"a": secret, "b": u},
	} {
		var out bytes.Buffer
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T", "%p", "%t"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		fmt.Fprintln(&out, v, fmt.Errorf("%v", v))
		if b, err := json.Marshal(v); err != nil {
			t.Errorf("%s: %v", name, err)
		} else {
			out.Write(b)
		}
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "v", v)
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "v", v)
		if strings.Contains(out.String(), hidden) || strings.Contains(out.String(), fmt.Sprintf("%x", hidden)) || strings.Contains(out.String(), fmt.Sprintf("%X", hidden)) {
			t.Errorf("%s: %s", name, out.String())
		}
	}
	if got := fmt.Sprintf("%s %q %v %s", secret, secret, u, sinks.Secret{}); got != `******** "********" https://example.com/…`+" " {
		t.Error(got)
	}
	if text, err := secret.MarshalText(); err != nil || string(text) != "********" {
		t.Errorf("%s, %v", text, err)
	}
	if text, err := u.MarshalText(); err != nil || string(text) != "https://example.com/…" {
		t.Errorf("%s, %v", text, err)
	}
	if got := fmt.Sprintf("%#v", secret) + secret.GoString() + u.GoString(); strings.Contains(got, hidden) {
		t.Error(got)
	}
}

func TestASecretReveals(t *testing.T) {
	var s sinks.Secret
	if !s.IsZero() || s.Reveal() != "" || s.String() != "" || !sinks.NewSecret("").IsZero() || sinks.NewSecret("a").IsZero() {
		t.Error("an unset secret is something")
	}
	if err := json.Unmarshal([]byte(`"a\"b"`), &s); err != nil || s.Reveal() != `a"b` {
		t.Errorf("%q, %v", s.Reveal(), err)
	}
	var u sinks.URL
	if !u.IsZero() || u.Reveal() != nil || u.Host() != "" || u.String() != "" {
		t.Error("an unset URL is something")
	}
	if err := json.Unmarshal([]byte(`"HTTPS://example.com:8443"`), &u); err != nil || u.IsZero() || u.Host() != "example.com:8443" {
		t.Errorf("%v, %v", u, err)
	}
	u.Reveal().Path = "/changed"
	if u.Reveal().Path != "" {
		t.Error("what Reveal gives is not a copy")
	}
	for _, bad := range []string{"1", "{}", `"relative"`, `"ftp://a"`, `"https://"`, `"https://a:b"`, `"mailto:a@b"`} {
		if err := json.Unmarshal([]byte(bad), &u); err == nil {
			t.Errorf("%s is a URL", bad)
		}
	}
	if err := json.Unmarshal([]byte(`47110815`), &s); err == nil || strings.Contains(err.Error(), "4711") {
		t.Errorf("%v", err)
	}
}

// leaky are settings whose every secret the sink below lets out.
type leaky struct {
	Hook   sinks.URL               `json:"hook"`
	Token  sinks.Secret            `json:"token"`
	Old    string                  `json:"old" secret:"true"`
	More   []sinks.Secret          `json:"more"`
	Named  map[string]sinks.Secret `json:"named"`
	Inner  *leakyInner             `json:"inner"`
	Plain  string                  `json:"plain"`
	Nobody *leakyInner             `json:"nobody"`
}

type leakyInner struct {
	Token sinks.Secret `json:"token"`
}

const leakySettings = `{"hook":"https://user:pass%20word@example.com/hooks/path-secret?key=query-secret","token":"token secret/1","old":"old-secret","more":["more-secret"],
	"named":{"a":"named-secret"},"inner":{"token":"inner-secret"},"plain":"plain-word"}`

// all lists everything about them that must not be seen, as text.
func (l leaky) all() string {
	return strings.Join([]string{l.Hook.Reveal().String(), l.Hook.Reveal().RequestURI(), l.Hook.Reveal().Redacted(), l.Token.Reveal(), url.QueryEscape(l.Token.Reveal()), url.PathEscape(l.Token.Reveal()),
		l.Old, l.More[0].Reveal(), l.Named["a"].Reveal(), l.Inner.Token.Reveal(), l.Plain}, " ")
}

func (l leaky) Validate(_ context.Context, v *sinks.Validation) {
	v.Warn("", l.all(), l.all())
	v.Env.Logger().Info(l.all())
}

func TestASinkThatLeaksItsSecretsIsMasked(t *testing.T) {
	var log bytes.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewJSONHandler(&log, nil)))
	t.Cleanup(func() { slog.SetDefault(before) })

	client := serve(t, sinks.Plugin[leaky]{Open: func(_ context.Context, env sinks.Env, l leaky) (sinks.Sink, error) {
		env.Log.Warn(l.all(), "text", l.all(), "err", errors.New(l.all()), slog.Group("g", "text", l.all()))
		env.Log.With("text", l.all()).WithGroup("g").Info("x", "text", l.all())
		return sink{
			deliver: func(_ context.Context, d *sinks.Delivery) (sinks.Receipt, error) {
				receipt := sinks.Receipt{Message: l.all(), RemoteURL: l.all()}
				if d.Event == "error" {
					return receipt, sinks.Reject("x", errors.New(l.all()))
				}
				return receipt, nil
			},
			healthy: func(context.Context) error { return errors.New(l.all()) },
			close:   func() error { return errors.New(l.all()) },
		}, nil
	}})
	var said bytes.Buffer
	v, err := client.Validate(t.Context(), &sinkpb.ValidateRequest{SettingsJson: []byte(leakySettings)})
	fmt.Fprintln(&said, v, err)
	fmt.Fprintln(&said, configure(t, client, "a", leakySettings))
	fmt.Fprintln(&said, deliver(t, client, "a", &sinkpb.Delivery{}), deliver(t, client, "a", &sinkpb.Delivery{Event: "error"}))
	h, err := client.Health(t.Context(), &sinkpb.HealthRequest{})
	fmt.Fprintln(&said, h, err)
	if _, err := client.Close(t.Context(), &sinkpb.CloseRequest{Instance: "a"}); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(said.String(), "plain-word"); n < 7 {
		t.Fatalf("only %d times did it say something: %s", n, said.String())
	}
	if n := strings.Count(log.String(), "plain-word"); n < 6 {
		t.Fatalf("only %d times did it log something: %s", n, log.String())
	}
	for _, word := range []string{"path-secret", "query-secret", "pass%20word", "token secret", "token+secret", "token%20secret", "old-secret", "more-secret", "named-secret", "inner-secret"} {
		if strings.Contains(said.String(), word) {
			t.Errorf("%s is in an answer: %s", word, said.String())
		}
		if strings.Contains(log.String(), word) {
			t.Errorf("%s is in the log: %s", word, log.String())
		}
	}
}

func TestAnErrorOfARequestDoesNotNameItsPath(t *testing.T) {
	quiet(t)
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	var env sinks.Env
	client := serve(t, opens(sink{deliver: func(ctx context.Context, d *sinks.Delivery) (sinks.Receipt, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, gone.URL+"/bottoken/send?key=hidden", nil)
		if err != nil {
			return sinks.Receipt{}, err
		}
		resp, err := env.HTTP().Do(req)
		if err != nil {
			return sinks.Receipt{}, errors.Join(errors.New("first"), fmt.Errorf("send: %w", err))
		}
		return sinks.Receipt{}, resp.Body.Close()
	}}))
	configure(t, client, "a", "{}")
	r := deliver(t, client, "a", &sinkpb.Delivery{})
	if m := r.GetMessage(); strings.Contains(m, "bottoken") || strings.Contains(m, "hidden") || !strings.Contains(m, gone.URL+"/…") || !strings.Contains(m, "connection refused") {
		t.Errorf("message %q", m)
	}
}
