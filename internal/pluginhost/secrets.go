package pluginhost

import (
	"encoding/json"
	"net/url"
	"strings"

	"github.com/peanutsapp/peanuts-relay/internal/secret"
)

const (
	// Shorter values are not masked: they would blot out words that have nothing to do
	// with them.
	minSecret = 4
	// minPart is the same for a part of a secret: a segment of a path, a line of a key.
	minPart = 8
)

// addSecrets adds secrets with the parts of them that a plugin may show by themselves: a
// path without its host, a line of a key, a member of a file of credentials.
func addSecrets(p *secret.Patterns, list []secret.String) {
	for _, s := range list {
		addSecret(p, s.Reveal())
	}
}

func addSecret(p *secret.Patterns, value string) {
	p.Add(value, minSecret)
	p.Add(strings.TrimSpace(value), minSecret)
	if strings.Contains(value, "\n") {
		for line := range strings.Lines(value) {
			if line = strings.TrimSpace(line); !strings.HasPrefix(line, "-----") {
				p.Add(line, 2*minPart)
			}
		}
	}
	if u, err := url.Parse(value); err == nil && u.Host != "" {
		addURL(p, u)
	}
	if strings.HasPrefix(strings.TrimSpace(value), "{") {
		var members map[string]any
		if json.Unmarshal([]byte(value), &members) == nil {
			addMembers(p, members)
		}
	}
}

func addURL(p *secret.Patterns, u *url.URL) {
	if uri := u.RequestURI(); uri != "/" {
		p.Add(uri, minSecret)
		p.Add(u.EscapedPath(), minPart)
		p.Add(u.Path, minPart)
	}
	for segment := range strings.SplitSeq(u.EscapedPath(), "/") {
		p.Add(segment, minPart)
	}
	for _, values := range u.Query() {
		for _, v := range values {
			p.Add(v, minSecret)
		}
	}
	if password, ok := u.User.Password(); ok {
		p.Add(password, minSecret)
	}
}

// addMembers adds what is secret in a file of credentials, and not the names and
// addresses in it, which messages are made of.
func addMembers(p *secret.Patterns, members map[string]any) {
	for name, value := range members {
		switch v := value.(type) {
		case map[string]any:
			addMembers(p, v)
		case string:
			name = strings.ToLower(name)
			for _, word := range []string{"key", "secret", "token", "password", "credential"} {
				if strings.Contains(name, word) {
					addSecret(p, v)
					break
				}
			}
		}
	}
}
