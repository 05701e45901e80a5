package history

import (
	"io/fs"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/config"
)

// Values of Entry.Result.
const (
	Applied  = "applied"  // it runs since then
	Rejected = "rejected" // the files were wrong; what ran went on
	Restored = "restored" // a start with the last known good configuration
)

// Entry is one attempt to change what runs, or a start.
type Entry struct {
	// Generation is what ran afterwards, from 1 on.
	Generation uint64    `json:"generation"`
	At         time.Time `json:"at"`
	Trigger    string    `json:"trigger"`       // start, watch, signal, reload, webhooks
	UID        *uint32   `json:"uid,omitempty"` // of the process that asked; nil = nobody did
	Result     string    `json:"result"`        // Applied, Rejected, Restored
	Digest     string    `json:"digest"`        // of the files that were tried
	Changes    []Change  `json:"changes,omitempty"`
	Errors     int       `json:"errors,omitempty"` // of a rejected one
	Error      string    `json:"error,omitempty"`  // the first of them
	// Files are the configuration files in the order of merging, the main file
	// first. Append makes them from its sources. A rejected entry has none.
	Files []FileRef `json:"files,omitempty"`
}

// kept reports whether the entry has its files.
func (e *Entry) kept() bool { return e.Result == Applied || e.Result == Restored }

// Change is one object that differs from what ran before. It names keys, never
// values. The fields are those of config.Change, in its order, so that one
// converts to the other.
type Change struct {
	Object  string   `json:"object"`
	ID      string   `json:"id"`
	Op      string   `json:"op"`
	Fields  []string `json:"fields,omitempty"`
	Restart bool     `json:"restart,omitempty"`
}

// FileRef names one file of an entry and its content.
type FileRef struct {
	Path   string      `json:"path"`
	Mode   fs.FileMode `json:"mode"` // permissions that it had
	Size   int64       `json:"size"`
	SHA256 string      `json:"sha256"` // of its bytes, in hex
}

// file is the configuration file with these bytes.
func (r *FileRef) file(data []byte) config.File {
	return config.File{Path: r.Path, Data: data, Mode: r.Mode}
}
