package event

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// mostHelpersNamed bounds how many helpers the refusal of an unknown one lists.
const mostHelpersNamed = 20

// Helpers are the helpers that an event may be about.
type Helpers interface {
	// Helper is nil when there is none with this id.
	Helper(id string) *Helper
	// HelperIDs lists them all, in any order; the slice is the caller's.
	HelperIDs() []string
}

// Read is [Parse], and then whether the helper exists and takes the event. It is
// everything that decides whether an event is taken, but for what only a queue
// can know. The error is an [*Error]; without one helpers has the event's helper.
func Read(body []byte, now time.Time, helpers Helpers) (*Input, error) {
	in, err := Parse(body, now)
	if err != nil {
		return nil, err
	}
	h := helpers.Helper(in.HelperID)
	if h == nil {
		return nil, unknownHelper(in.HelperID, helpers.HelperIDs())
	}
	if err := in.Check(h); err != nil {
		return nil, err
	}
	return in, nil
}

func unknownHelper(id string, known []string) *Error {
	slices.Sort(known)
	message := fmt.Sprintf("helper %q does not exist", id)
	meant := Suggest(id, known)
	if meant != "" {
		message += fmt.Sprintf("; did you mean %q?", meant)
	}
	more := ""
	if len(known) > mostHelpersNamed {
		more = fmt.Sprintf(" and %d more", len(known)-mostHelpersNamed)
		known = known[:mostHelpersNamed]
	}
	if len(known) == 0 {
		message += "; no helper is configured"
	} else {
		message += "; configured: " + strings.Join(known, ", ") + more
	}
	return &Error{Status: statusUnprocessable, Code: CodeUnknownHelper, Message: message, Field: paths[atHelper], Offset: -1, Suggestion: meant}
}
