// Package http1 exchanges HTTP/1.1 requests and answers on the goroutine that
// asks, and keeps connections between exchanges.
//
// Guarantee: what an answer means is decided by net/http's own parser. The
// bytes of all headers of an answer are bounded, those of interim answers
// before it included. A connection is used again only when the request was
// written completely, the answer was read to its end, neither side said that it
// closes, and nothing came after the answer, neither at once nor while the
// connection was idle. No goroutine outlives the exchange that started it.
//
// Time is bounded by the deadline of the connection, which the caller sets.
package http1

import (
	"bufio"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	// Small is how many bytes of a request are written before its answer is
	// looked at. Every receiver's kernel takes as much without its program's
	// help, so that writing does not wait for a receiver that answers first.
	Small = 32 << 10

	// MaxHeaderBytes bounds all header bytes of an answer, those of interim
	// answers before it included.
	MaxHeaderBytes = 64 << 10

	// maxInterim bounds the interim answers (1xx) before an answer.
	maxInterim = 1000

	// bufferSize is that of net/http's transport: its parser bounds the lines of
	// chunks and the trailers by the size of the buffer.
	bufferSize = 4 << 10

	// writeGrace is how long a request that was answered early may take to be
	// written before its connection is given up.
	writeGrace = 50 * time.Millisecond
)

// Errors of an answer that is HTTP but not what may follow.
var (
	ErrHeaders = errors.New("response headers exceeded 64 KiB")
	ErrInterim = errors.New("more than 1000 interim answers")
	ErrEarly   = errors.New("bytes behind the answer of a proxy that nobody asked for yet")
)

// Exchange makes one exchange after the other, each over a connection of its
// own. Its buffers are used again. It is not safe for concurrent use.
type Exchange struct {
	conn    *Conn
	in      input
	reader  *bufio.Reader // over in
	first   []byte
	rest    []byte
	writer  sync.WaitGroup
	written chan struct{} // closed by the writer of rest; nil without one

	// What the writer found out, to be read once written is closed.
	writeErr error
	wroteAt  time.Time
}

// NewExchange returns an Exchange.
func NewExchange() *Exchange {
	x := &Exchange{}
	x.reader = bufio.NewReaderSize(&x.in, bufferSize)
	return x
}

// Do writes a request and reads the head of its answer, interim answers
// excepted. first is written at once, then rest on a goroutine of its own while
// the answer is awaited: a receiver may answer early and stop reading. The
// answer is the one that came, even when the request could not be written.
//
// The body of the answer is to be read, never closed, and then Finish called.
// After an error the connection is closed and there is nothing to finish. Both
// slices must not change before.
func (x *Exchange) Do(c *Conn, first, rest []byte) (*http.Response, error) {
	x.conn, x.first, x.rest = c, first, rest
	x.written, x.writeErr, x.wroteAt = nil, nil, time.Time{}
	x.in = input{conn: c, left: MaxHeaderBytes}
	x.reader.Reset(&x.in)
	if len(rest) == 0 {
		x.write()
	} else {
		x.written = make(chan struct{})
		x.writer.Go(func() {
			defer close(x.written)
			x.write()
		})
	}
	resp, err := x.head()
	if err == nil {
		return resp, nil
	}
	sent := x.sent()
	x.abort()
	if x.writeErr != nil && sent && x.in.first.IsZero() && !errors.Is(err, errReset) {
		err = x.writeErr // the cause; what reading says follows from it
	}
	if !sent || x.writeErr != nil {
		x.wroteAt = time.Time{}
	}
	x.release()
	return nil, err
}

// Tunnel writes a request for a tunnel to a proxy and returns the status of its
// answer. With 2xx the connection is the tunnel from then on, and nothing was
// read of what comes through it. With any other status, and after an error, it is
// closed.
func (x *Exchange) Tunnel(c *Conn, request []byte) (status int, err error) {
	resp, err := x.Do(c, request, nil)
	if err != nil {
		return 0, err
	}
	defer x.release()
	opened := resp.StatusCode/100 == 2
	if opened && x.reader.Buffered() == 0 {
		return resp.StatusCode, nil
	}
	x.abort()
	if opened {
		return 0, ErrEarly
	}
	return resp.StatusCode, nil
}

func (x *Exchange) write() {
	if _, x.writeErr = x.conn.Write(x.first); x.writeErr != nil {
		return
	}
	if len(x.rest) > 0 {
		if _, x.writeErr = x.conn.Write(x.rest); x.writeErr != nil {
			return
		}
	}
	x.wroteAt = time.Now()
}

// sent reports whether writing is over, for better or worse.
func (x *Exchange) sent() bool {
	if x.written == nil {
		return true
	}
	select {
	case <-x.written:
		return true
	default:
		return false
	}
}

func (x *Exchange) head() (*http.Response, error) {
	if _, err := x.reader.Peek(1); err != nil {
		return nil, err
	}
	for range maxInterim {
		resp, err := http.ReadResponse(x.reader, nil)
		if err != nil {
			if x.in.left <= 0 {
				err = ErrHeaders
			}
			return nil, err
		}
		// 101 is final: what follows it is no longer HTTP.
		if resp.StatusCode/100 == 1 && resp.StatusCode != http.StatusSwitchingProtocols {
			continue
		}
		x.in.left = math.MaxInt64
		return resp, nil
	}
	return nil, ErrInterim
}

// Timing tells when the request was written and when the first byte of the
// answer came; the zero time for what has not happened. It is valid after Do.
func (x *Exchange) Timing() (written, answered time.Time) {
	if x.sent() {
		written = x.wroteAt
	}
	return written, x.in.first
}

// Finish ends an exchange whose body was read to its end if done says so. It
// reports whether the connection can carry another one; if not, it is closed.
func (x *Exchange) Finish(resp *http.Response, done bool) bool {
	defer x.release()
	if !done || resp.StatusCode < 200 || !x.settled() {
		x.abort()
		return false
	}
	if resp.Close || x.in.eof || x.reader.Buffered() > 0 {
		_ = x.conn.Close() // nothing is lost: the exchange is over
		return false
	}
	return true
}

// settled waits a little for the request to be written.
func (x *Exchange) settled() bool {
	if !x.sent() {
		timer := time.NewTimer(writeGrace)
		defer timer.Stop()
		select {
		case <-x.written:
		case <-timer.C:
			return false
		}
	}
	return x.writeErr == nil
}

// abort closes the connection and waits for the writer, which that ends.
func (x *Exchange) abort() {
	x.conn.Abort()
	x.writer.Wait()
}

// release lets go of the connection and the request. The timing stays.
func (x *Exchange) release() {
	x.conn, x.first, x.rest, x.in.conn = nil, nil, nil, nil
}

// input reads from a connection as many bytes as are left.
type input struct {
	conn  net.Conn
	left  int64
	first time.Time // when the first byte came
	eof   bool
}

// Read implements io.Reader.
func (in *input) Read(p []byte) (int, error) {
	if in.left <= 0 {
		return 0, ErrHeaders
	}
	if int64(len(p)) > in.left {
		p = p[:in.left]
	}
	n, err := in.conn.Read(p)
	if n > 0 && in.first.IsZero() {
		in.first = time.Now()
	}
	in.eof = in.eof || err == io.EOF
	in.left -= int64(n)
	return n, err
}
