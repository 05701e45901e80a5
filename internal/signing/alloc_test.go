//go:build !race

package signing_test

import (
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/signing"
)

// Under the race detector a sync.Pool drops entries at random.
func TestSigningAllocatesItsResultOnly(t *testing.T) {
	for scheme, most := range map[signing.Scheme]float64{signing.Peanuts: 2, signing.Hex: 2, signing.Standard: 3} {
		s := signer(t, []signing.Spec{{Scheme: scheme}}, whsec)
		at, payload := time.Unix(1700000000, 0), []byte(body)
		// A garbage collection may empty the pool once.
		if got := testing.AllocsPerRun(2000, func() { s.Sign(nil, "del_1", at, payload) }); got > most {
			t.Errorf("scheme %s: %v allocations, want at most %v", scheme, got, most)
		}
	}
}
