package history

import (
	"fmt"
	"strconv"
	"strings"
)

// Names in the directory begin with what the file is.
const (
	entryPrefix   = "entry-"
	filePrefix    = "file-"
	newPrefix     = "new-"
	damagedPrefix = "damaged-"
)

// entryName tells number and generation even of an entry that is damaged: a
// generation is never given out twice.
func entryName(number, generation uint64) string {
	return fmt.Sprintf("%s%010d-%010d", entryPrefix, number, generation)
}

// parseEntryName is the inverse of entryName, also behind damagedPrefix.
func parseEntryName(name string) (number, generation uint64, ok bool) {
	plain := strings.TrimPrefix(name, damagedPrefix)
	rest, ok := strings.CutPrefix(plain, entryPrefix)
	a, b, two := strings.Cut(rest, "-")
	if !ok || !two {
		return 0, 0, false
	}
	number, aerr := strconv.ParseUint(a, 10, 64)
	generation, berr := strconv.ParseUint(b, 10, 64)
	if aerr != nil || berr != nil || number == 0 || number > maxNumber || generation > maxNumber || entryName(number, generation) != plain {
		return 0, 0, false
	}
	return number, generation, true
}

// fileName is where the bytes with this SHA-256 are.
func fileName(sum string) string { return filePrefix + sum }
