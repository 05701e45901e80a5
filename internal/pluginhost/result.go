package pluginhost

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
)

// Bounds of what a result says.
const (
	maxState      = 4 << 10
	maxMessage    = 2 << 10
	maxAddress    = 2 << 10
	maxCode       = 64
	maxRetryAfter = 24 * time.Hour // what is heeded of it is decided elsewhere, and is less
	maxStatus     = 999
)

// result judges an attempt by what the plugin says of it.
func (i *Instance) result(res *sinkpb.Result, a *delivery.Attempt) {
	code := cleanCode(res.GetCode())
	message := ""
	if res.GetMessage() != "" {
		message = i.b.text(res.GetMessage(), maxMessage)
	}
	if res.GetStatusCode() <= maxStatus {
		a.Status = int(res.GetStatusCode())
	}
	a.RemoteURL = i.address(res.GetRemoteUrl())
	switch res.GetOutcome() {
	case sinkpb.Outcome_OUTCOME_DELIVERED:
		a.Outcome = delivery.Delivered
	case sinkpb.Outcome_OUTCOME_SKIPPED:
		a.Outcome = delivery.Skipped
	case sinkpb.Outcome_OUTCOME_RETRY:
		a.Outcome, a.Code = delivery.Retry, code
	case sinkpb.Outcome_OUTCOME_RATE_LIMITED:
		a.Outcome, a.Code = delivery.RateLimited, code
	case sinkpb.Outcome_OUTCOME_REJECTED:
		a.Outcome, a.Code = delivery.Rejected, code
	case sinkpb.Outcome_OUTCOME_MISCONFIGURED:
		a.Outcome, a.Code = delivery.Misconfigured, code
	default:
		a.Outcome, a.Code = delivery.Retry, delivery.CodeNoResult
		message = strings.TrimSpace("the sink plugin " + i.b.file.Sink + " gave a result without a known outcome; " + message)
	}
	if a.Outcome == delivery.Delivered || a.Outcome == delivery.Skipped {
		i.success(res, a, message)
		return
	}
	if message == "" {
		message = "the sink plugin " + i.b.file.Sink + " gave no reason"
	}
	a.Error = message
	a.RetryAfter = wish(res.GetRetryAfter())
}

func (i *Instance) success(res *sinkpb.Result, a *delivery.Attempt, message string) {
	a.Message = message
	switch state := res.GetState(); {
	case len(state) > maxState:
		// The remote side has it, but what comes next for the entry would not find it.
		*a = delivery.Attempt{Number: a.Number, Started: a.Started, Signatures: a.Signatures, Status: a.Status, RemoteURL: a.RemoteURL,
			Outcome: delivery.Retry, Code: delivery.CodeNoResult,
			Error: "the sink plugin " + i.b.file.Sink + " gave a state of more than 4 KiB, which is not kept"}
	case len(state) > 0:
		a.EntryState = state
	}
}

// address is where a person can see the result: http or https, without secrets, or nothing.
func (i *Instance) address(text string) string {
	if text == "" || len(text) > maxAddress {
		return ""
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil {
		return ""
	}
	return i.b.text(u.String(), maxAddress)
}

// wish is how long the plugin wants to wait; 0 = it does not say, or nothing sensible.
func wish(d *durationpb.Duration) time.Duration {
	if d == nil || d.CheckValid() != nil {
		return 0
	}
	return min(max(d.AsDuration(), 0), maxRetryAfter)
}

// cleanCode makes a word for metrics of whatever a code is. Words by which the relay
// itself decides are not the plugin's to say.
func cleanCode(code string) delivery.Code {
	word := delivery.Code(cleanWord(code[:min(len(code), maxCode)]))
	switch word {
	case delivery.CodeDamaged, delivery.CodeDropped, delivery.CodeRemoved, delivery.CodeInterrupted, delivery.CodeRedirect,
		delivery.CodePluginCrash, delivery.CodePluginDown, delivery.CodeNoResult:
		return "sink_" + word
	}
	return word
}

func cleanWord(code string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '_':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '_'
	}, code)
}

func isTimeout(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || status.Code(err) == codes.DeadlineExceeded
}

// complaints keeps a plugin that breaks the contract with every call from filling the log.
type complaints struct {
	mu   sync.Mutex
	last map[string]time.Time // by message; there are a few
}

const complainEvery = time.Minute

// complain logs a warning about what the plugin does wrong, once a minute.
func (b *binary) complain(message string, attrs ...any) {
	c := &b.complaints
	c.mu.Lock()
	now := time.Now()
	if at, ok := c.last[message]; ok && now.Sub(at) < complainEvery {
		c.mu.Unlock()
		return
	}
	if c.last == nil {
		c.last = map[string]time.Time{}
	}
	c.last[message] = now
	c.mu.Unlock()
	b.host.log.With("sink", b.file.Sink).Warn(message, attrs...)
}
