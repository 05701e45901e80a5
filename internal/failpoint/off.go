//go:build !failpoints

package failpoint

import "io"

// On says whether the program was built to fail.
const On = false

// Here is a moment at which the process may be killed.
func Here(string) {}

// Call makes a call that may fail, or beside which the process may be killed.
func Call(_ string, call func() error) error { return call() }

// Torn stands before block is written to w at an offset.
func Torn(string, io.WriterAt, []byte, int64) {}
