package watch

import (
	"errors"
	"hash/maphash"
	"io/fs"

	"golang.org/x/sys/unix"
)

// stamper sums up what stat says of files, to notice changes without events and
// without reading. The zero value is not usable, see newStamper.
type stamper struct{ seed maphash.Seed }

func newStamper() stamper { return stamper{maphash.MakeSeed()} }

// fileStamp is what changes with a file. The time of the last change of the inode
// cannot be set by a program, so that a touched-back time hides nothing.
type fileStamp struct {
	path         string
	dev, ino     uint64
	size         int64
	mode         uint32
	mtime, ctime unix.Timespec
	errno        unix.Errno
}

// of is the sum for all files of the paths, as far as they exist.
func (s stamper) of(paths Paths) uint64 {
	var sum uint64
	if paths.Main != "" {
		sum += s.file(paths.Main)
	}
	for _, path := range paths.References {
		sum += s.file(path)
	}
	if paths.DropIns != "" {
		sum += s.file(paths.DropIns)
		eachEntry(paths.DropIns, func(e fs.DirEntry) {
			if DropIn(e.Name()) {
				sum += s.file(paths.DropIns + "/" + e.Name())
			}
		})
	}
	return sum
}

// file is added to the others, so that their order is of no importance.
func (s stamper) file(path string) uint64 {
	f := fileStamp{path: path}
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		f.errno, _ = errors.AsType[unix.Errno](err)
		return maphash.Comparable(s.seed, f)
	}
	f.dev, f.ino, f.mode = uint64(st.Dev), st.Ino, st.Mode
	if st.Mode&unix.S_IFMT != unix.S_IFDIR { // a directory changes with files that are none of ours
		f.size, f.mtime, f.ctime = st.Size, st.Mtim, st.Ctim
	}
	return maphash.Comparable(s.seed, f)
}
