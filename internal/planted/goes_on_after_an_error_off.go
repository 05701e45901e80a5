//go:build !planted_goes_on_after_an_error

package planted

// GoesOnAfterAnError does not stop the store when the disk reports an error.
const GoesOnAfterAnError = false
