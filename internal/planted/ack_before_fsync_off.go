//go:build !planted_ack_before_fsync

package planted

// AckBeforeFsync acknowledges a group before the disk has it.
const AckBeforeFsync = false
