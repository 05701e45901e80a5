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

// median is the value in the middle, the mean of the two there when their number is even.
func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// quotient is what one side of a comparison reached of the other, round by round.
type quotient struct{ median, lowest, highest float64 }

// ratios divides round by round, so that what slows the machine down for longer than a
// round slows both. A round in which the other side has nothing is left out.
func ratios(of, by []float64) quotient {
	var r []float64
	for i := range min(len(of), len(by)) {
		if by[i] > 0 {
			r = append(r, of[i]/by[i])
		}
	}
	if len(r) == 0 {
		return quotient{}
	}
	return quotient{median(r), slices.Min(r), slices.Max(r)}
}
