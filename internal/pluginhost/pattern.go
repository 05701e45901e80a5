package pluginhost

import (
	"errors"
	"regexp"
	"regexp/syntax"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// Bounds of the patterns of one schema. Go's regular expressions take time in proportion
// to their size, but a repetition of 20 characters can have the size of 100 MB.
const (
	maxPattern  = 1 << 10 // bytes of the text
	maxSize     = 5_000   // parts, with every repetition written out
	maxAllSizes = 50_000  // of all patterns together; each counts twice, because it is compiled twice
)

// patterns makes a regular expression engine for one schema.
func patterns() jsonschema.RegexpEngine {
	left := maxAllSizes
	return func(text string) (jsonschema.Regexp, error) {
		if len(text) > maxPattern {
			return nil, errors.New("it is too long")
		}
		parsed, err := syntax.Parse(text, syntax.Perl)
		if err != nil {
			return nil, err
		}
		n := size(parsed)
		if left -= n; n > maxSize || left < 0 {
			return nil, errors.New("it repeats too much")
		}
		return regexp.Compile(text)
	}
}

// size is how many parts a regular expression has once its repetitions are written out.
func size(re *syntax.Regexp) int {
	n := 1 + len(re.Rune)
	for _, sub := range re.Sub {
		n += size(sub)
		if n > maxSize {
			return maxSize + 1
		}
	}
	if re.Op == syntax.OpRepeat {
		n *= max(re.Min, re.Max, 1)
	}
	return min(n, maxSize+1)
}
