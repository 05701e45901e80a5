//go:build !planted_signature_of_other_bytes

package planted

// SignatureOfOtherBytes signs other bytes than it sends.
const SignatureOfOtherBytes = false
