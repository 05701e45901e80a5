package web

import (
	"fmt"
	"strings"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/docstest"
)

// docs/web.md says the numbers that the code has.
func TestTheManualHasTheNumbers(t *testing.T) {
	text := docstest.Page(t, "web.md")
	for _, want := range []string{
		fmt.Sprintf("after %d hours, after %d hours without use", int(sessionLife.Hours()), int(sessionIdle.Hours())),
		fmt.Sprintf("there are at most %d.", maxSessions),
		fmt.Sprintf("%d connections, %d s for the head of a request, %d s for its body", maxConns, int(headerTimeout.Seconds()), int(bodyTimeout.Seconds())),
		fmt.Sprintf("%d KiB for a form", maxForm>>10),
	} {
		if !strings.Contains(text, want) {
			t.Errorf("docs/web.md does not say %q", want)
		}
	}
	if loginBurst != 10 || loginEvery.Seconds() != 3 || bearerBurst != 30 || bearerEvery.Seconds() != 1 {
		t.Error("docs/web.md has other numbers for guesses")
	}
}
