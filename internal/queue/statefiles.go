package queue

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
)

// Files of the database that hold no rows and that it makes anew when they are missing.
const (
	registryFile = "KEYREGISTRY" // of encryption, which is not used
	discardFile  = "DISCARD"     // how much of each file of the value log is garbage, a hint
)

// damagedStateFiles lists those that the database would stumble over.
func damagedStateFiles(dir string) (names []string) {
	if text, err := os.ReadFile(filepath.Join(dir, registryFile)); err == nil && !soundRegistry(text) {
		names = append(names, registryFile)
	}
	if text, err := os.ReadFile(filepath.Join(dir, discardFile)); err == nil && !soundDiscard(text) {
		names = append(names, discardFile)
	}
	return names
}

// soundRegistry: 16 random bytes and a fixed text (badger, key_registry.go); without
// encryption there are no keys.
func soundRegistry(text []byte) bool {
	return len(text) == 16+len("Hello Badger") && string(text[16:]) == "Hello Badger"
}

// soundDiscard: numbers of files with bytes of garbage, and zeros behind them (badger,
// discard.go).
func soundDiscard(text []byte) bool {
	if len(text) < 1<<20 || len(text)%16 != 0 {
		return false
	}
	for at := 0; at < len(text); at += 16 {
		file, garbage := binary.BigEndian.Uint64(text[at:]), binary.BigEndian.Uint64(text[at+8:])
		if file == 0 {
			return allZero(text[at+16:])
		}
		if file > 1<<32-1 || garbage > 1<<32-1 {
			return false
		}
	}
	return false
}

func allZero(b []byte) bool {
	zeros := make([]byte, min(len(b), 64<<10))
	for len(b) > 0 {
		n := min(len(b), len(zeros))
		if !bytes.Equal(b[:n], zeros[:n]) {
			return false
		}
		b = b[n:]
	}
	return true
}

// sweepState removes those that are damaged: the database makes them anew.
func sweepState(dir string, log *slog.Logger) error {
	for _, name := range damagedStateFiles(dir) {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("remove damaged file: %w", err)
		}
		log.Warn("removed a damaged file of the database that holds no rows; it is made anew", "file", name)
	}
	return nil
}
