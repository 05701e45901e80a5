// Package backup is the file that a copy of the queue travels in: what
// "peanuts-relay backup" writes and "peanuts-relay restore" reads.
//
// Guarantees:
//
//   - A file that [Reader] reads to its end is, byte for byte, what [Writer] wrote:
//     each frame has a checksum over its content and its place, and the last
//     frame has the SHA-256 of all before it. One that was cut short, whatever
//     the length, never reads to its end.
//   - What is wrong with a file is said with the offset at which it is
//     ([*DamageError]). A file of a newer version is refused as such
//     ([*VersionError]), not taken for a damaged one.
//   - No input makes the reader panic, or take more memory than one frame.
//
// What is inside the frames is the queue's own affair.
package backup

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"strconv"
	"strings"
)

// Version is what this package writes, and the newest that it reads.
const Version = 1

const (
	// title begins the file; the version and a line feed follow.
	title = "peanuts-relay backup "
	// maxTitle is how long the first line may be.
	maxTitle = len(title) + 10

	kindHeader = 'H'
	kindRows   = 'R'
	kindFooter = 'F'

	frameHead = 1 + 4 + 4 // kind, length, checksum
	// MaxFrame bounds the content of a frame in bytes: several times the largest
	// row that a queue can have.
	MaxFrame = 64 << 20
	// maxDocument bounds header and footer.
	maxDocument = 64 << 10
)

// Header is what a backup says of itself before its content.
type Header struct {
	Store       string `json:"store"`        // the store's number, 10 hexadecimal digits
	QueueFormat int    `json:"queue_format"` // of the rows
	CreatedAt   string `json:"created_at"`   // RFC 3339, UTC: the moment that the copy is of
	Relay       string `json:"relay"`        // version of the program; "" = a development build
	Counts
}

// Footer is what a backup says of its content once all of it is there.
type Footer struct {
	Rows    int64 `json:"rows"`
	Bytes   int64 `json:"bytes"`   // of the frames' contents, this one excluded
	Damaged int64 `json:"damaged"` // rows that were damaged already; they are copied as they are
	Counts
	// SHA256 is that of every byte of the file before this frame, in hexadecimal.
	// The writer fills it in.
	SHA256 string `json:"sha256"`
}

// Counts are those of the queue at the moment of the copy. Deliveries = Success +
// Failed + Pending.
type Counts struct {
	Events     int64 `json:"events"` // accepted, ever
	Deliveries int64 `json:"deliveries"`
	Success    int64 `json:"success"`
	Failed     int64 `json:"failed"`
	Pending    int64 `json:"pending"`
}

// DamageError says that the file is not a whole backup.
type DamageError struct {
	Offset int64 // of the frame in which it was noticed, in bytes
	What   string
}

func (e *DamageError) Error() string {
	return fmt.Sprintf("the backup is damaged at byte %d: %s", e.Offset, e.What)
}

// VersionError says that the file is of a newer version than this program.
type VersionError struct{ Version int }

func (e *VersionError) Error() string {
	return fmt.Sprintf("the backup is of version %d, which is newer than the version %d that this program knows", e.Version, Version)
}

// castagnoli is CRC-32C, which amd64 and arm64 compute in hardware.
func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

// checksum covers a frame's number, too, so that frames cannot change places.
func checksum(number uint64, kind byte, content []byte) uint32 {
	var head [8 + 1 + 4]byte
	binary.BigEndian.PutUint64(head[:], number)
	head[8] = kind
	binary.BigEndian.PutUint32(head[9:], uint32(len(content)))
	return crc32.Update(crc32.Checksum(head[:], castagnoli()), castagnoli(), content)
}

// Writer writes one backup.
type Writer struct {
	w      io.Writer
	sum    hash.Hash
	number uint64
	bytes  int64
}

// NewWriter begins a backup. The writer makes two calls of w.Write for each frame.
func NewWriter(w io.Writer, h Header) (*Writer, error) {
	b := &Writer{w: w, sum: sha256.New()}
	first := title + strconv.Itoa(Version) + "\n"
	b.sum.Write([]byte(first))
	if _, err := io.WriteString(w, first); err != nil {
		return nil, err
	}
	document, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	return b, b.frame(kindHeader, document)
}

// Frame adds a frame with this content, which is not empty and has at most
// [MaxFrame] bytes.
func (b *Writer) Frame(content []byte) error {
	if len(content) == 0 || len(content) > MaxFrame {
		return fmt.Errorf("write backup: a frame of %d bytes", len(content))
	}
	b.bytes += int64(len(content))
	return b.frame(kindRows, content)
}

// Close ends the backup and returns the footer as it was written. It does not close
// what the backup is written to.
func (b *Writer) Close(f Footer) (Footer, error) {
	f.Bytes, f.SHA256 = b.bytes, hex.EncodeToString(b.sum.Sum(nil))
	document, err := json.Marshal(f)
	if err != nil {
		return f, err
	}
	return f, b.frame(kindFooter, document)
}

func (b *Writer) frame(kind byte, content []byte) error {
	head := make([]byte, 0, frameHead)
	head = binary.BigEndian.AppendUint32(append(head, kind), uint32(len(content)))
	head = binary.BigEndian.AppendUint32(head, checksum(b.number, kind, content))
	b.number++
	b.sum.Write(head)
	b.sum.Write(content)
	if _, err := b.w.Write(head); err != nil {
		return err
	}
	_, err := b.w.Write(content)
	return err
}

// Reader reads one backup.
type Reader struct {
	r      *bufio.Reader
	sum    hash.Hash
	number uint64
	at     int64 // offset of what is read next
	bytes  int64
	header Header
	footer Footer
	buf    bytes.Buffer
}

// NewReader reads the beginning of a backup. Errors are a [*DamageError], a
// [*VersionError], or that of r.
func NewReader(r io.Reader) (*Reader, error) {
	b := &Reader{r: bufio.NewReaderSize(r, 256<<10), sum: sha256.New()}
	first, err := b.r.Peek(maxTitle)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	line, _, ended := strings.Cut(string(first), "\n")
	number, titled := strings.CutPrefix(line, title)
	version, err := strconv.Atoi(number)
	if !ended || !titled || err != nil || version < 1 || strconv.Itoa(version) != number {
		return nil, &DamageError{What: "it does not begin as a backup of peanuts-relay does"}
	}
	if version > Version {
		return nil, &VersionError{Version: version}
	}
	b.at = int64(len(line) + 1)
	b.sum.Write([]byte(line + "\n"))
	if _, err := b.r.Discard(len(line) + 1); err != nil {
		return nil, err
	}
	content, err := b.frame(kindHeader)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(content, &b.header); err != nil {
		return nil, &DamageError{Offset: int64(len(line) + 1), What: "its header is not readable"}
	}
	return b, nil
}

// Header is what the backup says of itself.
func (b *Reader) Header() Header { return b.header }

// Footer is what the backup says at its end; zero before Next answered io.EOF.
func (b *Reader) Footer() Footer { return b.footer }

// Offset is how many bytes of the file were read.
func (b *Reader) Offset() int64 { return b.at }

// Next returns the content of the next frame, valid until the call after. io.EOF says
// that the backup was read to its end and is whole; anything else says why not.
func (b *Reader) Next() ([]byte, error) {
	from, sum := b.at, b.sum.Sum(nil)
	content, err := b.frame(kindRows)
	if err != nil || b.footer.SHA256 == "" {
		b.bytes += int64(len(content))
		return content, err
	}
	switch {
	case b.footer.SHA256 != hex.EncodeToString(sum):
		return nil, &DamageError{Offset: from, What: "the SHA-256 of what is before is not the one in the footer"}
	case b.footer.Bytes != b.bytes:
		return nil, &DamageError{Offset: from, What: fmt.Sprintf("the footer says %d bytes, there are %d", b.footer.Bytes, b.bytes)}
	}
	if _, err := b.r.ReadByte(); !errors.Is(err, io.EOF) {
		if err != nil {
			return nil, err
		}
		return nil, &DamageError{Offset: b.at, What: "something follows the footer"}
	}
	return nil, io.EOF
}

// frame reads a frame of the wanted kind. Instead of rows there may be the footer.
func (b *Reader) frame(wanted byte) ([]byte, error) {
	from := b.at
	damaged := func(format string, args ...any) ([]byte, error) {
		return nil, &DamageError{Offset: from, What: fmt.Sprintf(format, args...)}
	}
	var head [frameHead]byte
	n, err := io.ReadFull(b.r, head[:])
	b.at += int64(n)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return damaged("it was cut off here: there is no footer")
	}
	if err != nil {
		return nil, err
	}
	kind, length := head[0], binary.BigEndian.Uint32(head[1:])
	most := uint32(MaxFrame)
	if kind != kindRows {
		most = maxDocument
	}
	if length > most || (kind != wanted && !(wanted == kindRows && kind == kindFooter)) {
		return damaged("this is no frame that can be here")
	}
	b.buf.Reset()
	copied, err := io.CopyN(&b.buf, b.r, int64(length)) // grows with what is there
	b.at += copied
	if errors.Is(err, io.EOF) {
		return damaged("it was cut off in this frame: %d of %d bytes are there", copied, length)
	}
	if err != nil {
		return nil, err
	}
	content := b.buf.Bytes()
	if checksum(b.number, kind, content) != binary.BigEndian.Uint32(head[5:]) {
		return damaged("the checksum of frame %d does not match", b.number)
	}
	b.number++
	b.sum.Write(head[:])
	b.sum.Write(content)
	if kind == kindFooter {
		if err := json.Unmarshal(content, &b.footer); err != nil || b.footer.SHA256 == "" {
			return damaged("its footer is not readable")
		}
		return nil, nil
	}
	return content, nil
}
