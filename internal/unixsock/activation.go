package unixsock

import (
	"fmt"
	"net"
	"os"
	"sync"

	"github.com/coreos/go-systemd/v22/activation"
)

// inherited are the descriptors that the service manager handed over
// (sd_listen_fds(3)). Descriptors and environment belong to the process, so this
// is computed once for the process and never changes. The files are kept for
// ever: closing one, be it by the garbage collector, would take the socket away
// from a second Listen after a reload. The environment is cleared so that child
// processes do not believe the descriptors to be theirs.
var inherited = sync.OnceValue(func() []*os.File { return activation.Files(true) })

// activated is the listener handed over as name; nil without an error when
// there is none.
func activated(name string) (net.Listener, error) {
	var found *os.File
	for _, f := range inherited() {
		if f.Name() != name {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("socket activation: two sockets are named %q; keep one ListenStream= in the unit", name)
		}
		found = f
	}
	if found == nil {
		return nil, nil
	}
	l, err := net.FileListener(found)
	if err != nil {
		return nil, fmt.Errorf("socket activation: use the descriptor named %q: %w", name, err)
	}
	ul, ok := l.(*net.UnixListener)
	if !ok || ul.Addr().Network() != "unix" {
		l.Close()
		return nil, fmt.Errorf("socket activation: %q is a %s socket, want a unix stream socket", name, l.Addr().Network())
	}
	// The file belongs to the service manager, which goes on listening on it.
	ul.SetUnlinkOnClose(false)
	return ul, nil
}
