package watch

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// maxHops is how many symbolic links a path may go through, as in the kernel.
	maxHops = 40
	// maxDirectories bounds the watches. The kernel's own bound is from 8192 on.
	maxDirectories = 16_384
	// maxEntries bounds the listing of the drop-ins; package config refuses a
	// directory with more than 10,000.
	maxEntries = 20_000
)

var errTooManyDirectories = errors.New("the files lie in too many directories")

// fileID tells a directory from another one that took its path.
type fileID struct{ dev, ino uint64 }

// directory is one directory and the names in it that matter.
type directory struct {
	id      fileID
	names   map[string]bool // true: a directory on the way, false: a file, a link, or missing
	dropIns bool            // every drop-in's name matters as well
	err     error           // why it is not watched
}

// matters reports whether a file of the configuration is replaced in this very
// directory. In the others only a directory on the way to one is.
func (d *directory) matters() bool {
	if d.dropIns {
		return true
	}
	for _, onTheWay := range d.names {
		if !onTheWay {
			return true
		}
	}
	return false
}

// tree is all directories to watch for some paths, as they were when it was made.
type tree struct {
	dirs map[string]*directory // by path without links, which is how events name it
	byID map[fileID]*directory // the same; a bind mount has several paths
}

// plant looks at the disk. Each directory is given to add before anything in it is
// looked at: what changes later makes an event. A nil add only looks.
func plant(paths Paths, add func(dir string) error) *tree {
	p := planter{
		tree: &tree{dirs: map[string]*directory{}, byID: map[fileID]*directory{}},
		add:  add,
	}
	for _, file := range append([]string{paths.Main}, paths.References...) {
		if file != "" {
			p.follow(file)
		}
	}
	if paths.DropIns != "" {
		p.dropIns(paths.DropIns)
	}
	return p.tree
}

// sameWatches reports whether both need the same directories. The names may
// differ: they filter and need no watch.
func (t *tree) sameWatches(u *tree) bool {
	if len(t.dirs) != len(u.dirs) {
		return false
	}
	for at, d := range t.dirs {
		if e, ok := u.dirs[at]; !ok || d.id != e.id {
			return false
		}
	}
	return true
}

// adopt takes the errors over from the tree whose watches serve this one too.
func (t *tree) adopt(old *tree) {
	for id, d := range t.byID {
		if e, ok := old.byID[id]; ok {
			d.err = e.err
		}
	}
}

// watched counts the directories that the kernel was asked to watch and agreed to.
func (t *tree) watched() int {
	n := 0
	for _, d := range t.byID {
		if d.err == nil {
			n++
		}
	}
	return n
}

// blind says why some changes make no event, nil when all do. A directory that
// may not be read and only leads to the files does not count: whoever may not
// list /home still sees all that happens in a directory below it. Neither does one that is gone,
// whose parent says so.
func (t *tree) blind() error {
	var first string
	var reason error
	for at, d := range t.dirs {
		switch {
		case d.err == nil, errors.Is(d.err, unix.ENOENT), errors.Is(d.err, unix.ENOTDIR):
			continue
		case errors.Is(d.err, fs.ErrPermission) && !d.matters():
			continue
		case reason == nil, at < first:
			first, reason = at, fmt.Errorf("watch %q: %w", at, d.err)
		}
	}
	return reason
}

// planter is the state of one plant.
type planter struct {
	tree *tree
	add  func(string) error
}

// enter returns the directory at a path without links, watched if it can be;
// nil when there is none.
func (p *planter) enter(at string) *directory {
	if d, ok := p.tree.dirs[at]; ok {
		return d
	}
	var st unix.Stat_t
	if unix.Lstat(at, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}
	id := fileID{uint64(st.Dev), st.Ino}
	d, known := p.tree.byID[id]
	if !known {
		d = &directory{id: id, names: map[string]bool{}}
		p.tree.byID[id] = d
		switch {
		case len(p.tree.byID) > maxDirectories:
			d.err = errTooManyDirectories
		case p.add != nil:
			d.err = p.add(at)
		}
	}
	p.tree.dirs[at] = d
	return d
}

// follow goes the way to a file or directory as the kernel would, notes each name on it, and
// returns where it ends, without links; "" when it leads nowhere.
func (p *planter) follow(file string) string {
	at, rest := "/", file
	for hops := 0; rest != ""; {
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		switch name {
		case "", ".":
			continue
		case "..":
			at = path.Dir(at)
			continue
		}
		d := p.enter(at)
		if d == nil {
			return ""
		}
		next := path.Join(at, name)
		if d.names[name] {
			at = next
			continue
		}
		info, err := os.Lstat(next)
		switch {
		case err == nil && info.IsDir():
			d.names[name] = true
			at = next
			continue
		case err == nil && info.Mode().Type() == fs.ModeSymlink && hops < maxHops:
			d.names[name] = false
			target, err := os.Readlink(next)
			if err != nil {
				return "" // replaced meanwhile, which makes an event
			}
			if path.IsAbs(target) {
				at = "/"
			}
			hops++
			rest = target + "/" + rest
			continue
		}
		d.names[name] = false
		if err != nil || strings.Trim(rest, "/") != "" {
			return ""
		}
		return next
	}
	return at
}

// dropIns follows the way to the directory of drop-ins, and to each drop-in that
// is a link.
func (p *planter) dropIns(dir string) {
	at := p.follow(dir)
	if at == "" {
		return
	}
	d := p.enter(at)
	if d == nil {
		return
	}
	d.dropIns = true
	eachEntry(at, func(e fs.DirEntry) {
		if e.Type() == fs.ModeSymlink && DropIn(e.Name()) {
			p.follow(at + "/" + e.Name())
		}
	})
}

// eachEntry lists a directory in no order, as far as it can be read and up to
// maxEntries.
func eachEntry(dir string, do func(fs.DirEntry)) {
	const step = 1024
	f, err := os.Open(dir)
	if err != nil {
		return
	}
	defer f.Close()
	for range maxEntries / step {
		entries, err := f.ReadDir(step)
		for _, e := range entries {
			do(e)
		}
		if err != nil {
			return // the end; of what cannot be read, package config tells the operator
		}
	}
}
