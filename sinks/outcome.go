package sinks

import (
	"errors"
	"fmt"
	"time"
)

// Outcome is what became of one attempt.
type Outcome int

const (
	OutcomeDelivered     Outcome = iota + 1 // the remote side has it
	OutcomeSkipped                          // there was nothing to do: success
	OutcomeRetry                            // may work later
	OutcomeRateLimited                      // the webhook pauses
	OutcomeRejected                         // will never work
	OutcomeMisconfigured                    // cannot work until the settings change
)

func (o Outcome) String() string {
	names := [...]string{"unknown", "delivered", "skipped", "retry", "rate_limited", "rejected", "misconfigured"}
	if o < 0 || int(o) >= len(names) {
		o = 0
	}
	return names[o] // #nosec G602 -- o was compared with the length
}

// Verdict is an error as the relay reads it. See [VerdictOf].
type Verdict struct {
	Outcome Outcome
	Code    string        // one word for logs and metrics, [a-z0-9_]{1,64}; "" = none
	After   time.Duration // RateLimited: how long; Retry: at least how long; 0 = no wish
	Status  int           // HTTP status that led to it; 0 = none
	err     error
}

func (v *Verdict) Error() string {
	switch {
	case v.err != nil:
		return v.err.Error()
	case v.Code != "":
		return v.Code
	}
	return v.Outcome.String()
}

// Unwrap is the cause.
func (v *Verdict) Unwrap() error { return v.err }

// VerdictOf is what the relay makes of an error of Deliver: nil is delivered, an error
// that none of the functions below made is a retry.
func VerdictOf(err error) Verdict {
	if err == nil {
		return Verdict{Outcome: OutcomeDelivered}
	}
	if v, ok := errors.AsType[*Verdict](err); ok {
		return Verdict{v.Outcome, v.Code, v.After, v.Status, err}
	}
	return Verdict{Outcome: OutcomeRetry, err: err}
}

// Skip says that there was nothing to do, and why.
func Skip(reason string) error { return &Verdict{Outcome: OutcomeSkipped, err: errors.New(reason)} }

// Reject says that this delivery will never work. code is one word, [a-z0-9_]{1,64}, for
// logs and metrics.
func Reject(code string, err error) error {
	return &Verdict{Outcome: OutcomeRejected, Code: code, err: err}
}

// RateLimited asks for a pause of the whole webhook, at most 1 h; 0 leaves its length to
// the relay (60 s).
func RateLimited(pause time.Duration, err error) error {
	return &Verdict{Outcome: OutcomeRateLimited, Code: "rate_limited", After: pause, err: err}
}

// Misconfigured says that nothing will work until the settings, or the remote side,
// change: a token was revoked, a document is gone. err says what to do.
func Misconfigured(code string, err error) error {
	return &Verdict{Outcome: OutcomeMisconfigured, Code: code, err: err}
}

// Retry is any error with a code, and a wish for how long to wait at least (at most 1 h;
// 0 = none).
func Retry(code string, after time.Duration, err error) error {
	return &Verdict{Outcome: OutcomeRetry, Code: code, After: after, err: err}
}

// SettingError is an error of Open about one setting.
type SettingError struct {
	Path string // JSON Pointer (RFC 6901) into the settings, such as "/token"; "" = all of them
	Err  error
}

func (e *SettingError) Error() string {
	if e.Path == "" {
		return fmt.Sprintf("settings: %v", e.Err)
	}
	return fmt.Sprintf("setting %s: %v", e.Path, e.Err)
}

// Unwrap is the cause.
func (e *SettingError) Unwrap() error { return e.Err }

// Diagnostic is one finding about settings.
type Diagnostic struct {
	Path    string // JSON Pointer (RFC 6901) into the settings; "" = all of them
	Summary string // what is wrong, in one line, without secrets
	Detail  string // what to do
	Warning bool   // the settings can be used all the same
}

// Validation collects what a [Validator] finds.
type Validation struct {
	// Online allows to ask the remote side, within the deadline of the context and
	// without changing anything there. It is false in `peanuts-relay check` by default
	// and while the relay reloads.
	Online      bool
	Env         Env
	diagnostics []Diagnostic
}

// Error reports what makes the settings unusable. detail says what to do; "" = nothing
// to add.
func (v *Validation) Error(path, summary, detail string) {
	v.diagnostics = append(v.diagnostics, Diagnostic{Path: path, Summary: summary, Detail: detail})
}

// Warn reports what is probably not meant.
func (v *Validation) Warn(path, summary, detail string) {
	v.diagnostics = append(v.diagnostics, Diagnostic{Path: path, Summary: summary, Detail: detail, Warning: true})
}

// Diagnostics are the findings so far, in order.
func (v *Validation) Diagnostics() []Diagnostic { return v.diagnostics }
