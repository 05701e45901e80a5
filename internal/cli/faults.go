package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// socketFault words a failed dial: which socket, and what to do about it.
func socketFault(socket string, err error, allow string) error {
	if errors.Is(err, fs.ErrPermission) {
		return WithExit(ExitPermission, fmt.Errorf("not allowed to use the socket %s", socket), allow)
	}
	why := rootCause(err).Error()
	if errors.Is(err, fs.ErrNotExist) {
		why = "there is no such socket"
	}
	return WithExit(ExitUnavailable, fmt.Errorf("daemon unreachable at %s: %s", socket, why),
		"is it running? systemctl status peanuts-relay, or start it with: peanuts-relay serve --config FILE")
}

// fileFault words an error of the os package about a file; step is what it was
// wanted for.
func fileFault(err error, step string) error {
	path, cause := "", err
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		path, cause = " "+p.Path, p.Err
	}
	f := &fault{code: ExitFailure, err: fmt.Errorf("%s: cannot open%s: %w", step, path, cause)}
	if errors.Is(err, fs.ErrPermission) {
		f.code = ExitPermission
	}
	return f
}

// shellWord quotes s for sh where needed.
func shellWord(s string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:@%+,="
	if s != "" && strings.Trim(s, plain) == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
