package process

import (
	"fmt"
	"os"
	"syscall"
	"time"
)

// guardScript outlives us. It learns the number of the plugin's group, and then either a
// word that everything was put away, or, by the end of its standard input, that we are
// gone without having done so. The kernel kills the plugin itself then (Pdeathsig), but
// neither what the plugin had started nor the socket. $1 is the directory of the sockets,
// which is also how what left the group is known: see strays.
const guardScript = `trap '' TERM INT HUP QUIT
read -r group || group=
if [ -n "$group" ]; then
  read -r word && exit 0
  kill -s KILL -- "-$group"
  for left in 1 2 3; do
    for at in $(grep -lszxF -- "` + socketDirVariable + `=$1" /proc/[0-9]*/environ); do
      at=${at#/proc/}
      kill -s KILL -- "${at%/environ}"
    done
  done
fi
rm -rf -- "$1"
`

// guardLimit is how long a guard may take to end.
const guardLimit = 2 * time.Second

// guard ends what a plugin leaves behind when this process is killed. It is a process of
// its own, in a session of its own. A nil guard does nothing.
type guard struct {
	proc *os.Process
	tell *os.File
}

// newGuard starts a guard for the sockets in dir.
func newGuard(dir string) (*guard, error) {
	in, tell, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("pipe: %w", err)
	}
	defer in.Close()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		tell.Close()
		return nil, err
	}
	defer null.Close()
	proc, err := os.StartProcess("/bin/sh", []string{"peanuts-relay-guard", "-c", guardScript, "peanuts-relay-guard", dir}, &os.ProcAttr{
		Dir:   "/",
		Env:   []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"},
		Files: []*os.File{in, null, null},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		tell.Close()
		return nil, err
	}
	return &guard{proc, tell}, nil
}

// watch names the group.
func (g *guard) watch(group int) {
	if g != nil {
		fmt.Fprintln(g.tell, group) // a guard that is gone is not needed to start a plugin
	}
}

// dismiss says that nothing is left to do, and reaps the guard.
func (g *guard) dismiss() {
	if g == nil {
		return
	}
	fmt.Fprintln(g.tell, "done")
	g.tell.Close()
	timer := time.AfterFunc(guardLimit, func() { _ = g.proc.Kill() })
	defer timer.Stop()
	_, _ = g.proc.Wait()
}
