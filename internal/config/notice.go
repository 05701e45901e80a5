package config

import "strings"

// NoticeHelper is the helper that the events about the relay itself belong to. No
// file can define it, and no sender can name it.
const NoticeHelper = "relay"

// The events about the relay itself. Each is the id of the webhook that gets it, too.
const (
	NoticeFailing   = "relay.webhook.failing"
	NoticeRecovered = "relay.webhook.recovered"
	NoticeDelivery  = "relay.delivery.failed"
)

// Notices lists the webhooks of `notify`, in the order of the file, as
// [Config.Webhooks] lists the others. Each takes the one event that it is named
// after.
func (c *Config) Notices() []Webhook {
	var out []Webhook
	h := &Helper{ID: NoticeHelper, Name: "Peanuts Relay", Events: noticeEvents()}
	for i := range c.Notify {
		w := c.resolve(h, &c.Notify[i])
		w.ID, w.Format, w.Events = c.Notify[i].ID, formatEvent, []string{c.Notify[i].ID}
		out = append(out, w)
	}
	return out
}

// formatEvent is the word in the file.
const formatEvent = "event"

// KeyPath is where the files have a webhook or a notice, by its id.
func KeyPath(webhook string, below ...string) []string {
	for _, name := range noticeEvents() {
		if webhook == name {
			return append([]string{"notify", name}, below...)
		}
	}
	helper, id, _ := strings.Cut(webhook, ".")
	return append([]string{"helpers", helper, "webhooks", id}, below...)
}

// validateNotice checks a webhook of `notify` like any other of the http sink.
func (l *loader) validateNotice(c *Config, w *WebhookKeys) {
	path := []string{"notify", w.ID}
	h := &Helper{ID: NoticeHelper, Events: noticeEvents()}
	if w.Sink != SinkHTTP && w.Sink != "" {
		l.problem(under(path, "sink"), Finding{Code: codeMisplacedKey, Message: "events about the relay itself go out by the http sink", Suggestion: "remove the key and give a url"})
		return
	}
	for key, why := range map[string]string{"settings": "they are for plugins", "events": "it gets the event that it is named after"} {
		if at := under(path, key); l.present(at) && !l.failedBelow(at) {
			l.problem(at, Finding{Code: codeMisplacedKey, Message: quote(key) + " has no meaning here", Suggestion: why + "; remove it"})
		}
	}
	if at := under(path, "format"); l.present(at) && w.Format != formatEvent {
		l.problem(at, Finding{Code: codeMisplacedKey, Message: "events about the relay itself have the format event", Suggestion: "remove the key"})
	}
	l.validateSecrets(path, secretsOf{w.Secret, w.Secrets})
	l.validateURL(w, under(path, "url"))
	l.validateHeaders(w, under(path, "headers"))
	l.validateSignatures(c, h, w, path)
	l.validateTLS(w, under(path, "tls"))
}
