package main

// The smallest HTTP/1.1 that the load generator and the receiver need, so that
// they take little of the CPU that they share with the daemon under test.

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strconv"
)

// rawMessage is a parsed request or response. Its slices are valid until the
// next Read on the same rawReader.
type rawMessage struct {
	Method, Path []byte // requests
	Status       int    // responses
	Body         []byte
	Close        bool
	headers      []byte
}

// Header returns the value of the header named key (lower case).
func (m *rawMessage) Header(key string) []byte {
	for h := m.headers; len(h) > 0; {
		i := bytes.IndexByte(h, '\n')
		line := h[:i]
		h = h[i+1:]
		c := bytes.IndexByte(line, ':')
		if c == len(key) && bytes.EqualFold(line[:c], []byte(key)) {
			return bytes.TrimSpace(line[c+1:])
		}
	}
	return nil
}

// rawReader reads messages from one connection.
type rawReader struct {
	br   *bufio.Reader
	head []byte
	body []byte
	m    rawMessage
}

func newRawReader(r io.Reader) *rawReader { return &rawReader{br: bufio.NewReaderSize(r, 8192)} }

var errRawProtocol = errors.New("malformed HTTP message")

// Read parses the next message; response selects the start-line form.
func (r *rawReader) Read(response bool) (*rawMessage, error) {
	r.head = r.head[:0]
	r.m = rawMessage{}
	start := -1
	for {
		line, err := r.br.ReadSlice('\n')
		if err != nil {
			return nil, err
		}
		if len(line) <= 2 && len(bytes.TrimSpace(line)) == 0 {
			if start < 0 {
				continue
			}
			break
		}
		r.head = append(r.head, line...)
		if start < 0 {
			start = len(r.head)
		}
	}
	first := bytes.TrimSpace(r.head[:start])
	r.m.headers = r.head[start:]
	f := bytes.SplitN(first, []byte(" "), 3)
	if len(f) < 2 {
		return nil, errRawProtocol
	}
	if response {
		n, err := strconv.Atoi(string(f[1]))
		if err != nil {
			return nil, errRawProtocol
		}
		r.m.Status = n
	} else {
		r.m.Method, r.m.Path = f[0], f[1]
	}
	r.m.Close = bytes.EqualFold(r.m.Header("connection"), []byte("close"))
	if bytes.EqualFold(r.m.Header("transfer-encoding"), []byte("chunked")) {
		return r.chunked()
	}
	n := 0
	if v := r.m.Header("content-length"); v != nil {
		var err error
		if n, err = strconv.Atoi(string(v)); err != nil || n < 0 || n > 16<<20 {
			return nil, errRawProtocol
		}
	}
	if cap(r.body) < n {
		r.body = make([]byte, n)
	}
	r.m.Body = r.body[:n]
	_, err := io.ReadFull(r.br, r.m.Body)
	return &r.m, err
}

func (r *rawReader) chunked() (*rawMessage, error) {
	r.body = r.body[:0]
	for {
		line, err := r.br.ReadSlice('\n')
		if err != nil {
			return nil, err
		}
		hex, _, _ := bytes.Cut(bytes.TrimSpace(line), []byte(";"))
		n, err := strconv.ParseInt(string(hex), 16, 32)
		if err != nil || n < 0 || n > 16<<20 {
			return nil, errRawProtocol
		}
		at := len(r.body)
		r.body = append(r.body, make([]byte, n+2)...)
		if _, err := io.ReadFull(r.br, r.body[at:]); err != nil {
			return nil, err
		}
		r.body = r.body[:at+int(n)]
		if n == 0 {
			r.m.Body = r.body
			return &r.m, nil
		}
	}
}
