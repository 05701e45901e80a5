//go:build planted_dropped_on_reload

package planted

// DroppedOnReload forgets, when a configuration takes effect, what its lanes have in memory.
const DroppedOnReload = true
