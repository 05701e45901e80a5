//go:build planted_completion_before_send

package planted

// CompletionBeforeSend records the success of a delivery before it is sent.
const CompletionBeforeSend = true
