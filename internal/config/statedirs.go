package config

import (
	"bytes"
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
		add(one.stateDirSaid())
		if one.broken {
			broken = append(broken, f)
		}
	}
	for _, f := range broken {
		for _, block := range queueBlocks(bytes.ToValidUTF8(f.Data, []byte("?"))) {
			f.Data = block
			one := newLoader(o.of(f))
			one.merge()
			add(one.stateDirSaid())
		}
	}
	add(all.stateDir())
	return dirs
}

// of is o for one file instead of all.
func (o Options) of(f File) Options {
	o.Files = []File{f}
	return o
}

// stateDirSaid is queue.dir as the files say it, "" when they do not. That
// something else is wrong with them does not matter.
func (l *loader) stateDirSaid() string {
	if l.root == nil {
		return ""
	}
	path := []string{"queue", "dir"}
	at, exact := l.root.lookup(path)
	if !exact || at.val == nil || at.val.Kind != yaml.ScalarNode {
		return ""
	}
	dir, _ := l.convert(model().child("queue").child("dir"), nil, at, path).(string)
	return dir
}

// queueBlocks cuts out of a file that cannot be parsed what may say where the
// queue is, the last first: each line that begins with "queue:" with the indented
// lines after it, and, should the block be what is broken, that line with the
// first line of "dir:" in it.
func queueBlocks(data []byte) [][]byte {
	var blocks [][]byte
	lines := bytes.SplitAfter(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")), []byte("\n"))
	for start := len(lines) - 1; start >= 0 && len(blocks) < mostBlocks; start-- {
		if !bytes.HasPrefix(lines[start], []byte("queue:")) {
			continue
		}
		end := start + 1
		for end < len(lines) && bytes.ContainsAny(lines[end][:min(1, len(lines[end]))], " \t\r\n#") {
			end++
		}
		blocks = append(blocks, bytes.Join(lines[start:end], nil))
		for _, line := range lines[start+1 : end] {
			if bytes.HasPrefix(bytes.TrimLeft(line, " "), []byte("dir:")) {
				blocks = append(blocks, slices.Concat([]byte("queue:\n"), line))
				break
			}
		}
	}
	return blocks
}
