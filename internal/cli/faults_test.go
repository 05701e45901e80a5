package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/adminclient"
)

func TestFaultsSayWhatFailedOnWhatAndWhatToDo(t *testing.T) {
	refusedPermission := fmt.Errorf("open admin socket: %w", adminclient.ErrPermission)
	for name, c := range map[string]struct {
		err        error
		code       int
		what, hint string
	}{
		"admin socket not allowed": {adminFault("/run/a.sock", refusedPermission), ExitPermission, "not allowed to use the socket /run/a.sock", "try sudo"},
		"admin socket without a daemon": {adminFault("/run/a.sock", fmt.Errorf("x: %w", adminclient.ErrUnreachable)), ExitUnavailable,
			"daemon unreachable at /run/a.sock", "systemctl status peanuts-relay"},
		"a conversation that broke": {adminFault("/run/a.sock", errors.New("unexpected EOF")), ExitUnavailable, "at /run/a.sock broke: unexpected EOF", "peanuts-relay status"},
		"an interrupt":              {adminFault("/run/a.sock", context.Canceled), ExitFailure, "interrupted", ""},
		"events socket not allowed": {newEventsClient("/run/e.sock").unreachable(&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.EACCES)}),
			ExitPermission, "not allowed to use the socket /run/e.sock", "listen.events_group"},
		"events socket without a daemon": {newEventsClient("/run/e.sock").unreachable(&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}),
			ExitUnavailable, "daemon unreachable at /run/e.sock: connection refused", "is it running?"},
		"a lost answer": {newEventsClient("/run/e.sock").unreachable(errors.New("EOF")), ExitUnavailable, "/run/e.sock broke before an answer: EOF", "--idempotency-key"},
		"a file that may not be read": {fileFault(&os.PathError{Op: "open", Path: "/x", Err: syscall.EACCES}, "read events"), ExitPermission,
			"read events: cannot open /x: permission denied", ""},
	} {
		f, ok := errors.AsType[*fault](c.err)
		if !ok || f.code != c.code || !strings.Contains(f.Error(), c.what) || !strings.Contains(f.hint, c.hint) {
			t.Errorf("%s: %+v, want status %d, %q and %q", name, c.err, c.code, c.what, c.hint)
		}
	}
}

func TestAFaultIsPrintedOnceWithItsHint(t *testing.T) {
	var errs bytes.Buffer
	a := &app{Streams: Streams{Err: &errs, Env: environment()}}
	if code := a.report(fmt.Errorf("start: %w", WithExit(ExitStorage, errors.New("disk died"), "replace it"))); code != ExitStorage {
		t.Errorf("exit status %d", code)
	}
	if got := errs.String(); got != "error: start: disk died\n  replace it\n" {
		t.Errorf("printed %q", got)
	}
	errs.Reset()
	if code := a.report(exitQuietly(ExitFailure)); code != ExitFailure || errs.Len() > 0 {
		t.Errorf("exit status %d, printed %q", code, errs.String())
	}
	if code := a.report(errors.New("anything")); code != ExitFailure {
		t.Errorf("exit status %d", code)
	}
}
