// Package where decides by an expression of jq about payloads.
//
// Guarantee: an expression that Compile takes reads the payload and nothing else:
// no file, no variable of the environment, no clock, no other payload. Match
// always returns: every step of an evaluation looks at its deadline, and the
// language is cut down to what selects, so that no step can make a value much
// larger than the payload that it was made of. What is left out, and why, is in
// restrict.go. A Filter is immutable and safe for concurrent use.
package where

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/itchyny/gojq"
)

const (
	// MaxLength bounds an expression, in bytes.
	MaxLength = 1024
	// rowTime bounds the evaluation over one payload. That of a large one, 1 MiB,
	// with a regular expression takes about a tenth of it.
	rowTime = 250 * time.Millisecond
	// mostResults is how many results of one payload are looked at.
	mostResults = 10_000
	// maxMessage bounds the text of an error, in bytes.
	maxMessage = 300
)

// Error says what is wrong with an expression and where.
type Error struct {
	Offset  int    // in bytes, from 0; where the part begins that is meant
	Message string // does not repeat the offset
}

// Error implements error.
func (e *Error) Error() string { return fmt.Sprintf("at offset %d: %s", e.Offset, e.Message) }

// Filter is a compiled expression.
type Filter struct{ code *gojq.Code }

// Compile reads an expression. Its error is an *Error.
func Compile(expression string) (*Filter, error) {
	if len(expression) > MaxLength {
		return nil, &Error{Offset: MaxLength, Message: fmt.Sprintf("the expression is longer than %d bytes", MaxLength)}
	}
	if strings.TrimSpace(expression) == "" {
		return nil, &Error{Message: "the expression is empty"}
	}
	query, err := gojq.Parse(expression)
	if err != nil {
		return nil, syntaxError(expression, err)
	}
	r := restrictor{source: expression}
	if r.query(query); r.found != nil {
		return nil, r.found
	}
	code, err := gojq.Compile(query, functions()...)
	if err != nil {
		return nil, &Error{Offset: variable(expression, err), Message: err.Error()}
	}
	return &Filter{code: code}, nil
}

func syntaxError(source string, err error) *Error {
	p, ok := errors.AsType[*gojq.ParseError](err)
	if !ok {
		return &Error{Message: err.Error()}
	}
	at := min(max(p.Offset-len(p.Token), 0), len(source))
	if p.Token == "" {
		return &Error{Offset: len(source), Message: "it ends too early"}
	}
	return &Error{Offset: at, Message: fmt.Sprintf("unexpected %q", p.Token)}
}

// variable finds the one that an error of the compiler names.
func variable(source string, err error) int {
	if _, name, ok := strings.Cut(err.Error(), "$"); ok {
		return max(strings.Index(source, "$"+name), 0)
	}
	return 0
}

// Match reports whether the expression chooses a payload: whether any of its
// results is neither false nor null, as select() of jq has it. An error says why
// it cannot be decided and may quote the payload.
func (f *Filter) Match(ctx context.Context, payload []byte) (bool, error) {
	d := json.NewDecoder(bytes.NewReader(payload))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return false, fmt.Errorf("read payload: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, rowTime, errTooLong)
	defer cancel()
	results := f.code.RunWithContext(ctx, v)
	for range mostResults {
		result, more := results.Next()
		if !more {
			return false, nil
		}
		if err, failed := result.(error); failed {
			if ctx.Err() != nil {
				return false, context.Cause(ctx)
			}
			return false, errors.New(cut(err.Error()))
		}
		if result != nil && result != false {
			return true, nil
		}
	}
	return false, fmt.Errorf("the expression has more than %d results", mostResults)
}

var errTooLong = fmt.Errorf("the expression takes longer than %s", rowTime)

func cut(text string) string {
	if len(text) <= maxMessage {
		return text
	}
	return strings.ToValidUTF8(text[:maxMessage], "") + "…"
}
