package cli

import (
	"errors"
	"fmt"
)

// Exit statuses. Those from 64 on are those of sysexits.h
// (https://man.freebsd.org/cgi/man.cgi?query=sysexits), so that a supervisor
// and a script can tell what is worth another try.
const (
	ExitOK          = 0
	ExitFailure     = 1  // the command did what it should and the result is bad, or anything not below
	ExitUsage       = 2  // unknown command, flag or argument
	ExitChanges     = 3  // plan found changes
	ExitStoreFormat = 65 // the store is unreadable or of a newer format
	ExitUnavailable = 69 // the daemon cannot be reached
	ExitStorage     = 74 // serve stopped on a storage error
	ExitTryAgain    = 75 // refused for now: queue or disk full, too many requests
	ExitPermission  = 77 // not allowed
	ExitConfig      = 78 // the configuration is invalid
)

// fault is an error as a person needs it: what failed and on what (err), what
// to do (hint), and how the process ends. With a nil err everything was said
// already.
type fault struct {
	code int
	err  error
	hint string
}

func (f *fault) Error() string {
	if f.err == nil {
		return fmt.Sprintf("exit status %d", f.code)
	}
	return f.err.Error()
}

func (f *fault) Unwrap() error { return f.err }

// WithExit marks err, which must not be nil, with an exit status and with what
// to do about it; hint may be "".
func WithExit(code int, err error, hint string) error {
	return &fault{code: code, err: err, hint: hint}
}

// exitQuietly ends the command with code after it has said why itself.
func exitQuietly(code int) error { return &fault{code: code} }

func failf(hint, format string, args ...any) error {
	return &fault{code: ExitFailure, err: fmt.Errorf(format, args...), hint: hint}
}

func usagef(hint, format string, args ...any) error {
	return &fault{code: ExitUsage, err: fmt.Errorf(format, args...), hint: hint}
}

// exitCode is the status that err would end the process with.
func exitCode(err error) int {
	if err == nil {
		return ExitOK
	}
	if f, ok := errors.AsType[*fault](err); ok {
		return f.code
	}
	return ExitFailure
}
