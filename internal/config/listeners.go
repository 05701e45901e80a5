package config

import "strings"

// Listeners reads where the daemon of a file listens, for those who only want
// to talk to it: listen.events and listen.admin, drop-ins and defaults
// included. Nothing else of the file is looked at, no file of a secret is
// opened, and mistakes elsewhere in it are no error: a client must find a
// daemon that is still running on an earlier version of the file. The error is
// an [*InvalidError].
func Listeners(o Options) (events, admin string, err error) {
	l := newLoader(o)
	values := l.merged()
	cfg := &Config{}
	if l.root != nil {
		if err := assign(cfg, map[string]any{"listen": l.listeners(values)}); err != nil {
			l.add(Finding{Code: codeInternal, Message: "the configuration does not fit: " + internalPaths(err)}, l.root, nil, false)
		}
	}
	l.finish()
	only := &Report{}
	for _, f := range l.report.Findings {
		if f.Path == "" || f.Path == "/listen" || strings.HasPrefix(f.Path, "/listen/") {
			only.Findings = append(only.Findings, f)
		}
	}
	if err := only.Err(); err != nil {
		return "", "", err
	}
	return cfg.Listen.Events, cfg.Listen.Admin, nil
}

// listeners converts the two keys and no other.
func (l *loader) listeners(values map[string]any) any {
	whole := model().child("listen")
	two := *whole
	two.fields = []*key{whole.child("events"), whole.child("admin")}
	if at := l.root.children["listen"]; at != nil {
		return l.convert(&two, values["listen"], at, []string{"listen"})
	}
	return l.absent(&two, l.root, []string{"listen"})
}
