package config

import "strings"

// nearest is the known word that was probably meant: a difference of at most
// two letters (one in short words), or the same letters in another case. "" when
// nothing is near.
func nearest(word string, known []string) string {
	if len(word) > 64 {
		return ""
	}
	best, bestDistance := "", 3
	if len(word) <= 4 {
		bestDistance = 2
	}
	for _, k := range known {
		if d := distance(strings.ToLower(word), strings.ToLower(k)); d < bestDistance {
			best, bestDistance = k, d
		}
	}
	return best
}

// distance counts the insertions, deletions, replacements and swaps of
// neighbours that turn a into b (optimal string alignment).
func distance(a, b string) int {
	if diff := len(a) - len(b); diff > 2 || diff < -2 {
		return 3
	}
	var before []int
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		next := make([]int, len(b)+1)
		next[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			next[j] = min(row[j]+1, next[j-1]+1, row[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				next[j] = min(next[j], before[j-2]+1)
			}
		}
		before, row = row, next
	}
	return row[len(b)]
}

// didYouMean phrases [nearest] as a suggestion, or is fallback.
func didYouMean(word string, known []string, fallback string) string {
	if near := nearest(word, known); near != "" {
		return "did you mean " + quote(near) + "?"
	}
	return fallback
}
