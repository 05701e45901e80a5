package ingest

import (
	"bytes"
	"errors"
	"io"
)

// lineState is what [lineReader.next] found.
type lineState uint8

const (
	lineOK      lineState = iota
	lineTooLong           // reported once; the rest of it is skipped
	lineRefused           // reported once; there was no memory for it
	lineNeed              // no whole line is here: fill
	lineEnd               // the input ended between two lines
)

// lineReader cuts a stream into lines that end with LF. Only a proper end of
// the stream ends the last line: what an error cut off is no line.
type lineReader struct {
	src io.Reader
	max int // of a line, without its LF

	// more is asked once before the window grows beyond small and told when it
	// is small again; the failure refuses the line.
	small  []byte
	more   func() *failure
	less   func()
	why    *failure // of lineRefused
	buf    []byte
	start  int // of what is not consumed
	seen   int // up to here there is no LF after start
	end    int
	number int64 // of the line last returned, 1-based

	skipping bool // up to the next LF
	atEnd    bool
}

// next returns the next line without its LF. The bytes are valid until the next
// call of fill.
func (r *lineReader) next() ([]byte, lineState) {
	for {
		i := bytes.IndexByte(r.buf[r.seen:r.end], '\n')
		if i < 0 {
			r.seen = r.end
			return r.rest()
		}
		line := r.buf[r.start : r.seen+i]
		r.start = r.seen + i + 1
		r.seen = r.start
		if r.skipping {
			r.skipping = false
			continue
		}
		return r.take(line)
	}
}

// rest deals with a window that has no LF.
func (r *lineReader) rest() ([]byte, lineState) {
	if r.skipping {
		r.start, r.seen, r.end = 0, 0, 0
	}
	size := r.end - r.start
	switch {
	case size > r.max:
		r.number++
		r.skipping = true
		return nil, lineTooLong
	case r.atEnd && size == 0:
		return nil, lineEnd
	case r.atEnd:
		line := r.buf[r.start:r.end]
		r.start, r.seen = r.end, r.end
		return r.take(line)
	case size == len(r.buf) && len(r.buf) <= len(r.small):
		if r.why = r.more(); r.why != nil {
			r.number++
			r.skipping = true
			return nil, lineRefused
		}
		// Room for the longest line at once: doubling would copy it again and
		// again, and the right to hold it covers it whole.
		large := make([]byte, max(r.max+1, 2*len(r.small)))
		r.end = copy(large, r.buf)
		r.start, r.seen, r.buf = 0, r.end, large
	}
	return nil, lineNeed
}

func (r *lineReader) take(line []byte) ([]byte, lineState) {
	r.number++
	if len(line) > r.max {
		return nil, lineTooLong
	}
	return line, lineOK
}

// fill reads once, as much as there is. After lineNeed there is always room.
func (r *lineReader) fill() error {
	if held := r.end - r.start; len(r.buf) > len(r.small) && held <= len(r.small)/2 {
		copy(r.small, r.buf[r.start:r.end])
		r.buf, r.start, r.seen, r.end = r.small, 0, held, held
		r.less()
	} else if r.start > 0 {
		copy(r.buf, r.buf[r.start:r.end])
		r.start, r.seen, r.end = 0, held, held
	}
	n, err := r.src.Read(r.buf[r.end:])
	r.end += n
	if errors.Is(err, io.EOF) {
		r.atEnd = true
		return nil
	}
	return err
}

// close gives back what a large line asked for.
func (r *lineReader) close() {
	if len(r.buf) > len(r.small) {
		r.buf = r.small
		r.less()
	}
}
