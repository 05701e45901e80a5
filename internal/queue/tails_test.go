package queue

import (
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// cached says of each page of a file whether it is in the page cache.
func cached(t *testing.T, f *os.File, size int) []byte {
	t.Helper()
	data, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(data) }()
	pages := make([]byte, size/os.Getpagesize())
	if _, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&data[0])), uintptr(size), uintptr(unsafe.Pointer(&pages[0]))); errno != 0 {
		t.Fatal(errno)
	}
	return pages
}

func TestTheEndsOfTablesAreReadBeforeTheyAreOpened(t *testing.T) {
	const size = 4 << 20
	dir := t.TempDir()
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil || fs.Type == unix.TMPFS_MAGIC {
		t.Skip("a tmpfs keeps its pages in memory; set TMPDIR to a disk", err)
	}
	if err := os.Mkdir(filepath.Join(dir, "000002.sst"), 0o700); err != nil { // is passed over
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, "000001.sst"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
	if pages := cached(t, f, size); pages[len(pages)-1]&1 != 0 {
		t.Skip("the file system keeps what it is asked to drop")
	}
	readTails(dir)
	waitUntil(t, "the end is read", func() bool {
		pages := cached(t, f, size)
		return pages[len(pages)-1]&1 != 0 && pages[len(pages)-tableTail/os.Getpagesize()]&1 != 0
	})
	if pages := cached(t, f, size); pages[0]&1 != 0 {
		t.Error("the beginning was read as well")
	}
}
