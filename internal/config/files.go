package config

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	// DropInDir is the directory of the drop-ins, beside the main file.
	DropInDir = "conf.d"
	// MaxFileBytes bounds one file; 4096 webhooks with long headers take 2 MB.
	MaxFileBytes = 10 << 20
	// maxTotalBytes bounds all files together.
	maxTotalBytes = 64 << 20
	// maxDropIns bounds the directory.
	maxDropIns = 10_000
)

var (
	errTooMuch = errors.New("the files together are too large")
	errTooMany = errors.New("there are too many files")
)

// File is one configuration file as bytes.
type File struct {
	Path  string      // absolute: where it is, or what it stands for
	Shown string      // how findings call it; "" = Path
	Data  []byte      // as they are on the disk, at most 10 MiB
	Mode  fs.FileMode // permissions; 0 = nobody else can read it
}

// name is how findings call the file.
func (f *File) name() string { return cmp.Or(f.Shown, f.Path) }

// Fingerprint is the digest of what is on the disk now: the main file at path,
// its drop-ins, and the references, those of the last Report. Nothing is parsed.
// It equals the Report.Digest of a [Load] of the same content, also of one that
// finds errors; what cannot be read counts by the reason. It keeps one file in
// memory at a time.
func Fingerprint(path string, references []string) string {
	d := newDigest()
	list := listFiles(path)
	d.listing(&list)
	for f, err := range list.read() {
		d.file(f.Path, f.Data, err)
	}
	d.references(references, func(path string) ([]byte, error) {
		data, _, err := readRegular(path, maxTLSBytes)
		return data, err
	})
	return d.sum()
}

// digest computes [Report.Digest].
type digest struct{ hash hash.Hash }

func newDigest() digest { return digest{sha256.New()} }

func (d digest) sum() string { return hex.EncodeToString(d.hash.Sum(nil)) }

// file adds a file, or why it could not be read. Lengths come with it, so that
// moving bytes from one file to the next changes the digest.
func (d digest) file(path string, data []byte, err error) {
	why := ""
	if err != nil {
		why, data = reason(err), nil
	}
	fmt.Fprintf(d.hash, "%d:%s%d:%s%d:", len(path), path, len(why), why, len(data))
	d.hash.Write(data)
}

// listing adds a directory of drop-ins that cannot be used.
func (d digest) listing(list *listing) {
	if list.err != nil {
		d.file(list.dir, nil, list.err)
	}
}

// references adds other files, in an order that does not depend on the caller.
func (d digest) references(paths []string, read func(path string) ([]byte, error)) {
	sorted := slices.Compact(slices.Sorted(slices.Values(paths)))
	fmt.Fprintf(d.hash, "references %d:", len(sorted))
	for _, path := range sorted {
		data, err := read(path)
		d.file(path, data, err)
	}
}

// listing is what a configuration consists of on the disk.
type listing struct {
	files   []string // the main file, then the drop-ins in the order of their names
	ignored []ignoredFile
	dir     string // of the drop-ins
	err     error  // why dir cannot be used; nil when it is not there
}

// ignoredFile is a drop-in whose name is almost right.
type ignoredFile struct {
	path  string
	order int // of the file that it comes before
}

// DropIns is the directory of the drop-ins of a main file. It need not exist.
func DropIns(main string) string { return filepath.Join(filepath.Dir(main), DropInDir) }

// IsDropIn reports whether a file of this name in the directory of drop-ins is
// one.
func IsDropIn(name string) bool {
	return strings.HasSuffix(name, ".yaml") && !hidden(name) && filepath.Base(name) == name
}

// hidden are the names of what editors leave behind: .x.yaml.swp, .#x.yaml,
// #x.yaml#.
func hidden(name string) bool { return strings.HasPrefix(name, ".") || strings.HasPrefix(name, "#") }

// listFiles lists the main file and the drop-ins beside it.
func listFiles(main string) listing {
	list := listing{files: []string{main}, dir: DropIns(main)}
	entries, err := os.ReadDir(list.dir)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			list.err = err
		}
		return list
	}
	for _, e := range entries { // sorted by name
		name := e.Name()
		switch {
		case hidden(name):
		case IsDropIn(name):
			list.files = append(list.files, filepath.Join(list.dir, name))
		case strings.HasSuffix(name, ".yml"):
			list.ignored = append(list.ignored, ignoredFile{filepath.Join(list.dir, name), len(list.files)})
		}
	}
	if len(list.files) > maxDropIns+1 {
		list.files, list.err = list.files[:1], errTooMany
	}
	return list
}

// read reads the files one after the other. The error says why one cannot be
// used; the others follow nevertheless.
func (list *listing) read() iter.Seq2[File, error] {
	return func(yield func(File, error) bool) {
		total := int64(0)
		for _, path := range list.files {
			f := File{Path: absolutePath(path), Shown: path}
			if f.Shown == f.Path {
				f.Shown = ""
			}
			data, mode, err := readRegular(path, MaxFileBytes)
			f.Data, f.Mode = data, mode
			if !yield(f, within(&total, data, err)) {
				return
			}
		}
	}
}

// given hands out files as [listing.read] does, within the same bounds.
func given(files []File) iter.Seq2[File, error] {
	return func(yield func(File, error) bool) {
		total := int64(0)
		for i, f := range files {
			f.Path = absolutePath(f.Path)
			var err error
			switch {
			case i > maxDropIns:
				yield(f, errTooMany)
				return
			case len(f.Data) > MaxFileBytes:
				err = tooLarge(MaxFileBytes)
			}
			if !yield(f, within(&total, f.Data, err)) {
				return
			}
		}
	}
}

// within adds data to the total of a configuration.
func within(total *int64, data []byte, err error) error {
	if err != nil {
		return err
	}
	if *total += int64(len(data)); *total > maxTotalBytes {
		return errTooMuch
	}
	return nil
}

// absolutePath is path as it is when the working directory cannot be
// determined, and "" for none.
func absolutePath(path string) string {
	if path == "" {
		return ""
	}
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}
