package watchdog

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
	"time"
)

// socketPause is how long a socket is waited for before it is asked whether it is full.
const socketPause = 200 * time.Millisecond

// Socket is the part of a server behind a Unix socket: somebody accepts, reads that nothing
// comes, and closes. Nothing is asked for, so that no request is counted. full says that
// the server takes no connection because it has as many as it may, which is a known state.
//
// That the path leads nowhere, or that this user may not connect, is no hang: a restart
// need not help, and whom it concerns meets it at once.
func Socket(name, path string, full func() bool) Part {
	return Part{Name: name, Turn: func(ctx context.Context, at func(string)) error {
		at("who accepts at " + path)
		conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
		for errors.Is(err, syscall.EAGAIN) && !full() && pause(ctx) { // its backlog is full
			conn, err = new(net.Dialer).DialContext(ctx, "unix", path)
		}
		if err != nil {
			return nil
		}
		defer conn.Close()
		if err := conn.(*net.UnixConn).CloseWrite(); err != nil {
			return nil // it was closed before
		}
		for one := make([]byte, 1); ; {
			if err := conn.SetReadDeadline(time.Now().Add(socketPause)); err != nil {
				return nil
			}
			// Whatever comes, the end or an answer, somebody sent it.
			_, err := conn.Read(one)
			if !errors.Is(err, os.ErrDeadlineExceeded) || full() || ctx.Err() != nil {
				return nil
			}
		}
	}}
}

func pause(ctx context.Context) bool {
	select {
	case <-time.After(socketPause):
		return true
	case <-ctx.Done():
		return false
	}
}
