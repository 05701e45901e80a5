// Package tiny is a product whose tests torture runs in its own tests.
package tiny

// Kept is how many of n events are kept.
func Kept(n int) int { return n - planted }
