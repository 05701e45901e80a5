//go:build planted_refill_skips_one

package planted

// RefillSkipsOne passes over the first delivery of each read that fills a lane's memory.
const RefillSkipsOne = true
