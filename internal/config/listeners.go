package config

import (
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// Listeners reads where the daemon of the file at path ("" searches as [Find]
// does) listens, for programs that talk to it. It reads the drop-ins too and
// fills in defaults, but expands only what these two keys refer to: a user who
// may read the file and none of its secrets can use the sockets. Drop-ins that
// this user may not read are passed over: they are for secrets, and the daemon's
// own drop-in is always one. What is wrong elsewhere in the files does not matter;
// the error is an *[InvalidError] when one of the two keys, or a file as a whole,
// cannot be used.
func Listeners(path string) (events, admin string, err error) {
	if path == "" {
		if path, err = Find("", nil); err != nil {
			return "", "", err
		}
	}
	l := newLoader(Options{Path: path, LookupEnv: os.LookupEnv, Getuid: func() int { return daemonUser(path) }})
	l.passOver = true
	raw := l.merge()
	cfg := &Config{}
	if l.root != nil {
		if err := assign(cfg, map[string]any{"listen": l.listeners(raw)}); err != nil {
			l.add(Finding{Code: codeInternal, Message: "the configuration does not fit: " + internalPaths(err)}, l.root, nil, false)
		}
	}
	l.finish()
	about := &Report{}
	for _, f := range l.report.Findings {
		if slices.Contains([]string{"", "/listen", "/listen/events", "/listen/admin"}, f.Path) {
			about.Findings = append(about.Findings, f)
		}
	}
	if err := about.Err(); err != nil {
		return "", "", err
	}
	return cfg.Listen.Events, cfg.Listen.Admin, nil
}

// listeners converts the two keys and no other.
func (l *loader) listeners(raw map[string]any) any {
	two := *model().child("listen")
	two.fields = []*key{two.child("events"), two.child("admin")}
	if at := l.root.children["listen"]; at != nil {
		return l.convert(&two, raw["listen"], at, []string{"listen"})
	}
	return l.absent(&two, l.root, []string{"listen"})
}

// daemonUser is the user by whom the defaults of the paths go: whoever asks, for
// a file of their own, and root, who has the system's paths, for a file that
// somebody else put there. A service has the same paths as root, see
// [loader.runtimeDir].
func daemonUser(path string) int {
	uid := os.Getuid()
	var st unix.Stat_t
	if unix.Stat(path, &st) == nil && int(st.Uid) != uid {
		return 0
	}
	return uid
}
