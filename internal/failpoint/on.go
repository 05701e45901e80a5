//go:build failpoints

package failpoint

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
)

// On says whether the program was built to fail.
const On = true

// armed is what the environment asks for.
type armed struct {
	name, what string
	nth        int64
	hits       atomic.Int64
}

// theOne is read once, when the first point is met.
var theOne = sync.OnceValue(func() *armed { return parse(os.Getenv("FAILPOINT")) })

// parse ends the process when it does not understand: a test that means another point
// must not pass.
func parse(text string) *armed {
	if text == "" {
		return &armed{}
	}
	name, rest, _ := strings.Cut(text, "=")
	what, count, counted := strings.Cut(rest, "@")
	a := &armed{name: name, what: what, nth: 1}
	var err error
	if counted {
		a.nth, err = strconv.ParseInt(count, 10, 64)
	}
	switch what {
	case "kill", "kill-after", "error", "late", "torn", "hang":
	default:
		err = fmt.Errorf("unknown %q", what)
	}
	if err != nil || a.nth < 1 || name == "" {
		fmt.Fprintf(os.Stderr, "FAILPOINT=%s: %v\n", text, err)
		os.Exit(2)
	}
	return a
}

// reached returns what is to happen at a point now, "" for nothing.
func reached(name string) string {
	a := theOne()
	if a.name != name || a.hits.Add(1) != a.nth {
		return ""
	}
	fmt.Fprintf(os.Stderr, "failpoint %s: %s\n", a.name, a.what)
	return a.what
}

// die is a kill -9: nothing is flushed, closed or told.
func die() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL) // it has no error for oneself
	select {}
}

// failed is what a call is reported to have failed with.
func failed(name string) error { return fmt.Errorf("failpoint %s: %w", name, syscall.EIO) }

// Here is a moment at which the process may be killed.
func Here(name string) {
	switch reached(name) {
	case "":
	case "hang":
		select {}
	default:
		die()
	}
}

// Call makes a call that may fail, or beside which the process may be killed.
func Call(name string, call func() error) error {
	switch reached(name) {
	case "":
		return call()
	case "error":
		return failed(name)
	case "late":
		_ = call() // that it was made is what matters
		return failed(name)
	case "kill-after":
		_ = call()
	case "hang":
		select {}
	}
	die()
	return nil
}

// Torn stands before block is written to w at an offset.
func Torn(name string, w io.WriterAt, block []byte, at int64) {
	if reached(name) == "" {
		return
	}
	_, _ = w.WriteAt(block[:len(block)/2], at) // the disk that does not even take that is another point's
	die()
}
