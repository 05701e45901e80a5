package unixsock

import (
	"errors"
	"fmt"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// PeerCred tells who is at the other end of a Unix connection: the process,
// user and group that called connect (or listen, seen from a client) at the
// time of that call (SO_PEERCRED, unix(7)). It sees through wrappers that have
// a method NetConn() net.Conn. Other connections are an error.
func PeerCred(c net.Conn) (pid int32, uid, gid uint32, err error) {
	for {
		wrapper, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		c = wrapper.NetConn()
	}
	sc, ok := c.(syscall.Conn)
	if !ok || c.LocalAddr().Network() != "unix" {
		return 0, 0, 0, errors.New("peer credentials: not a unix connection")
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return 0, 0, 0, fmt.Errorf("peer credentials: %w", err)
	}
	var cred *unix.Ucred
	var optErr error
	err = raw.Control(func(fd uintptr) {
		cred, optErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err = errors.Join(err, optErr); err != nil {
		return 0, 0, 0, fmt.Errorf("peer credentials: %w", err)
	}
	return cred.Pid, cred.Uid, cred.Gid, nil
}
