//go:build !planted_retry_of_4xx

package planted

// RetryOf4xx retries what the receiver has refused for good.
const RetryOf4xx = false
