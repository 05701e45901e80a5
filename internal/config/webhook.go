package config

import (
	"cmp"
	"slices"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/event"
	"github.com/peanutsapp/peanuts-relay/internal/secret"
	"github.com/peanutsapp/peanuts-relay/internal/signing"
)

// SinkHTTP is the built-in sink.
const SinkHTTP = "http"

// Webhook is one webhook with everything resolved that it inherits. It has one
// field for each thing the relay needs to run it, hence their number.
type Webhook struct {
	ID             string  // "helper.webhook"
	Helper         *Helper // never nil
	URL            secret.String
	Headers        []Header
	Secrets        []secret.String // its own, its helper's or the file's; empty only when SignaturesNone or for a plugin
	Signatures     []Signature     // at least one, unless SignaturesNone or a plugin has no secret
	SignaturesNone bool
	Format         string   // "peanuts" or "event"
	Events         []string // full names such as "entry.created"; nil = all, empty = none
	Enabled        bool
	Retry          Retry // complete
	Concurrency    int   // 1 to 1024
	Ordering       string
	TLS            TLS // absolute paths
	Sink           string
	Settings       map[string]any // every text in it is a secret.String
	SettingsJSON   secret.String  // the same as a JSON object, keys in the order of the file; only for a plugin
}

// Webhooks lists all webhooks in the order of the file. The result is the
// caller's; what its elements point to is shared and must not be modified.
func (c *Config) Webhooks() []Webhook {
	var out []Webhook
	for i := range c.Helpers {
		h := &c.Helpers[i]
		for j := range h.Webhooks {
			out = append(out, c.resolve(h, &h.Webhooks[j]))
		}
	}
	return out
}

func (c *Config) resolve(h *Helper, w *WebhookKeys) Webhook {
	out := Webhook{
		ID:             h.ID + "." + w.ID,
		Helper:         h,
		URL:            w.URL,
		Headers:        w.Headers,
		Secrets:        c.secrets(h, w),
		Signatures:     w.Signatures.List,
		SignaturesNone: w.Signatures.None,
		Format:         w.Format,
		Events:         h.selected(w.Events),
		Enabled:        w.Enabled,
		Retry: Retry{
			Schedule: orInherited(w.Retry.Schedule, c.Retry.Schedule),
			Timeout:  cmp.Or(w.Retry.Timeout, c.Retry.Timeout),
			AlsoOn:   orInherited(w.Retry.AlsoOn, c.Retry.AlsoOn),
		},
		Concurrency: w.Concurrency,
		Ordering:    w.Ordering,
		TLS:         w.TLS,
		Sink:        w.Sink,
		Settings:    w.Settings,
	}
	if out.Sink != SinkHTTP {
		out.SettingsJSON = secret.New(cmp.Or(c.settings[out.ID], "{}"))
	}
	switch {
	case out.SignaturesNone:
		out.Secrets = nil
	case len(out.Signatures) == 0 && (out.Sink == SinkHTTP || len(out.Secrets) > 0):
		out.Signatures = []Signature{{Scheme: "peanuts"}}
	}
	return out
}

// orInherited tells an empty list, which counts, from an absent one.
func orInherited[T int | time.Duration](own, inherited []T) []T {
	if own != nil {
		return own
	}
	return inherited
}

// secrets are those nearest to the webhook.
func (c *Config) secrets(h *Helper, w *WebhookKeys) []secret.String {
	return c.nearest(h, w).list()
}

// nearest is the pair of keys that the webhook's secrets come from: its own, its
// helper's or the file's.
func (c *Config) nearest(h *Helper, w *WebhookKeys) secretsOf {
	for _, s := range []secretsOf{{w.Secret, w.Secrets}, {h.Secret, h.Secrets}, {c.Secret, c.Secrets}} {
		if len(s.list()) > 0 {
			return s
		}
	}
	return secretsOf{}
}

// effective is the webhook as the file would have it if it inherited nothing,
// under the id that it has outside of its helper.
func (c *Config) effective(h *Helper, w *WebhookKeys) WebhookKeys {
	r, out := c.resolve(h, w), *w
	out.ID, out.Events, out.Retry = r.ID, r.Events, RetryKeys(r.Retry)
	out.Signatures = Signatures{None: r.SignaturesNone, List: r.Signatures}
	out.Secret, out.Secrets = secret.String{}, nil
	if len(r.Secrets) > 0 {
		from := c.nearest(h, w)
		out.Secret, out.Secrets = from.one, from.many
	}
	return out
}

// selected turns the words of `events` into full names, each once. It leaves out
// unknown ones, which Load has refused.
func (h *Helper) selected(words []string) []string {
	out := []string{}
	for _, word := range words {
		if word == "all" {
			return nil
		}
		if name := h.eventName(word); name != "" && !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

// eventName is the full name of an event, "" when the helper has none such.
func (h *Helper) eventName(word string) string {
	switch word {
	case "create", "created", event.Created:
		return event.Created
	case "update", "updated", event.Updated:
		return event.Updated
	case "delete", "deleted", event.Deleted:
		return event.Deleted
	}
	if slices.Contains(h.Events, word) {
		return word
	}
	return ""
}

// ForEvents is the helper as events are read and payloads written for it.
func (h *Helper) ForEvents() event.Helper {
	out := event.Helper{ID: h.ID, Name: h.Name, Command: h.Command, Events: h.Events}
	for _, f := range h.Fields {
		out.Fields = append(out.Fields, event.Field{Name: f.Name, Type: event.FieldType(f.Type)})
	}
	return out
}

// Takes are the types of events that the webhook gets; nil = all.
func (w *Webhook) Takes() map[string]bool {
	if w.Events == nil {
		return nil
	}
	takes := make(map[string]bool, len(w.Events))
	for _, name := range w.Events {
		takes[name] = true
	}
	return takes
}

// PayloadFormat is Format as package event numbers it.
func (w *Webhook) PayloadFormat() event.Format {
	if w.Format == "event" {
		return event.FormatEvent
	}
	return event.FormatPeanuts
}

// Spec is the signature as package signing has it.
func (s Signature) Spec() signing.Spec {
	return signing.Spec{Scheme: signing.Scheme(s.Scheme), Header: s.Header}
}

// Signer makes what signs the webhook's requests; nil for SignaturesNone and for a
// plugin without a secret.
func (w *Webhook) Signer() (*signing.Signer, error) {
	if w.SignaturesNone || len(w.Signatures) == 0 {
		return nil, nil
	}
	specs := make([]signing.Spec, len(w.Signatures))
	for i, s := range w.Signatures {
		specs[i] = s.Spec()
	}
	return signing.New(specs, w.Secrets)
}

// ShownURL is where the webhook posts to as it may be shown: references as the
// file has them, of a literal URL scheme and host, the rest masked.
func (w *Webhook) ShownURL() string {
	if w.URL.IsLiteral() {
		return redact(w.URL.Reveal(), true)
	}
	return w.URL.Reference()
}
