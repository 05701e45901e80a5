// Package journal is the write-ahead log of the queue: one file of a fixed size,
// written round and round, in which a group of rows becomes durable with one write
// and one fdatasync, before the database has them.
//
// Guarantees:
//
//   - When [Journal.Append] returns without an error, the record is on disk. The file
//     was filled with zeros when it was made, so that a write changes nothing but data.
//   - A record begins at a block of its own: writing one never touches a block that
//     holds an older one.
//   - Nothing is overwritten before [Journal.Applied] said that it is durable elsewhere.
//   - [Journal.Recover] gives back exactly what was appended and not applied, in order. The
//     last record may be one whose Append did not return. A record that was damaged
//     later is an error, never silence: behind a write that power took away there is
//     no other record, so a record behind a hole says that the hole was one.
//   - What looks like a record inside a record is not taken for one: each carries a
//     random number of the file that nobody else knows.
//
// A Journal belongs to one goroutine. The file's owner holds a lock on the directory.
package journal

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/peanutsapp/peanuts-relay/internal/failpoint"
)

const (
	// BlockSize is what records are aligned to, in bytes: the page of the kernel's
	// cache and the least that most disks write.
	BlockSize = 4096
	// HeaderSize is what a record's buffer begins with, in bytes: room for the
	// journal's own header.
	HeaderSize = 32
	// MaxRecord is the longest record in bytes, its header included.
	MaxRecord = 256 << 10

	nonceSize = 16
	title     = "peanuts-relay journal 1\n"
	fileHead  = len(title) + 8 + 8 + nonceSize + 4
)

// Errors of Append and Open.
var (
	// ErrFull says that the next record would overwrite one that was not applied.
	ErrFull = errors.New("journal is full of what was not applied")
	// ErrTooLong says that a record is longer than MaxRecord.
	ErrTooLong = errors.New("record is too long for the journal")
)

// DamageError says that the file is not what a journal of this store can be, whatever
// was interrupted.
type DamageError struct {
	File string
	What string
}

func (e *DamageError) Error() string { return fmt.Sprintf("journal %q %s", e.File, e.What) }

// Journal is an open journal.
type Journal struct {
	f       *os.File // for reading
	to      *os.File // for writing
	path    string
	size    int64
	nonce   [nonceSize]byte
	next    uint64 // number of the next record
	at      int64  // where it goes
	waiting []extent
	head    int    // of waiting: what is before it was applied
	buf     []byte // of the last record
	aligned []byte // the same in memory that begins with a page
	nosync  bool
}

// extent is where a record is.
type extent struct {
	number   uint64
	from, to int64
}

// castagnoli is CRC-32C, which amd64 and arm64 compute in hardware.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// Create makes the journal of a store, size bytes long, in place of one that may be
// there. A crash leaves the former one or none, or the new one complete.
func Create(path string, store uint64, size int64) error {
	if size < 2*MaxRecord || size%BlockSize != 0 {
		return fmt.Errorf("make journal: %d bytes are no size for one", size)
	}
	tmp := path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("make journal: %w", err)
	}
	block := make([]byte, 64*BlockSize)
	for at := int64(0); at < size && err == nil; at += int64(len(block)) {
		_, err = f.WriteAt(block[:min(int64(len(block)), size-at)], at)
	}
	if err == nil {
		head := append(make([]byte, 0, fileHead), title...)
		head = binary.BigEndian.AppendUint64(head, store)
		head = binary.BigEndian.AppendUint64(head, uint64(size))
		head = append(head, make([]byte, nonceSize)...)
		rand.Read(head[len(head)-nonceSize:]) // never fails
		head = binary.BigEndian.AppendUint32(head, crc32.Checksum(head, castagnoli()))
		failpoint.Torn("journal.make.head", f, head, 0)
		_, err = f.WriteAt(head, 0)
	}
	if err == nil {
		err = failpoint.Call("journal.make.sync", func() error { return f.Sync() })
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = failpoint.Call("journal.make.rename", func() error { return os.Rename(tmp, path) })
	}
	if err == nil {
		err = failpoint.Call("journal.make.sync-dir", func() error { return SyncDir(filepath.Dir(path)) })
	}
	if err != nil {
		return fmt.Errorf("make journal: %w", err)
	}
	return nil
}

// SyncDir makes the names in a directory durable, see fsync(2).
func SyncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// Open opens the journal of a store. Errors are a *[DamageError], one that is
// fs.ErrNotExist, or that of a system call. Call Recover before Append.
func Open(path string, store uint64) (*Journal, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	j := &Journal{f: f, to: f, path: path, aligned: alignedBytes(MaxRecord)}
	if err := j.readHead(store); err != nil {
		f.Close()
		return nil, err
	}
	// Past the kernel's cache a write takes a fifth less of the processor, and its errors
	// are its own. Not every file system has that (open(2), O_DIRECT).
	if direct, err := os.OpenFile(path, os.O_WRONLY|unix.O_DIRECT, 0); err == nil {
		j.to = direct
	}
	return j, nil
}

// alignedBytes is memory that begins at a multiple of BlockSize.
func alignedBytes(n int) []byte {
	b := make([]byte, n+BlockSize)
	skip := int(-uintptr(unsafe.Pointer(unsafe.SliceData(b))) & (BlockSize - 1))
	return b[skip : skip+n : skip+n]
}

func (j *Journal) readHead(store uint64) error {
	head := make([]byte, fileHead)
	if _, err := j.f.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read journal: %w", err)
	}
	body, sum := head[:fileHead-4], binary.BigEndian.Uint32(head[fileHead-4:])
	if !bytes.HasPrefix(body, []byte(title)) || crc32.Checksum(body, castagnoli()) != sum {
		return &DamageError{File: j.path, What: "does not begin as a journal does"}
	}
	body = body[len(title):]
	if binary.BigEndian.Uint64(body) != store {
		return &DamageError{File: j.path, What: "belongs to another store"}
	}
	j.size = int64(binary.BigEndian.Uint64(body[8:]))
	copy(j.nonce[:], body[16:])
	st, err := j.f.Stat()
	if err != nil {
		return fmt.Errorf("read journal: %w", err)
	}
	if st.Size() != j.size || j.size < 2*MaxRecord {
		return &DamageError{File: j.path, What: fmt.Sprintf("is %d bytes long instead of %d", st.Size(), j.size)}
	}
	return nil
}

// Unsynced makes Append answer before the disk has the record: the control of tests
// that cut the power.
func (j *Journal) Unsynced() {
	j.nosync = true
	if j.to != j.f {
		_ = j.to.Close()
		j.to = j.f
	}
}

// Recover calls f with the number and the content of each record after applied, in
// order; content is valid during the call only. f must make it durable elsewhere. It
// returns a *[DamageError], an error of a system call, or f's.
func (j *Journal) Recover(applied uint64, f func(number uint64, content []byte) error) error {
	found, err := j.scan(applied)
	if err != nil {
		return err
	}
	for i, r := range found {
		if want := applied + 1 + uint64(i); r.number != want {
			return &DamageError{File: j.path, What: fmt.Sprintf("has record %d and not record %d", r.number, want)}
		}
	}
	for _, r := range found {
		content, err := j.read(r)
		if err != nil {
			return err
		}
		if err := f(r.number, content); err != nil {
			return err
		}
	}
	j.next, j.at = applied+uint64(len(found))+1, BlockSize
	// What made and read the file left large pieces of it in the cache, and a piece
	// counts as written when a block of it is. Advice has no error that matters.
	_ = unix.Fadvise(int(j.f.Fd()), 0, 0, unix.FADV_DONTNEED)
	return nil
}

// scan lists the records with numbers above applied, ascending.
func (j *Journal) scan(applied uint64) (found []extent, err error) {
	head := make([]byte, HeaderSize)
	for at := int64(BlockSize); at < j.size; at += BlockSize {
		if _, err := j.f.ReadAt(head, at); err != nil {
			return nil, fmt.Errorf("read journal: %w", err)
		}
		length, number := int64(binary.BigEndian.Uint32(head[4:])), binary.BigEndian.Uint64(head[8:])
		if number <= applied || !bytes.Equal(head[16:HeaderSize], j.nonce[:]) || length < HeaderSize || length > MaxRecord || at+length > j.size {
			continue
		}
		r := extent{number, at, at + length}
		if _, err := j.read(r); err == nil {
			found = append(found, r)
		} else if _, torn := errors.AsType[*DamageError](err); !torn {
			return nil, err
		}
	}
	slices.SortFunc(found, func(a, b extent) int { return cmp.Compare(a.number, b.number) })
	return found, nil
}

// read returns a record's content, or a *DamageError.
func (j *Journal) read(r extent) ([]byte, error) {
	buf := make([]byte, r.to-r.from)
	if _, err := j.f.ReadAt(buf, r.from); err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	if crc32.Checksum(buf[4:], castagnoli()) != binary.BigEndian.Uint32(buf) {
		return nil, &DamageError{File: j.path, What: fmt.Sprintf("has a damaged record %d", r.number)}
	}
	return buf[HeaderSize:], nil
}

// Begin returns a buffer to append a record's content to. The one before it is not
// valid any more.
func (j *Journal) Begin() []byte {
	if j.buf == nil {
		j.buf = make([]byte, HeaderSize, 16*BlockSize)
	}
	return j.buf[:HeaderSize]
}

// Append makes a record durable and returns its number. buf is what Begin returned,
// with the content behind it, and is the journal's from then on. Numbers go up by one.
// After any error but ErrFull and ErrTooLong nothing is known of the record, and no
// other may follow it.
func (j *Journal) Append(buf []byte) (number uint64, err error) {
	if len(buf) > MaxRecord {
		return 0, ErrTooLong
	}
	length := int64(len(buf)+BlockSize-1) / BlockSize * BlockSize
	at := j.at
	if at+length > j.size {
		at = BlockSize
	}
	if j.occupied(at, at+length) {
		return 0, ErrFull
	}
	binary.BigEndian.PutUint32(buf[4:], uint32(len(buf)))
	binary.BigEndian.PutUint64(buf[8:], j.next)
	copy(buf[16:], j.nonce[:])
	binary.BigEndian.PutUint32(buf, crc32.Checksum(buf[4:], castagnoli()))
	j.buf = buf
	// Whole blocks are not read before they are written.
	block := j.aligned[:length]
	clear(block[copy(block, buf):])
	failpoint.Torn("journal.append.torn", j.f, block, at)
	if err := failpoint.Call("journal.append.write", func() error { return j.write(block, at) }); err != nil {
		return 0, fmt.Errorf("write journal: %w", err)
	}
	if err := failpoint.Call("journal.append.sync", func() error { return j.sync() }); err != nil {
		return 0, fmt.Errorf("sync journal: %w", err)
	}
	number = j.next
	j.next, j.at = number+1, at+length
	j.waiting = append(j.waiting, extent{number, at, at + length})
	return number, nil
}

func (j *Journal) write(block []byte, at int64) error {
	_, err := j.to.WriteAt(block, at)
	if errors.Is(err, unix.EINVAL) && j.to != j.f { // a disk with blocks that are larger
		_ = j.to.Close()
		j.to = j.f
		_, err = j.to.WriteAt(block, at)
	}
	return err
}

func (j *Journal) sync() error {
	if j.nosync {
		return nil
	}
	for {
		if err := unix.Fdatasync(int(j.to.Fd())); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// occupied reports whether a place overlaps what was not applied.
func (j *Journal) occupied(from, to int64) bool {
	return slices.ContainsFunc(j.waiting[j.head:], func(w extent) bool { return from < w.to && w.from < to })
}

// Applied says that all records up to number are durable elsewhere.
func (j *Journal) Applied(number uint64) {
	for j.head < len(j.waiting) && j.waiting[j.head].number <= number {
		j.head++
	}
	if rest := j.waiting[j.head:]; j.head > len(rest) {
		j.waiting, j.head = append(j.waiting[:0], rest...), 0
	}
}

// Close closes the file. It syncs nothing.
func (j *Journal) Close() error {
	err := j.f.Close()
	if j.to != j.f {
		err = errors.Join(err, j.to.Close())
	}
	return err
}
