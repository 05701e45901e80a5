//go:build race

package signing_test

// raceEnabled: under the race detector a sync.Pool drops entries at random, so
// allocations cannot be counted.
const raceEnabled = true
