package history

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	// placeDigits is how much of the SHA-256 of a main file's path names its
	// history.
	placeDigits = 16
	// maxOthers is how many histories of other main files are kept beside it.
	maxOthers = 8
)

// Dir is where the histories are that belong to a queue's directory.
func Dir(queueDir string) string { return filepath.Join(queueDir, "config") }

// Open opens the history of the main file in dir, see [Dir], and makes
// what is missing. Other main files have histories of their own there, which are
// left alone but for the 8 that were used last. One process at a time: the error
// is [ErrLocked] otherwise. Damage is no error, see [Log.Warnings].
func Open(dir, mainFile string) (*Log, error) {
	l, err := open(dir, mainFile, false)
	if err != nil {
		return nil, fmt.Errorf("open history of the configuration: %w", err)
	}
	return l, nil
}

// Peek opens the history for reading only: it makes, locks, repairs and removes
// nothing, and may be used while a daemon has it open. The error is
// fs.ErrNotExist when there is none.
func Peek(dir, mainFile string) (*Log, error) {
	l, err := open(dir, mainFile, true)
	if err != nil {
		return nil, fmt.Errorf("look into history of the configuration: %w", err)
	}
	return l, nil
}

func open(dir, mainFile string, readOnly bool) (*Log, error) {
	mainFile, err := filepath.Abs(mainFile)
	if err == nil {
		dir, err = filepath.Abs(dir)
	}
	if err != nil {
		return nil, err
	}
	if !readOnly {
		if err := makeDirs(dir); err != nil {
			return nil, err
		}
	}
	top, err := openDirectory(nil, dir, readOnly)
	if err != nil {
		return nil, err
	}
	defer top.close()
	name := place(mainFile)
	if !readOnly {
		if err := top.make(name); err != nil {
			return nil, err
		}
	}
	d, err := openDirectory(top.f, name, readOnly)
	if err != nil {
		return nil, err
	}
	if !readOnly {
		if err := d.lock(); err != nil {
			return nil, errors.Join(err, d.close())
		}
	}
	l, err := openVolume(d, mainFile, readOnly)
	if err != nil {
		return nil, errors.Join(err, d.close())
	}
	if !readOnly {
		l.forgetOthers(top, name)
	}
	return l, nil
}

// openVolume reads what is there.
func openVolume(vol volume, mainFile string, readOnly bool) (*Log, error) {
	l := &Log{main: mainFile, readOnly: readOnly, vol: vol}
	if err := l.scan(); err != nil {
		return nil, err
	}
	return l, nil
}

// place is the name of a main file's directory.
func place(mainFile string) string { return sum([]byte(mainFile))[:placeDigits] }

// forgetOthers removes the histories of other main files that were used
// longest ago. What does not look like one is not touched.
func (l *Log) forgetOthers(top *directory, mine string) {
	names, err := top.list()
	if err != nil {
		l.warn("histories of other main files: %v", err)
		return
	}
	type other struct {
		name string
		used int64
	}
	var others []other
	for _, name := range names {
		if name == mine || len(name) != placeDigits || strings.Trim(name, "0123456789abcdef") != "" {
			continue
		}
		info, err := os.Lstat(filepath.Join(top.f.Name(), name))
		if err == nil && info.IsDir() {
			others = append(others, other{name, info.ModTime().UnixNano()})
		}
	}
	slices.SortFunc(others, func(a, b other) int { return cmp.Compare(b.used, a.used) })
	for _, o := range others[min(len(others), maxOthers):] {
		if err := forget(top, o.name); err != nil && !errors.Is(err, ErrLocked) {
			l.warn("the history of another main file was not removed: %v", err)
		}
	}
}

// forget removes one history, unless somebody has it open.
func forget(top *directory, name string) error {
	d, err := openDirectory(top.f, name, false)
	if err != nil {
		return err
	}
	defer d.close()
	if err := d.lock(); err != nil {
		return err
	}
	names, err := d.list()
	if err != nil {
		return err
	}
	for _, n := range names {
		_, _, isEntry := parseEntryName(n)
		if isEntry || strings.HasPrefix(n, newPrefix) || strings.HasPrefix(n, filePrefix) {
			if err := d.remove(n); err != nil {
				return err
			}
		}
	}
	err = os.Remove(d.f.Name())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
