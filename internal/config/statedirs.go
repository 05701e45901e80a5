package config

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"
)

// mostBlocks bounds how much of a file that is not YAML is tried.
const mostBlocks = 8

// StateDirs lists where queue.dir may be, best first, however broken the files
// are: what each file says, the later ones, which take effect, first; then what
// stands under "queue:" at the beginning of a line of a file that cannot be parsed;
// then the default. All are absolute and clean, none is there twice; there are none
// when nothing says where. It is for finding what an earlier configuration left
// behind, reports nothing, and creates nothing.
func StateDirs(o Options) []string {
	o = o.complete()
	return said(o, "queue", "dir", newLoader(o).stateDir())
}

// DefaultStateDir is where the state is unless the files say otherwise; "" when
// nothing says where.
func DefaultStateDir(o Options) string { return newLoader(o.complete()).stateDir() }

// AdminSockets lists where the admin socket of the daemon of the file at path may
// be, best first, however broken the files are: as [StateDirs] finds the state. It
// is for talking to a daemon that goes on while its files cannot be read.
func AdminSockets(path string) []string {
	o := Options{Path: path, LookupEnv: os.LookupEnv, Getuid: func() int { return daemonUser(path) }}
	return said(o, "listen", "admin", filepath.Join(newLoader(o).runtimeDir(), "admin.sock"))
}

// EventsSocket is where the events socket of the daemon of the file at path is,
// however broken the files are: what they say, and the default only when the main
// file can be read and no file has the word "listen". "" when that does not tell.
// A sender who may not ask the daemon has nothing better.
func EventsSocket(path string) string {
	o := Options{Path: path, LookupEnv: os.LookupEnv, Getuid: func() int { return daemonUser(path) }}
	if sockets := said(o, "listen", "events", ""); len(sockets) > 0 {
		return sockets[0]
	}
	l, readable := newLoader(o), false
	for f, err := range l.files() {
		if bytes.Contains(f.Data, []byte("listen")) {
			return ""
		}
		readable = readable || err == nil && f.Path == l.main
	}
	if !readable {
		return ""
	}
	return filepath.Join(l.runtimeDir(), "events.sock")
}

// said lists what the files say of a path, section and key, and otherwise.
func said(o Options, section, key, otherwise string) []string {
	var dirs []string
	add := func(dir string) {
		if !filepath.IsAbs(dir) || strings.ContainsFunc(dir, unicode.IsControl) {
			return
		}
		if dir = filepath.Clean(dir); !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	all := newLoader(o)
	var files, broken []File
	for f, err := range all.files() {
		if err == nil {
			files = append(files, f)
		}
	}
	for _, f := range slices.Backward(files) {
		one := newLoader(o.of(f))
		one.merge()
		add(one.said(section, key))
		if one.broken {
			broken = append(broken, f)
		}
	}
	for _, f := range broken {
		for _, block := range blocks(bytes.ToValidUTF8(f.Data, []byte("?")), section, key) {
			f.Data = block
			one := newLoader(o.of(f))
			one.merge()
			add(one.said(section, key))
		}
	}
	add(otherwise)
	return dirs
}

// of is o for one file instead of all.
func (o Options) of(f File) Options {
	o.Files = []File{f}
	return o
}

// said is the path that the files give for a key, "" when they do not. That
// something else is wrong with them does not matter.
func (l *loader) said(section, key string) string {
	if l.root == nil {
		return ""
	}
	path := []string{section, key}
	at, exact := l.root.lookup(path)
	if !exact || at.val == nil || at.val.Kind != yaml.ScalarNode {
		return ""
	}
	dir, _ := l.convert(model().child(section).child(key), nil, at, path).(string)
	return dir
}

// blocks cuts out of a file that cannot be parsed what may give the key of a
// section, the last first: each line that begins with the section's name with the
// indented lines after it, and, should the block be what is broken, that line with
// the first line of the key in it.
func blocks(data []byte, section, key string) [][]byte {
	var found [][]byte
	begin := []byte(section + ":")
	lines := bytes.SplitAfter(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")), []byte("\n"))
	for start := len(lines) - 1; start >= 0 && len(found) < mostBlocks; start-- {
		if !bytes.HasPrefix(lines[start], begin) {
			continue
		}
		end := start + 1
		for end < len(lines) && bytes.ContainsAny(lines[end][:min(1, len(lines[end]))], " \t\r\n#") {
			end++
		}
		found = append(found, bytes.Join(lines[start:end], nil))
		for _, line := range lines[start+1 : end] {
			if bytes.HasPrefix(bytes.TrimLeft(line, " "), []byte(key+":")) {
				found = append(found, slices.Concat(begin, []byte("\n"), line))
				break
			}
		}
	}
	return found
}
