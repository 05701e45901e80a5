package history

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"unicode/utf8"
)

// Limits of one entry. The first two are those of the configuration itself.
const (
	maxFileBytes  = 10 << 20
	maxFiles      = 10_001 // the main file and its drop-ins
	maxTotalBytes = 64 << 20
	maxEntryBytes = 16 << 20
	maxChanges    = 10_000
	maxErrorBytes = 4 << 10
	maxWordBytes  = 256 // of a trigger, a digest
)

// maxNumber bounds the numbers in names, so that the next one always exists.
const maxNumber = 1 << 53

// firstWords begin every entry and name the format.
const firstWords = "peanuts-relay configuration entry 1 sha256="

// errDamaged marks content that cannot be what was written.
var errDamaged = errors.New("damaged")

// record is an entry as it is on the disk.
type record struct {
	Main   string `json:"main"`   // whose history this is
	Number uint64 `json:"number"` // position in it
	Entry
}

// encode is the inverse of decode.
func (r *record) encode() ([]byte, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode entry: %w", err)
	}
	data := fmt.Appendf(nil, "%s%s\n%s\n", firstWords, sum(append(text, '\n')), text)
	if len(data) > maxEntryBytes {
		return nil, fmt.Errorf("the entry takes %d bytes, more than %d", len(data), maxEntryBytes)
	}
	return data, nil
}

// decode accepts nothing that encode cannot have made of a valid record.
func decode(data []byte) (*record, error) {
	head, text, _ := bytes.Cut(data, []byte("\n"))
	digest, ok := strings.CutPrefix(string(head), firstWords)
	if !ok {
		return nil, fmt.Errorf("%w: it does not begin as an entry of this format", errDamaged)
	}
	if digest != sum(text) {
		return nil, fmt.Errorf("%w: its content does not have the SHA-256 that it names", errDamaged)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	var r record
	if err := d.Decode(&r); err != nil {
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: something follows the entry", errDamaged)
	}
	if err := r.validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	return &r, nil
}

// validate holds what is written and what is read to the same rules.
func (r *record) validate() error {
	switch {
	case r.Number == 0 || r.Number > maxNumber:
		return fmt.Errorf("number %d is out of range", r.Number)
	case r.Generation > maxNumber || r.kept() && r.Generation == 0:
		return fmt.Errorf("generation %d is out of range", r.Generation)
	case !r.kept() && r.Result != Rejected:
		return fmt.Errorf("unknown result %q", r.Result)
	case r.kept() != (len(r.Files) > 0):
		return fmt.Errorf("%s, with %d files", r.Result, len(r.Files))
	case len(r.Trigger) > maxWordBytes || len(r.Digest) > maxWordBytes || len(r.Error) > maxErrorBytes:
		return errors.New("a text is too long")
	case len(r.Changes) > maxChanges:
		return fmt.Errorf("%d changes, more than %d", len(r.Changes), maxChanges)
	case r.Errors < 0:
		return fmt.Errorf("%d errors", r.Errors)
	case !filepath.IsAbs(r.Main):
		return fmt.Errorf("main file %q is not an absolute path", r.Main)
	}
	return validateFiles(r.Files)
}

func validateFiles(files []FileRef) error {
	if len(files) > maxFiles {
		return fmt.Errorf("%d files, more than %d", len(files), maxFiles)
	}
	total, seen := int64(0), make(map[string]bool, len(files))
	for _, f := range files {
		switch {
		case !filepath.IsAbs(f.Path) || !utf8.ValidString(f.Path):
			return fmt.Errorf("file %q: not an absolute path in UTF-8", f.Path)
		case seen[f.Path]:
			return fmt.Errorf("file %q is there twice", f.Path)
		case f.Mode&^fs.ModePerm != 0:
			return fmt.Errorf("file %q: mode %o has more than permissions", f.Path, f.Mode)
		case f.Size < 0 || f.Size > maxFileBytes:
			return fmt.Errorf("file %q: %d bytes, more than %d", f.Path, f.Size, maxFileBytes)
		case !isSum(f.SHA256):
			return fmt.Errorf("file %q: %q is no SHA-256", f.Path, f.SHA256)
		}
		seen[f.Path] = true
		total += f.Size
	}
	if total > maxTotalBytes {
		return fmt.Errorf("the files take %d bytes, more than %d", total, maxTotalBytes)
	}
	return nil
}

// sum is the SHA-256 of data in hex.
func sum(data []byte) string {
	s := sha256.Sum256(data)
	return hex.EncodeToString(s[:])
}

func isSum(s string) bool {
	return len(s) == 2*sha256.Size && strings.Trim(s, "0123456789abcdef") == ""
}
