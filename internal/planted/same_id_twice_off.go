//go:build !planted_same_id_twice

package planted

// SameIDTwice accepts an event again that comes with the same id.
const SameIDTwice = false
