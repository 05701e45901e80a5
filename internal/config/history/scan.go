package history

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// scan reads the directory as it is. Unless the log is read only it settles
// what a crash left: everything it reports afterwards is durable, and nothing
// is there that no entry needs. An error leaves the log as it was.
func (l *Log) scan() error {
	if !l.readOnly {
		// What a process wrote that died before its last sync is there to be
		// seen, but not yet to stay.
		if err := l.vol.sync(); err != nil {
			return err
		}
	}
	names, err := l.vol.list()
	if err != nil {
		return err
	}
	fresh := &Log{main: l.main, readOnly: l.readOnly, vol: l.vol, warnings: l.warnings, unread: l.unread}
	for _, name := range names {
		if err := fresh.scanOne(name); err != nil {
			return err
		}
	}
	slices.SortFunc(fresh.entries, func(a, b *stored) int { return cmp.Compare(a.number, b.number) })
	l.entries, l.stale = fresh.entries, fresh.stale
	l.number, l.generation = max(l.number, fresh.number), max(l.generation, fresh.generation)
	l.warnings, l.unread = fresh.warnings, fresh.unread
	if !l.readOnly {
		l.forgetDamaged(names)
		l.prune()
		l.sweep()
	}
	return nil
}

// scanOne takes one name of the directory in.
func (l *Log) scanOne(name string) error {
	number, generation, ok := parseEntryName(name)
	if !ok {
		return nil
	}
	l.number, l.generation = max(l.number, number), max(l.generation, generation)
	if strings.HasPrefix(name, damagedPrefix) {
		return nil
	}
	data, err := l.vol.read(name, maxEntryBytes)
	var r *record
	if err == nil {
		r, err = decode(data)
	}
	if err == nil && (r.Number != number || r.Generation != generation || r.Main != l.main) {
		err = fmt.Errorf("%w: it belongs to another place", errDamaged)
	}
	switch {
	case err == nil:
		l.entries = append(l.entries, &stored{Entry: r.Entry, number: number, name: name})
	case errors.Is(err, fs.ErrNotExist) && l.readOnly:
		// Removed meanwhile by the daemon that runs.
	case passing(err):
		return err
	default:
		l.setAside(name, err)
	}
	return nil
}

// passing reports whether an error is the process's, not the file's.
func passing(err error) bool {
	return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOMEM)
}

// setAside keeps a damaged entry for a person to look at.
func (l *Log) setAside(name string, why error) {
	l.warn("entry %s of the history cannot be used and was set aside: %v", name, why)
	if l.readOnly {
		return
	}
	if err := l.vol.rename(name, damagedPrefix+name); err != nil {
		l.stale = true
		l.warn("entry %s could not be set aside: %v", name, err)
	}
}

// forgetDamaged removes the oldest of those that were set aside before.
func (l *Log) forgetDamaged(names []string) {
	old := slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		_, _, ok := parseEntryName(name)
		return !ok || !strings.HasPrefix(name, damagedPrefix)
	})
	slices.SortFunc(old, func(a, b string) int {
		an, _, _ := parseEntryName(a)
		bn, _, _ := parseEntryName(b)
		return cmp.Compare(bn, an)
	})
	for _, name := range old[min(len(old), maxDamaged):] {
		l.remove(name)
	}
}

// prune removes the entries that are too many, and what only they had. The
// history is right without it: what fails is told and tried again the next time.
// Nothing is synced: what a power cut brings back is too many again.
func (l *Log) prune() {
	stay, drop := divide(l.entries)
	if len(drop) == 0 {
		return
	}
	l.entries = stay
	for _, e := range drop {
		l.remove(e.name)
	}
	l.sweep()
}

// sweep removes files that no entry has, and what a crash left half written.
func (l *Log) sweep() {
	names, err := l.vol.list()
	if err != nil {
		l.stale = true
		l.warn("the history cannot be cleaned up: %v", err)
		return
	}
	wanted := map[string]bool{}
	for _, e := range l.entries {
		for i := range e.Files {
			wanted[fileName(e.Files[i].SHA256)] = true
		}
	}
	for _, name := range names {
		ours := strings.HasPrefix(name, newPrefix) || strings.HasPrefix(name, filePrefix) && isSum(strings.TrimPrefix(name, filePrefix))
		if ours && !wanted[name] {
			l.remove(name)
		}
	}
}

// remove tells of what cannot be removed, which is tried again before the next
// entry is written.
func (l *Log) remove(name string) {
	if err := l.vol.remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.stale = true
		l.warn("the history cannot be cleaned up: %v", err)
	}
}
