package sinktest

import (
	"encoding/base64"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
)

// minSecret is the length of the shortest value that is looked for: less is found
// everywhere.
const minSecret = 6

func checkSecrets(p *probe) {
	var secrets []string
	for _, s := range p.secrets() {
		secrets = append(secrets, pieces(s)...)
	}
	secrets = slices.DeleteFunc(secrets, func(s string) bool { return len(s) < minSecret })
	if len(secrets) == 0 {
		p.skipf("the settings have no secret of at least %d characters", minSecret)
	}
	p.provoke()
	said := p.heard.all()
	if logs := p.logs(); logs != "" {
		said["its log"] = strings.Split(logs, "\n")
	}
	for where, texts := range said {
		for _, text := range texts {
			for _, s := range secrets {
				if shows(text, s) {
					p.failf("%s shows a secret: %s", where, strings.ReplaceAll(short(text, 300), s, "[THE SECRET]"))
					break
				}
			}
		}
	}
}

func (p *probe) logs() string {
	switch {
	case p.binary != nil:
		return p.binary.logs()
	case p.o.Logs != nil:
		return p.o.Logs()
	}
	return ""
}

// provoke gives secrets to Validate where they are wrong, so that a careless diagnostic
// quotes them.
func (p *probe) provoke() {
	raw := p.schema()
	settings := p.settings()
	walkProperties(raw, "", func(path, name string, property map[string]any) {
		if property["writeOnly"] != true || strings.Count(path, "/") > 1 {
			return
		}
		value, isText := settings[name].(string)
		if !isText {
			return
		}
		for _, wrong := range []any{[]any{value}, value + "\x7f", map[string]any{value: value}} {
			changed := clone(settings).(map[string]any)
			changed[name] = wrong
			if _, err := p.validate(encode(changed)); err != nil {
				continue // its text is remembered
			}
		}
	})
}

// pieces are what of a setting gives access by itself. Of a URL that is all but scheme
// and host.
func pieces(s string) []string {
	list := []string{s}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" {
		return list
	}
	if u.Path == "" && u.RawQuery == "" && u.User == nil {
		return nil // nothing but an address
	}
	list = append(list, strings.TrimPrefix(u.Path, "/"))
	for _, values := range u.Query() {
		list = append(list, values...)
	}
	if password, ok := u.User.Password(); ok {
		list = append(list, password)
	}
	return list
}

// shows reports whether a text contains a secret, in any of the forms in which one gets
// there.
func shows(text, s string) bool {
	quoted, err := json.Marshal(s)
	if err != nil {
		quoted = []byte(`""`) // a string always encodes
	}
	for _, form := range []string{s, strings.Trim(string(quoted), `"`), url.QueryEscape(s), url.PathEscape(s), base64.StdEncoding.EncodeToString([]byte(s))} {
		if strings.Contains(text, form) {
			return true
		}
	}
	return false
}
