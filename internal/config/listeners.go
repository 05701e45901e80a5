package config

import "os"

// Listeners reads where the daemon of the file at path ("" searches as [Find]
// does) listens, for programs that talk to it. It reads the drop-ins too and
// fills in defaults, but expands only what these two keys refer to: a user who
// may read the file and none of its secrets can use the sockets. What is wrong
// elsewhere in the files does not matter; the error is an *[InvalidError] when
// one of the two keys, or a file as a whole, cannot be used.
func Listeners(path string) (events, admin string, err error) {
	if path == "" {
		if path, err = Find("", nil); err != nil {
			return "", "", err
		}
	}
	l := newLoader(Options{Path: path, LookupEnv: os.LookupEnv, Getuid: os.Getuid})
	raw := l.merge()
	if l.root == nil || l.broken {
		l.finish()
		return "", "", l.report.Err()
	}
	l.report.Findings, l.framed, l.failed = nil, nil, map[string]bool{} // of other keys
	section, _ := raw["listen"].(map[string]any)
	at := l.root.children["listen"]
	if at == nil || !at.isMap() {
		at = &place{src: l.root.src, val: l.root.val}
	}
	value := func(name string) string {
		k := model().child("listen").child(name)
		child := at.children[name]
		if child == nil {
			text, _ := l.absent(k, at, []string{"listen", name}).(string)
			return text
		}
		text, _ := l.convert(k, section[name], child, []string{"listen", name}).(string)
		return text
	}
	events, admin = value("events"), value("admin")
	l.finish()
	return events, admin, l.report.Err()
}
