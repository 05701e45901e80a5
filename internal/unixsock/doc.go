// Package unixsock opens the daemon's Unix stream sockets and tells who is at
// the other end of a connection.
//
// Guarantees of [Listen]:
//
//   - The socket never admits anybody whom the asked mode and group do not
//     admit, not even between its creation and the return. For a moment it may
//     admit fewer.
//   - Nothing but a socket that nobody listens on is ever removed. Whatever
//     else is at the path stays, and the error says what it is or which process
//     listens there.
//   - Of several processes that start on one path at once, exactly one wins.
//   - Closing the listener removes the path only while it still is the socket
//     that this listener made.
//
// How: the kernel gives a new socket file the mode of the socket's own inode,
// less the umask (Linux net/unix/af_unix.c, unix_bind_bsd), so fchmod before
// bind sets the mode at birth without touching the umask, which belongs to the
// whole process. Group and final mode are then set on the inode itself, through
// a descriptor, not through a name that could be exchanged meanwhile. Looking,
// removing and binding happen under an exclusive flock of the directory, which
// leaves no lock file behind and is given back by the kernel after any crash.
//
// The backlog is net.core.somaxconn (4096 by default since Linux 5.4), which is
// what package net asks for; a client that connects while it is full waits, or
// gets EAGAIN when its socket does not block.
package unixsock
