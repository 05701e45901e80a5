package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"unicode/utf8"
)

// maxReferenceBytes bounds a file that a reference names: a token or a key, not
// a database.
const maxReferenceBytes = 64 << 10

var (
	envName  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	credName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,255}$`)
)

// referenceError says why a reference cannot be used. It never contains what
// the reference stands for, nor a default.
type referenceError struct{ code, message, suggestion string }

func (e *referenceError) Error() string { return e.message }

func badReference(message, suggestion string) error {
	return &referenceError{codeBadReference, message, suggestion}
}

// expander replaces references in values. It reads each file once, so that
// two uses of a file that is being rotated cannot differ.
type expander struct {
	lookup func(string) (string, bool)
	files  map[string]refFile
	order  []string
}

type refFile struct {
	data []byte
	mode fs.FileMode
	err  error
}

// expand replaces the references in text; what they stand for is not looked at
// again. refers is false when there were none.
func (x *expander) expand(text string) (value string, refers bool, err error) {
	var b strings.Builder
	var errs []error
	for {
		before, rest, ok := cutReference(text)
		b.WriteString(strings.ReplaceAll(before, "$$", "$"))
		if !ok {
			return b.String(), refers, errors.Join(errs...)
		}
		refers = true
		ref, after, closed := strings.Cut(rest, "}")
		if !closed {
			return "", true, errors.Join(append(errs, badReference(`a reference is not closed: "${" without "}"`, `write "$$" for a dollar sign`))...)
		}
		if strings.Contains(ref, "${") {
			return "", true, errors.Join(append(errs, badReference("a reference inside a reference is not possible", "the default of ${env:NAME:-default} is plain text"))...)
		}
		v, err := x.reference(ref)
		if err != nil {
			errs = append(errs, err)
		}
		b.WriteString(v)
		text = after
	}
}

func (x *expander) reference(ref string) (string, error) {
	how, name, ok := strings.Cut(ref, ":")
	if !ok {
		return "", badReference("a reference names no kind", `write ${env:NAME}, ${file:/path} or ${cred:NAME}, and "$$" for a dollar sign`)
	}
	switch how {
	case "env":
		return x.env(name)
	case "file":
		if !filepath.IsAbs(name) {
			return "", badReference("a ${file:} reference needs an absolute path", "")
		}
		return x.file("file "+quote(name), filepath.Clean(name))
	case "cred":
		return x.credential(name)
	}
	// The kind is not printed: a misplaced "${" may be part of a password.
	return "", badReference("a reference is of an unknown kind", didYouMean(how, []string{"env", "file", "cred"}, "there are ${env:NAME}, ${file:/path} and ${cred:NAME}"))
}

func (x *expander) env(name string) (string, error) {
	name, dflt, hasDefault := strings.Cut(name, ":-")
	if !envName.MatchString(name) {
		return "", badReference("a ${env:} reference names no variable", "write ${env:NAME} or ${env:NAME:-default}")
	}
	v, ok := x.lookup(name)
	switch {
	case hasDefault && v == "":
		return dflt, nil // as a shell's ${NAME:-default}: also when set but empty
	case !ok:
		return "", &referenceError{codeUnsetReference, "the environment variable " + quote(name) + " is not set", "set it, or write ${env:" + name + ":-default}"}
	case !utf8.ValidString(v) || strings.ContainsRune(v, 0):
		return "", &referenceError{codeUnreadableRef, "the environment variable " + quote(name) + " is not UTF-8 text", ""}
	}
	return v, nil
}

func (x *expander) credential(name string) (string, error) {
	if !credName.MatchString(name) || name == "." || name == ".." {
		return "", badReference("a ${cred:} reference names no credential", "write ${cred:NAME}")
	}
	dir, _ := x.lookup("CREDENTIALS_DIRECTORY")
	if !filepath.IsAbs(dir) {
		return "", &referenceError{codeUnsetReference, "the credential " + quote(name) + " is not available: CREDENTIALS_DIRECTORY is not set", "add LoadCredential=" + name + ":/path to the service"}
	}
	return x.file("credential "+quote(name), filepath.Join(dir, name))
}

func (x *expander) file(what, path string) (string, error) {
	f := x.read(path)
	if f.err == nil && len(f.data) > maxReferenceBytes {
		f.err = tooLarge(maxReferenceBytes)
	}
	if f.err != nil {
		return "", &referenceError{codeUnreadableRef, "the " + what + " cannot be used: " + reason(f.err), ""}
	}
	if !utf8.Valid(f.data) || bytes.IndexByte(f.data, 0) >= 0 {
		return "", &referenceError{codeUnreadableRef, "the " + what + " is not UTF-8 text", "binary keys can be stored as base64 or hex"}
	}
	text := strings.TrimSuffix(string(f.data), "\n")
	if len(text) < len(f.data) {
		text = strings.TrimSuffix(text, "\r")
	}
	return text, nil
}

// read reads a file that the configuration names. What is too long for a text is
// read nevertheless: a PEM file may be longer, and the digest covers both alike.
func (x *expander) read(path string) refFile {
	f, ok := x.files[path]
	if ok {
		return f
	}
	f.data, f.mode, f.err = readRegular(path, maxTLSBytes)
	if x.files == nil {
		x.files = map[string]refFile{}
	}
	x.files[path] = f
	x.order = append(x.order, path)
	return f
}

var (
	errDirectory  = errors.New("it is a directory")
	errNotRegular = errors.New("it is not a regular file")
	errTooLarge   = errors.New("it is too large")
)

// readRegular reads a file of at most limit bytes. Anything but a regular file
// is refused, without blocking on a pipe that nobody writes to.
func readRegular(path string, limit int64) ([]byte, fs.FileMode, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, 0, err
	case info.IsDir():
		return nil, 0, errDirectory
	case !info.Mode().IsRegular():
		return nil, 0, errNotRegular
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, 0, err
	}
	if int64(len(data)) > limit {
		return nil, 0, tooLarge(limit)
	}
	return data, info.Mode(), nil
}

func tooLarge(limit int64) error {
	return fmt.Errorf("%w: more than %s", errTooLarge, formatSize(limit))
}

// reason is an error of the file system without operation and path, which the
// message around it already names.
func reason(err error) string {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		err = e.Err
	}
	return printable(err.Error())
}
