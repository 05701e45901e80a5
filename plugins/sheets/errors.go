package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"cloud.google.com/go/auth"
	"google.golang.org/api/googleapi"

	"github.com/peanutsapp/peanuts-relay/sinks"
)

// Codes of outcomes, as docs/sinks/sheets.md lists them.
const (
	codeCredentials = "credentials"
	codeForbidden   = "forbidden"
	codeNotFound    = "not_found"
	codeAPIDisabled = "api_disabled"
	codeCellLimit   = "cell_limit"
	codeProtected   = "protected"
	codeNotSheet    = "not_a_spreadsheet"
	codeTooManyRows = "too_many_rows"
	codeNoHeader    = "no_header"
	codeChanged     = "sheet_changed"
	codeTooLarge    = "too_large"
	codeRefused     = "refused"
	codeTimeout     = "timeout"
	codeConnection  = "connection"
	codeService     = "unavailable"
)

// divisible is a refusal of a request that a smaller one may not meet. last is the
// outcome when it cannot be smaller.
type divisible struct{ last error }

func (e *divisible) Error() string { return e.last.Error() }
func (e *divisible) Unwrap() error { return e.last }

// outdated is a refusal because the tab is not as it was read.
type outdated struct{ last error }

func (e *outdated) Error() string { return e.last.Error() }
func (e *outdated) Unwrap() error { return e.last }

// quotaPause is how long nothing is sent after Google said that the quota is used up:
// as long as the answer says, else a minute, after which it has refilled, and up to a
// quarter of it so that several programs with one account do not come back at once.
func quotaPause(h http.Header) time.Duration {
	return cmp.Or(retryAfter(h), time.Minute+rand.N(15*time.Second)) // #nosec G404 -- spreads retries, protects nothing
}

// verdict is what an error of a call means. It holds no part of a key or a token.
func (c *client) verdict(err error) error {
	if v, ok := errors.AsType[*sinks.Verdict](err); ok {
		return v
	}
	if e, ok := errors.AsType[*auth.Error](err); ok {
		return c.tokenVerdict(e)
	}
	if e, ok := errors.AsType[*googleapi.Error](err); ok {
		return c.statusVerdict(e)
	}
	var timeout interface{ Timeout() bool }
	switch {
	case errors.Is(err, errTooLong):
		return sinks.Misconfigured(codeTooManyRows, errors.New("the tab has too many rows to look for an entry; name another tab"))
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return sinks.Retry(codeTimeout, 0, errors.New("google did not answer in time; whether the sheet has it is seen at the next attempt"))
	case errors.Is(err, context.Canceled):
		return sinks.Retry(codeTimeout, 0, errors.New("interrupted while waiting for google"))
	}
	return sinks.Retry(codeConnection, 0, fmt.Errorf("no answer from google: %w", withoutURL(err)))
}

// withoutURL drops the address, which says nothing here and is long.
func withoutURL(err error) error {
	var e interface{ Unwrap() error }
	for errors.As(err, &e) {
		inner := e.Unwrap()
		if inner == nil {
			break
		}
		err = inner
	}
	return err
}

// tokenVerdict is for the exchange of the key for a token.
func (c *client) tokenVerdict(e *auth.Error) error {
	status := 0
	if e.Response != nil {
		status = e.Response.StatusCode
	}
	var told struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	_ = json.Unmarshal(e.Body, &told) // else there is no more to say than the status
	switch {
	case status == http.StatusTooManyRequests:
		return sinks.RateLimited(quotaPause(e.Response.Header), errors.New("google gives out no more tokens for now"))
	case status >= 500, status == http.StatusRequestTimeout, status == 0:
		return withStatus(sinks.Retry(codeService, 0, fmt.Errorf("google's token service answered %d", status)), status)
	}
	return withStatus(sinks.Misconfigured(codeCredentials, fmt.Errorf(
		"google does not accept the key of %s (%s): make a new key for it, and see that the clock of this server is right",
		c.email, sinks.Truncate(strings.TrimSpace(told.Error+" "+told.Description+" "+strconv.Itoa(status)), 200))), status)
}

// statusVerdict is for an answer of the Sheets API.
func (c *client) statusVerdict(e *googleapi.Error) error {
	said := sinks.Truncate(strings.Join(strings.Fields(e.Message), " "), 300)
	answered := fmt.Errorf("google answered %d: %s", e.Code, said)
	reason := reasonOf(e)
	switch {
	case e.Code == http.StatusTooManyRequests, e.Code == http.StatusForbidden && strings.HasSuffix(strings.ToLower(reason), "ratelimitexceeded"):
		return withStatus(sinks.RateLimited(quotaPause(e.Header), fmt.Errorf("google's quota of %s is used up: %s", c.email, said)), e.Code)
	case e.Code == http.StatusUnauthorized:
		return withStatus(sinks.Misconfigured(codeCredentials, fmt.Errorf("google does not accept the token of %s: make a new key for it (%s)", c.email, said)), e.Code)
	case e.Code == http.StatusForbidden && reason == "SERVICE_DISABLED":
		return withStatus(sinks.Misconfigured(codeAPIDisabled, fmt.Errorf("enable the Google Sheets API in the project of %s (%s)", c.email, said)), e.Code)
	case e.Code == http.StatusForbidden:
		return withStatus(sinks.Misconfigured(codeForbidden, fmt.Errorf("share the spreadsheet with %s as an editor (%s)", c.email, said)), e.Code)
	case e.Code == http.StatusNotFound:
		return withStatus(sinks.Misconfigured(codeNotFound, fmt.Errorf("there is no such spreadsheet, or it is not shared with %s: see that the id is right, and share it as an editor", c.email)), e.Code)
	case e.Code == http.StatusRequestEntityTooLarge:
		return &divisible{withStatus(sinks.Reject(codeTooLarge, answered), e.Code)}
	case e.Code == http.StatusBadRequest:
		return withStatus(c.refusal(said, answered), e.Code)
	case e.Code >= 300 && e.Code < 400:
		return withStatus(sinks.Misconfigured(codeRefused, fmt.Errorf("the answer is a redirect (%d), which google's API never gives: see base_url and the proxy", e.Code)), e.Code)
	case e.Code >= 500, e.Code == http.StatusRequestTimeout, e.Code == http.StatusConflict:
		return withStatus(sinks.Retry(codeService, retryAfter(e.Header), answered), e.Code)
	}
	return &divisible{withStatus(sinks.Reject(codeRefused, answered), e.Code)}
}

// refusal reads what is wrong with a request off the text: all of them have the status
// INVALID_ARGUMENT or FAILED_PRECONDITION.
func (c *client) refusal(said string, answered error) error {
	has := func(parts ...string) bool {
		for _, p := range parts {
			if strings.Contains(strings.ToLower(said), p) {
				return true
			}
		}
		return false
	}
	switch {
	case has("number of cells in the workbook above the limit"):
		return sinks.Misconfigured(codeCellLimit, errors.New("the spreadsheet is full: google allows 10 million cells; delete empty columns and rows, or name another spreadsheet"))
	case has("protected"):
		return sinks.Misconfigured(codeProtected, fmt.Errorf("a protected range is in the way: let %s edit it, or remove the protection (%s)", c.email, said))
	case has("not supported for this document"):
		return sinks.Misconfigured(codeNotSheet, errors.New("the document is no Google spreadsheet, perhaps an Excel file: save it as a Google spreadsheet"))
	case has("payload size exceeds", "request too large", "request entity too large"):
		return &divisible{sinks.Reject(codeTooLarge, answered)}
	case has("no grid with id", "exceeds grid limits", "after last row in grid", "after last column in grid", "already exists", "not possible to delete all non-frozen rows", "beyond the last requested", "no sheet with id"):
		return &outdated{sinks.Retry(codeChanged, 0, fmt.Errorf("the tab was changed meanwhile (%s)", said))}
	}
	return &divisible{sinks.Reject(codeRefused, answered)}
}

// withStatus notes the status in the verdict within err.
func withStatus(err error, status int) error {
	if v, ok := errors.AsType[*sinks.Verdict](err); ok {
		v.Status = status
	}
	return err
}

// reasonOf is the reason of an error's details, or of the older form.
func reasonOf(e *googleapi.Error) string {
	for _, d := range e.Details {
		if m, ok := d.(map[string]any); ok {
			if reason, ok := m["reason"].(string); ok {
				return reason
			}
		}
	}
	for _, item := range e.Errors {
		if item.Reason != "" {
			return item.Reason
		}
	}
	return ""
}

// retryAfter is what a server asks to wait; 0 = nothing.
func retryAfter(h http.Header) time.Duration {
	if n, err := strconv.Atoi(h.Get("Retry-After")); err == nil && n > 0 {
		return min(time.Duration(n)*time.Second, time.Hour)
	}
	return 0
}
