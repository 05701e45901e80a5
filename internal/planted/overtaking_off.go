//go:build !planted_overtaking

package planted

// Overtaking attempts a delivery before an earlier one of its entry has ended.
const Overtaking = false
