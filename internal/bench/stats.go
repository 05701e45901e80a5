package main

import "slices"

// summary is a distribution of latencies in microseconds.
type summary struct {
	N   int   `json:"n"`
	P50 int64 `json:"p50_us"`
	P90 int64 `json:"p90_us"`
	P99 int64 `json:"p99_us"`
	Max int64 `json:"max_us"`
}

// summarise sorts v and takes its percentiles.
func summarise(v []int64) summary {
	if len(v) == 0 {
		return summary{}
	}
	slices.Sort(v)
	at := func(q float64) int64 { return v[min(len(v)-1, int(q*float64(len(v))))] }
	return summary{len(v), at(.50), at(.90), at(.99), v[len(v)-1]}
}
