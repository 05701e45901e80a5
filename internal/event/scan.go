package event

import (
	"bytes"
	"cmp"
	"hash/maphash"
	"slices"
	"strconv"
	"unicode/utf8"
)

// scanner reads one JSON text (RFC 8259) strictly and in a single pass. Its
// methods append the canonical form of what they read to a buffer that is
// passed along, so that a small one may stay on the caller's stack.
type scanner struct {
	in       []byte
	pos      int     // of the next byte to read
	depth    int     // open objects and lists
	unstable bool    // a number was read that JavaScript would write differently
	table    []int32 // scratch of checkUniqueHashed
}

// member is one key with its value, as written to a buffer.
type member struct {
	at     int   // offset of the key in the text, for errors
	start  int   // offset of the key's opening quote in the buffer
	keyEnd int   // after its closing quote
	end    int   // after the value
	index  int64 // value of an integer-like key, -1 for any other
}

func (m *member) key(out []byte) []byte { return out[m.start+1 : m.keyEnd-1] }

// maxArrayIndex is the largest key that JavaScript moves to the front of an
// object: 2^32 - 2. ECMA-262, 6.1.7 (array index) and 10.1.11.1
// (OrdinaryOwnPropertyKeys).
const maxArrayIndex = 1<<32 - 2

// arrayIndex returns the number that a key spells canonically, or -1.
func arrayIndex[T ~string | ~[]byte](key T) int64 {
	const mostDigits = 10
	if len(key) == 0 || len(key) > mostDigits || key[0] == '0' && len(key) > 1 {
		return -1
	}
	var v int64
	for i := range len(key) {
		d := key[i] - '0'
		if d > 9 {
			return -1
		}
		v = v*10 + int64(d)
	}
	if v > maxArrayIndex {
		return -1
	}
	return v
}

// first is the byte at pos, 0 at the end.
func (s *scanner) first() byte {
	if s.pos < len(s.in) {
		return s.in[s.pos]
	}
	return 0
}

func (s *scanner) space() {
	for s.pos < len(s.in) {
		switch s.in[s.pos] {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return
		}
	}
}

// unexpected is the error for the byte at pos.
func (s *scanner) unexpected(want string) *Error {
	if s.pos >= len(s.in) {
		return malformed(CodeInvalidJSON, len(s.in), "invalid JSON: the text ends where %s should be", want)
	}
	r, n := utf8.DecodeRune(s.in[s.pos:])
	if r == utf8.RuneError && n == 1 {
		return malformed(CodeInvalidUTF8, s.pos, "invalid UTF-8: byte 0x%02x", s.in[s.pos])
	}
	return malformed(CodeInvalidJSON, s.pos, "invalid JSON: %s where %s should be", strconv.QuoteRune(r), want)
}

// open enters the object or list whose bracket is at pos. more is false when it
// is empty, and then it is left again.
func (s *scanner) open(closing byte) (more bool, err *Error) {
	if s.depth == MaxDepth {
		return false, malformed(CodeTooDeep, s.pos, "nested deeper than %d levels", MaxDepth)
	}
	s.depth++
	s.pos++
	s.space()
	if s.pos < len(s.in) && s.in[s.pos] == closing {
		s.pos++
		s.depth--
		return false, nil
	}
	return true, nil
}

// next stands after a member or element: more is true before another one, false
// after the closing bracket.
func (s *scanner) next(closing byte) (more bool, err *Error) {
	s.space()
	if s.pos < len(s.in) {
		switch s.in[s.pos] {
		case ',':
			s.pos++
			s.space()
			return true, nil
		case closing:
			s.pos++
			s.depth--
			return false, nil
		}
	}
	return false, s.unexpected("',' or '" + string(closing) + "'")
}

// name reads a key and its colon and stands before the value. raw is what is
// between the quotes.
func (s *scanner) name() (raw []byte, escaped bool, err *Error) {
	if s.pos >= len(s.in) || s.in[s.pos] != '"' {
		return nil, false, s.unexpected("a key in double quotes")
	}
	raw, escaped, err = s.str()
	if err != nil {
		return nil, false, err
	}
	s.space()
	if s.pos >= len(s.in) || s.in[s.pos] != ':' {
		return nil, false, s.unexpected("':'")
	}
	s.pos++
	s.space()
	return raw, escaped, nil
}

// frame is an open object or list.
type frame struct {
	closing byte
	base    int // of its members
}

// value reads the value at pos and appends its canonical form. It keeps its own
// stack: of functions that call each other the compiler cannot tell that dst
// does not escape.
func (s *scanner) value(dst []byte) (out []byte, err *Error) {
	var (
		frames [MaxDepth]frame
		room   [24]member
		open   int
	)
	ms := room[:0] // of all open objects, innermost last
	for {
		c := s.first()
		switch c {
		case '{', '[':
			closing := c + 2 // in ASCII, of both
			dst = append(dst, c)
			more, err := s.open(closing)
			if err != nil {
				return dst, err
			}
			if !more {
				dst = append(dst, closing)
				break
			}
			frames[open] = frame{closing, len(ms)}
			open++
			if c == '{' {
				if dst, ms, err = s.key(dst, ms); err != nil {
					return dst, err
				}
			}
			continue
		default:
			if dst, err = s.scalar(dst, c); err != nil {
				return dst, err
			}
		}
		// A value ended, and with it perhaps what it is in.
		more := false
		for !more {
			if open == 0 {
				return dst, nil
			}
			f := frames[open-1]
			if dst, ms, more, err = s.after(dst, ms, f); err != nil {
				return dst, err
			}
			if !more {
				open--
			}
		}
	}
}

// after goes on behind a value of f: more says that another value follows.
func (s *scanner) after(dst []byte, ms []member, f frame) (_ []byte, _ []member, more bool, err *Error) {
	isObject := f.closing == '}'
	if isObject {
		ms[len(ms)-1].end = len(dst)
	}
	more, err = s.next(f.closing)
	switch {
	case err != nil:
	case more:
		dst = append(dst, ',')
		if isObject {
			dst, ms, err = s.key(dst, ms)
		}
	default:
		if isObject {
			own := ms[f.base:]
			if err = s.checkUnique(dst, own); err == nil {
				dst = sortMembers(dst, own)
			}
			ms = ms[:f.base]
		}
		dst = append(dst, f.closing)
	}
	return dst, ms, more, err
}

// key reads a key and begins its member.
func (s *scanner) key(dst []byte, ms []member) ([]byte, []member, *Error) {
	m := member{at: s.pos, start: len(dst)}
	raw, escaped, err := s.name()
	if err != nil {
		return dst, ms, err
	}
	dst = appendString(dst, raw, escaped)
	m.keyEnd = len(dst)
	m.index = arrayIndex(m.key(dst))
	return append(dst, ':'), append(ms, m), nil
}

// scalar reads the value at pos that begins with c and is no object or list.
func (s *scanner) scalar(dst []byte, c byte) (out []byte, err *Error) {
	switch c {
	case '"':
		raw, escaped, err := s.str()
		return appendString(dst, raw, escaped), err
	case 't':
		return append(dst, "true"...), s.literal("true")
	case 'f':
		return append(dst, "false"...), s.literal("false")
	case 'n':
		return append(dst, "null"...), s.literal("null")
	}
	if c == '-' || isDigit(c) {
		return s.number(dst)
	}
	return dst, s.unexpected("a value")
}

func (s *scanner) literal(word string) *Error {
	for i := range len(word) {
		if s.pos >= len(s.in) || s.in[s.pos] != word[i] {
			return s.unexpected("the word " + word)
		}
		s.pos++
	}
	return nil
}

// sortMembers rewrites the members at the end of dst in the order in which
// JavaScript enumerates them: integer-like keys ascending, then the others as
// they came (ECMA-262, 10.1.11.1).
func sortMembers(dst []byte, ms []member) []byte {
	if slices.IsSortedFunc(ms, byIndex) {
		return dst
	}
	from, to := ms[0].start, len(dst)
	slices.SortStableFunc(ms, byIndex)
	for i, m := range ms {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, dst[m.start:m.end]...)
	}
	return dst[:from+copy(dst[from:], dst[to:])]
}

func byIndex(a, b member) int { return compareIndex(a.index, b.index) }

// compareIndex orders what arrayIndex returned: -1 is behind every index.
func compareIndex(a, b int64) int { return cmp.Compare(uint64(a), uint64(b)) }

// checkUnique refuses a key that an object has twice. Keys are compared in
// canonical form, which is the same for every spelling of a key and differs for
// different keys.
func (s *scanner) checkUnique(out []byte, ms []member) *Error {
	// Up to here comparing all pairs is faster than hashing.
	const few = 12
	if len(ms) > few {
		return s.checkUniqueHashed(out, ms)
	}
	for i := range ms {
		key := ms[i].key(out)
		for j := range i {
			if bytes.Equal(key, ms[j].key(out)) {
				return duplicateKey(key, ms[i].at)
			}
		}
	}
	return nil
}

// checkUniqueHashed is checkUnique in linear time whatever the sender's keys
// are: the seed of the hash is new each time.
func (s *scanner) checkUniqueHashed(out []byte, ms []member) *Error {
	size := 1
	for size < 2*len(ms) {
		size *= 2
	}
	if cap(s.table) < size {
		s.table = make([]int32, size)
	}
	table := s.table[:size]
	clear(table)
	seed := maphash.MakeSeed()
	for i := range ms {
		key := ms[i].key(out)
		slot := maphash.Bytes(seed, key) & uint64(size-1)
		for table[slot] != 0 {
			if bytes.Equal(key, ms[table[slot]-1].key(out)) {
				return duplicateKey(key, ms[i].at)
			}
			slot = (slot + 1) & uint64(size-1)
		}
		table[slot] = int32(i + 1)
	}
	return nil
}

func duplicateKey(key []byte, at int) *Error {
	return malformed(CodeDuplicateKey, at, `duplicate key "%s"`, clip(key))
}

// kind names the JSON type of the value that begins with c, as errors call it.
func kind(c byte) string {
	switch c {
	case '"':
		return "string"
	case '{':
		return "object"
	case '[':
		return "list"
	case 't', 'f':
		return "boolean"
	case 'n':
		return "null"
	}
	return "number"
}
