package http1

import (
	"io"
	"net"
	"syscall"
	"time"
)

const errReset = syscall.ECONNRESET

// Conn is a connection on which one exchange follows the other.
type Conn struct {
	net.Conn         // what is written to and read from
	socket   *Socket // under it; nil when there is none
	idle     time.Time
}

// NewConn returns c as a Conn. When c has a method Socket() *Socket it tells of
// what carries it.
func NewConn(c net.Conn) *Conn {
	out := &Conn{Conn: c}
	if s, ok := c.(interface{ Socket() *Socket }); ok {
		out.socket = s.Socket()
	}
	return out
}

// Abort closes the connection without a farewell, which in TLS would have to
// wait for a receiver that does not read. It is safe beside reads and writes.
func (c *Conn) Abort() {
	if c.socket != nil {
		_ = c.socket.Close() // it is given up
		return
	}
	_ = c.Conn.Close()
}

// alive reports whether an idle connection can be used: the other end has
// neither closed it nor said anything. Under TLS what has come is processed, for
// it may be a session ticket.
func (c *Conn) alive() bool {
	var one [1]byte
	if c.socket == nil {
		_ = c.SetReadDeadline(time.Unix(1, 0))
		defer func() { _ = c.SetReadDeadline(time.Time{}) }()
	} else {
		c.socket.instant = true
		defer func() { c.socket.instant = false }()
	}
	n, err := c.Read(one[:])
	e, ok := err.(net.Error)
	return n == 0 && ok && e.Timeout()
}

// Interrupt makes reads and writes fail now, with os.ErrDeadlineExceeded. It is
// safe beside them.
func (c *Conn) Interrupt() { _ = c.SetDeadline(time.Unix(1, 0)) }

// NotReady is what reading an idle connection ends with when all is well.
// crypto/tls goes on after a temporary error.
type NotReady struct{}

// Error implements error.
func (NotReady) Error() string { return "nothing to read" }

// Timeout implements net.Error.
func (NotReady) Timeout() bool { return true }

// Temporary implements net.Error.
func (NotReady) Temporary() bool { return true }

// Socket is a connection of the kernel that can be read without waiting.
type Socket struct {
	net.Conn
	raw syscall.RawConn
	try func(fd uintptr) // readNow's, made once

	// Of an idle connection, which has one owner.
	instant bool
	p       []byte
	n       int
	err     error
}

// NewSocket returns c as a Socket, nil when it is none.
func NewSocket(c net.Conn) *Socket {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	s := &Socket{Conn: c, raw: raw}
	s.try = func(fd uintptr) {
		for {
			if s.n, s.err = syscall.Read(int(fd), s.p); s.err != syscall.EINTR {
				return
			}
		}
	}
	return s
}

// Read implements io.Reader.
func (s *Socket) Read(p []byte) (int, error) {
	if s.instant {
		return s.readNow(p)
	}
	return s.Conn.Read(p)
}

// readNow takes what there is.
func (s *Socket) readNow(p []byte) (int, error) {
	s.p = p
	// Control and not Read: the latter fails once a deadline has passed, and
	// that of the last exchange may have.
	err := s.raw.Control(s.try)
	s.p = nil
	switch {
	case err != nil:
		return 0, err
	case s.err == syscall.EAGAIN:
		return 0, NotReady{}
	case s.err != nil:
		return 0, s.err
	case s.n == 0 && len(p) > 0:
		return 0, io.EOF
	}
	return s.n, nil
}
