package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// maxInput bounds one document and one line. The daemon takes much less
// (listen.max_event_bytes) and says so itself.
const maxInput = 16 << 20

// inputKind is what a file holds.
type inputKind uint8

const (
	inputEmpty     inputKind = iota
	inputDocument            // one JSON document, on any number of lines, or what was meant as one
	inputLines               // one event per line
	inputDocuments           // several documents of several lines
	inputArray               // one JSON array
)

// input is a file of which just enough was read to know what it is.
type input struct {
	kind     inputKind
	document []byte    // inputDocument
	lines    io.Reader // inputLines: the whole content
}

// detect looks at the beginning of r. A first line that is a JSON value by
// itself and is followed by more is NDJSON; a value that ends on a later line is
// a document. What is neither is NDJSON if any of its lines is an object, so
// that one bad line does not hide the good ones; else it is sent as a document,
// for the daemon to say what is wrong with it.
func detect(r io.Reader, assumeLines bool) (input, error) {
	br := bufio.NewReaderSize(r, 64<<10)
	if assumeLines {
		return input{kind: inputLines, lines: br}, nil
	}
	var (
		head    bytes.Buffer // all that was read
		depth   nesting
		objects bool // a line was an object by itself
		lines   int  // that are not blank
	)
	for {
		line, err := br.ReadSlice('\n')
		for errors.Is(err, bufio.ErrBufferFull) && head.Len() <= maxInput {
			head.Write(line)
			depth.read(line)
			line, err = br.ReadSlice('\n')
		}
		start := bytes.LastIndexByte(head.Bytes(), '\n') + 1
		head.Write(line)
		depth.read(line)
		if text := bytes.TrimSpace(head.Bytes()[start:]); len(text) > 0 {
			lines++
			objects = objects || text[0] == '{' && json.Valid(text)
		}
		switch {
		case err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, bufio.ErrBufferFull):
			return input{}, err
		case lines > 0 && depth.closed():
			if lines > 1 && objects && !json.Valid(head.Bytes()) {
				return input{kind: inputLines, lines: io.MultiReader(&head, br)}, nil
			}
			return afterValue(head.Bytes(), lines, br)
		case err == nil && head.Len() <= maxInput:
			continue
		case lines == 0 && err != nil:
			return input{kind: inputEmpty}, nil
		case objects:
			return input{kind: inputLines, lines: io.MultiReader(&head, br)}, nil
		case head.Len() > maxInput:
			return input{}, fmt.Errorf("the first document does not end within %s", byteSize(maxInput))
		default:
			return input{kind: inputDocument, document: head.Bytes()}, nil
		}
	}
}

// afterValue decides once all that was opened is closed.
func afterValue(head []byte, lines int, rest *bufio.Reader) (input, error) {
	value := bytes.TrimSpace(head)
	blank, more, err := skipBlank(rest)
	switch {
	case err != nil:
		return input{}, err
	case !more && value[0] == '[' && json.Valid(value):
		return input{kind: inputArray}, nil
	case !more:
		return input{kind: inputDocument, document: value}, nil
	case lines > 1 && json.Valid(value):
		return input{kind: inputDocuments}, nil
	}
	return input{kind: inputLines, lines: io.MultiReader(bytes.NewReader(head), bytes.NewReader(blank), rest)}, nil
}

// skipBlank reads white space and reports whether anything follows it. What it
// read counts for the numbers of the lines.
func skipBlank(br *bufio.Reader) (blank []byte, more bool, err error) {
	for len(blank) <= maxInput {
		c, err := br.ReadByte()
		switch {
		case errors.Is(err, io.EOF):
			return blank, false, nil
		case err != nil:
			return nil, false, err
		case c == ' ' || c == '\t' || c == '\r' || c == '\n':
			blank = append(blank, c)
			continue
		}
		return blank, true, br.UnreadByte()
	}
	return nil, false, fmt.Errorf("more than %s of white space", byteSize(maxInput))
}

// nesting follows how deep in objects and arrays a JSON text is.
type nesting struct {
	depth            int
	opened           bool
	inString, escape bool
	scalar           bool // a value that is neither was met outside of them
}

func (n *nesting) read(p []byte) {
	for _, c := range p {
		switch {
		case n.escape:
			n.escape = false
		case n.inString:
			n.escape = c == '\\'
			n.inString = c != '"'
		case c == '"':
			n.inString = true
		case c == '{' || c == '[':
			n.depth++
			n.opened = true
		case c == '}' || c == ']':
			n.depth--
		case n.depth == 0 && c > ' ':
			n.scalar = true
		}
	}
}

// closed reports whether a line end here may be the end of a value.
func (n *nesting) closed() bool {
	return !n.inString && n.depth <= 0 && (n.opened || n.scalar)
}
