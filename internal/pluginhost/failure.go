package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	maxCrashReport = 16 << 10 // bytes kept of what a process wrote when it died
	maxWords       = 300      // bytes of an error that the plugin worded
)

// diedError says how a process ended by itself, or why the host ended it.
type diedError struct{ how string }

func (e *diedError) Error() string { return e.how }

// died says how a process ended, after its end.
func (b *binary) died(r *run) error {
	b.mu.Lock()
	why := r.why
	b.mu.Unlock()
	if why != "" {
		return &diedError{why}
	}
	select {
	case <-r.child.Done():
	default:
		return &diedError{"it does not end after SIGKILL"}
	}
	exit := r.child.Exit()
	how := exit.String()
	words, _, _ := strings.Cut(exit.Stack, "\n")
	if words == "" && len(exit.Last) > 0 {
		words = exit.Last[len(exit.Last)-1]
	}
	if words = b.text(words, maxWords); words != "" {
		how += "; its last words: " + words
	}
	return &diedError{how}
}

// crashReport is what a process wrote when it died, masked by package process; "" when it
// is not gone or wrote nothing.
func crashReport(r *run) string {
	select {
	case <-r.child.Done():
	default:
		return ""
	}
	exit := r.child.Exit()
	report := exit.Stack
	if report == "" {
		report = strings.Join(exit.Last, "\n")
	}
	if len(report) > maxCrashReport {
		report = strings.ToValidUTF8(report[:maxCrashReport], "")
	}
	return report
}

// gone reports whether the process has ended.
func (r *run) gone() bool {
	select {
	case <-r.child.Done():
		return true
	default:
		return false
	}
}

// callError says why a call failed, in words: what was asked, and what came of it.
func (b *binary) callError(r *run, what string, err error) error {
	if r.gone() {
		died, _ := errors.AsType[*diedError](b.died(r))
		return &diedError{"its process ended during " + what + ": it " + strings.TrimPrefix(died.how, "it ")}
	}
	return fmt.Errorf("%s failed: %s", what, b.words(err))
}

// words is what an error of gRPC means. Codes are a matter of the wire.
func (b *binary) words(err error) string {
	if errors.Is(err, errTooMany) {
		return errTooMany.Error()
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return "it did not answer in time"
	}
	s := status.Convert(err)
	said := b.text(s.Message(), maxWords)
	switch s.Code() {
	case codes.DeadlineExceeded:
		return "it did not answer in time"
	case codes.Canceled:
		return "the call was cancelled"
	case codes.Unavailable:
		return "the connection to it broke, or it takes no calls"
	case codes.Unimplemented:
		return "it does not know this call"
	case codes.NotFound:
		return "it does not know the instance of the webhook"
	case codes.ResourceExhausted:
		if strings.Contains(said, "received message larger") {
			return "its answer, or what it was sent, is larger than allowed"
		}
	}
	if strings.Contains(said, errTooMany.Error()) {
		return errTooMany.Error()
	}
	if said == "" {
		return "it answered with an error and no words"
	}
	return "it answered with an error: " + said
}

// isAnswer reports whether an error of a call shows that the process is alive: it took
// the call, and said no.
func isAnswer(err error) bool {
	switch status.Code(err) {
	case codes.DeadlineExceeded, codes.Unavailable, codes.Canceled:
		return false
	}
	return true
}
