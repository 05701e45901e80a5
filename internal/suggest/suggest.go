// Package suggest finds the word that somebody probably meant.
//
// Guarantee: it is pure, and what it costs is bounded whatever it is given.
package suggest

import (
	"strings"
	"unicode/utf8"
)

// Word returns the word of known that was probably meant by word: the
// nearest by insertions, deletions, substitutions and swaps of neighbours, not
// counting case, if that is near enough for a slip of the pen. A word without a
// dot may also stand for the last part of a dotted one, so that "created" is
// near "entry.created". It returns "" when nothing is near; of several equally
// near words the first.
func Word(word string, known []string) string {
	// No name of the configuration is longer, and comparing costs the product
	// of the lengths.
	const longest = 64
	if word == "" || len(word) > longest {
		return ""
	}
	word = strings.ToLower(word)
	best, meant := tolerance(word)+1, ""
	consider := func(candidate, full string) {
		if len(candidate) > longest {
			return
		}
		if d := distance(word, strings.ToLower(candidate)); d < best {
			best, meant = d, full
		}
	}
	for _, k := range known {
		consider(k, k)
	}
	if !strings.Contains(word, ".") {
		for _, k := range known {
			if dot := strings.LastIndexByte(k, '.'); dot >= 0 {
				consider(k[dot+1:], k)
			}
		}
	}
	return meant
}

// tolerance is how many slips still look like the same word.
func tolerance(word string) int {
	return min(3, (utf8.RuneCountInString(word)+2)/4)
}

// distance is the Damerau-Levenshtein distance in which no part is edited twice
// (optimal string alignment).
func distance(a, b string) int {
	x, y := []rune(a), []rune(b)
	before, above, row := make([]int, len(y)+1), make([]int, len(y)+1), make([]int, len(y)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(x); i++ {
		before, above, row = above, row, before
		row[0] = i
		for j := 1; j <= len(y); j++ {
			cost := 1
			if x[i-1] == y[j-1] {
				cost = 0
			}
			row[j] = min(above[j]+1, row[j-1]+1, above[j-1]+cost)
			if i > 1 && j > 1 && x[i-1] == y[j-2] && x[i-2] == y[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
	}
	return row[len(y)]
}
