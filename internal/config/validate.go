package config

import (
	"fmt"
	"net/netip"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"unicode"

	"github.com/peanutsapp/peanuts-relay/internal/egress"
)

// maxSocketPath is the longest path of a Unix socket: sun_path of unix(7) has
// 108 bytes, one of which ends the string.
const maxSocketPath = 107

// problem reports something about the value at path, or about the nearest thing
// above it that the files contain. It is dropped when the value itself
// already has an error: that is what has to be fixed first.
func (l *loader) problem(path []string, f Finding) {
	if l.failed[pointer(path)] {
		return
	}
	at, exact := l.root.lookup(path)
	if at == l.root {
		at = &place{src: at.src} // not the first line: it has nothing to do with it
	}
	l.add(f, at, path, !exact)
}

// quotable reports whether a message may quote the value at path.
func (l *loader) quotable(path []string) bool {
	at, exact := l.root.lookup(path)
	return exact && at.val != nil && at.quotable()
}

// named is quote(value) when that may be printed, else word: what a reference
// stands for never is.
func (l *loader) named(path []string, value, word string) string {
	if l.quotable(path) {
		return quote(value)
	}
	return word
}

// validate checks what needs more than the shape of one value.
func (l *loader) validate(c *Config) {
	l.validateListen(&c.Listen)
	l.absolute([]string{"queue", "dir"}, c.Queue.Dir)
	l.absolute([]string{"plugins", "dir"}, c.Plugins.Dir)
	l.validateEgress(c.Egress.Allow)
	l.validateSecrets(nil, secretsOf{c.Secret, c.Secrets})
	for i := range c.Notify {
		l.validateNotice(c, &c.Notify[i])
	}
	c.plugins, c.settings = map[string]SinkFile{}, map[string]string{}
	for i := range c.Sinks {
		l.validateSinkFile(c, &c.Sinks[i])
	}
	for i := range c.Helpers {
		l.validateHelper(c, &c.Helpers[i])
	}
	for i := range c.Tests {
		l.validateTest(&c.Tests[i])
	}
	if path := []string{"helpers"}; len(c.Helpers) == 0 && !l.failedBelow(path) {
		l.problem(path, Finding{Severity: SeverityWarning, Code: codeNoHelpers, Message: "there are no helpers, so every event will be refused"})
	}
}

func (l *loader) validateListen(c *Listen) {
	events, admin := []string{"listen", "events"}, []string{"listen", "admin"}
	l.socket(events, c.Events)
	l.socket(admin, c.Admin)
	if c.Events != "" && filepath.Clean(c.Events) == filepath.Clean(c.Admin) {
		l.problem(admin, Finding{Code: codeBadPath, Message: "listen.events and listen.admin are the same socket", Suggestion: "whoever may hand in events could then do everything"})
	}
	group := []string{"listen", "events_group"}
	if !groupExists(c.EventsGroup) {
		l.problem(group, Finding{Code: codeUnknownGroup, Message: "there is no group " + l.named(group, c.EventsGroup, "of that name"), Suggestion: "create it with groupadd --system"})
	}
	l.validateWeb(c)
	l.validateMetrics(c.Metrics)
}

// groupExists accepts names and numbers; "" is no group at all.
func groupExists(group string) bool {
	if group == "" {
		return true
	}
	if _, err := strconv.ParseUint(group, 10, 32); err == nil {
		return true // a group without a name is still a group
	}
	_, err := user.LookupGroup(group)
	return err == nil
}

func (l *loader) socket(path []string, socket string) {
	if !l.absolute(path, socket) {
		return
	}
	if len(socket) > maxSocketPath {
		l.problem(path, Finding{Code: codeBadPath, Message: fmt.Sprintf("the path of a socket has at most %d bytes, this one has %d", maxSocketPath, len(socket))})
	}
}

// absolute checks a path.
func (l *loader) absolute(path []string, file string) bool {
	switch {
	case file == "" && !l.present(path):
		l.problem(path, Finding{Code: codeMissingKey, Message: strings.Join(path, ".") + " is not set and the environment gives no default", Suggestion: "set it to an absolute path"})
	case file == "":
		l.problem(path, Finding{Code: codeBadPath, Message: "the path is empty", Suggestion: "remove the key to get the default"})
	case !filepath.IsAbs(file):
		l.problem(path, Finding{Code: codeBadPath, Message: "the path is not absolute", Suggestion: "begin it with /"})
	case strings.ContainsFunc(file, unicode.IsControl):
		l.problem(path, Finding{Code: codeBadPath, Message: "the path has control characters"})
	default:
		return true
	}
	return false
}

func (l *loader) present(path []string) bool {
	_, exact := l.root.lookup(path)
	return exact
}

// empty reports whether the file has the value and it is an empty text.
func (l *loader) empty(path []string) bool {
	at, exact := l.root.lookup(path)
	return exact && at.val != nil && !l.failed[pointer(path)]
}

func (l *loader) validateEgress(allow []string) {
	items := l.items([]string{"egress", "allow"}, len(allow))
	for i, entry := range allow {
		path := items[i]
		if _, err := egress.New([]string{entry}); err != nil {
			l.problem(path, Finding{Code: codeBadValue, Message: l.named(path, entry, "this") + " cannot be allowed: " + innermost(err)})
		}
	}
}

func neverDialled(addr netip.Addr) bool {
	addr = addr.Unmap()
	return addr.IsLinkLocalUnicast() || addr.IsMulticast() || addr.IsUnspecified()
}

func (l *loader) validateHelper(c *Config, h *Helper) {
	path := []string{"helpers", h.ID}
	if h.ID == NoticeHelper {
		l.problemAtKey(path, Finding{Code: codeBadID, Message: quote(h.ID) + " is the helper of the events about the relay itself", Suggestion: "choose another id; those events go to the webhooks of notify"})
	}
	l.validateSecrets(path, secretsOf{h.Secret, h.Secrets})
	if h.Name == "" {
		h.Name = h.ID
	}
	l.plainText(under(path, "name"), h.Name, 256)
	if command := under(path, "command"); h.Command != "" && l.plainText(command, h.Command, 128) &&
		(!strings.HasPrefix(h.Command, "/") || len(h.Command) == 1 || strings.ContainsFunc(h.Command, unicode.IsSpace)) {
		l.problem(command, Finding{Code: codeBadValue, Message: "a command begins with / and has no spaces", Suggestion: "for example /" + h.ID})
	}
	urls := map[string]string{}
	for i := range h.Webhooks {
		w := &h.Webhooks[i]
		l.validateWebhook(c, h, w)
		if url := w.URL.Reveal(); url != "" {
			if first := urls[url]; first != "" {
				l.problem(under(path, "webhooks", w.ID, "url"), Finding{Severity: SeverityWarning, Code: codeDuplicateURL, Message: "the webhook " + quote(first) + " of this helper has the same url", Suggestion: "the receiver gets every event twice"})
				continue
			}
			urls[url] = w.ID
		}
	}
}

// plainText checks a text that receivers and terminals are shown.
func (l *loader) plainText(path []string, text string, most int) bool {
	switch {
	case len(text) > most:
		l.problem(path, Finding{Code: codeBadValue, Message: fmt.Sprintf("the text is longer than %d bytes", most)})
	case strings.ContainsFunc(text, unicode.IsControl):
		l.problem(path, Finding{Code: codeBadValue, Message: "the text has control characters"})
	default:
		return true
	}
	return false
}
