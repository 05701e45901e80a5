//go:build !planted_loss

package tiny

const planted = 0
