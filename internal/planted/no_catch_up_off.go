//go:build !planted_no_catch_up

package planted

// NoCatchUp does not give the database at a start what only the journal has.
const NoCatchUp = false
