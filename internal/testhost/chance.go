package testhost

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"
)

// seedVariable names the seed of a test's random choices.
const seedVariable = "PEANUTS_TEST_SEED"

// Chance is random numbers for one test, from the seed in PEANUTS_TEST_SEED, else from
// the clock. The seed is in the test's log. It is not safe for concurrent use.
func Chance(t testing.TB) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv(seedVariable); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("%s=%q: %v", seedVariable, text, err)
		}
	}
	t.Logf("repeat with %s=%d", seedVariable, seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// Cases tells scripts/torture how often a test brought its fault about.
func Cases(t testing.TB, n int) {
	t.Helper()
	t.Attr("cases", strconv.Itoa(n))
}

// Account tells scripts/torture how many events were acknowledged, and how many of what
// belongs to them are lost. What a test tells in several calls adds up.
func Account(t testing.TB, acked, lost int) {
	t.Helper()
	t.Attr("acked", strconv.Itoa(acked))
	t.Attr("lost", strconv.Itoa(lost))
}
