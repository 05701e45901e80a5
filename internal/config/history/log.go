package history

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/peanutsapp/peanuts-relay/internal/config"
	"github.com/peanutsapp/peanuts-relay/internal/failpoint"
)

var (
	// ErrLocked says that another process has the history open.
	ErrLocked = errors.New("another process has it open")
	// ErrNone says that there is nothing of the kind that was asked for.
	ErrNone = errors.New("no such configuration in the history")
	// errReadOnly answers Append after Peek.
	errReadOnly = errors.New("opened for reading only")
)

// maxWarnings bounds what [Log.Warnings] tells.
const maxWarnings = 20

// Log is the history of one main file. Its methods may be called concurrently.
type Log struct {
	main     string
	readOnly bool
	vol      volume

	mu         sync.Mutex // guards what follows, and one change of the directory at a time
	entries    []*stored  // oldest first
	number     uint64     // highest that was ever used
	generation uint64     // likewise
	stale      bool       // the directory may differ from entries: scan first
	warnings   []string
	unread     int // warnings that found no place
}

// stored is an entry that is on the disk.
type stored struct {
	Entry

	number uint64
	name   string
}

// Entries returns the newest first: at most 50 applied or restored ones and 50
// rejected ones. The slices in them must not be changed.
func (l *Log) Entries() []Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := make([]Entry, 0, len(l.entries))
	for _, e := range slices.Backward(l.entries) {
		list = append(list, e.Entry)
	}
	return list
}

// Generation is the highest that any entry had, also one that is damaged or was
// removed since; 0 = none. The next configuration that is applied is one more.
func (l *Log) Generation() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.generation
}

// Warnings says what was found damaged or could not be cleaned up since the
// log was opened, a sentence each, the oldest first. They contain nothing of the
// files' content.
func (l *Log) Warnings() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := slices.Clone(l.warnings)
	if l.unread > 0 {
		list = append(list, fmt.Sprintf("and %d more", l.unread))
	}
	return list
}

func (l *Log) warn(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	switch {
	case slices.Contains(l.warnings, text):
	case len(l.warnings) == maxWarnings:
		l.unread++
	default:
		l.warnings = append(l.warnings, text)
	}
}

// Last returns the newest applied or restored entry whose files are all intact,
// and the files. What is wrong with newer ones is told in Warnings. The error is
// [ErrNone] when nothing was ever applied, and names everything that is damaged
// when nothing intact is left.
func (l *Log) Last() (Entry, []config.File, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var damage []error
	for _, e := range slices.Backward(l.entries) {
		if !e.kept() {
			continue
		}
		files, err := l.files(e)
		if err == nil {
			return e.Entry, files, nil
		}
		l.warn("%v", err)
		damage = append(damage, err)
	}
	if len(damage) == 0 {
		for _, w := range l.warnings {
			damage = append(damage, errors.New(w))
		}
	}
	return Entry{}, nil, errors.Join(append([]error{fmt.Errorf("%w of %s", ErrNone, l.main)}, damage...)...)
}

// Files returns the files of the newest entry of that generation, the main file
// first. The error is [ErrNone] when it is not kept (any more).
func (l *Log) Files(generation uint64) ([]config.File, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range slices.Backward(l.entries) {
		if e.kept() && e.Generation == generation {
			return l.files(e)
		}
	}
	return nil, fmt.Errorf("generation %d: %w", generation, ErrNone)
}

// files reads the files of an entry and checks every byte.
func (l *Log) files(e *stored) ([]config.File, error) {
	files := make([]config.File, 0, len(e.Files))
	for i := range e.Files {
		ref := &e.Files[i]
		data, err := l.vol.read(fileName(ref.SHA256), maxFileBytes)
		if err == nil && (int64(len(data)) != ref.Size || sum(data) != ref.SHA256) {
			err = fmt.Errorf("%s: %w: the content does not have that SHA-256", fileName(ref.SHA256), errDamaged)
		}
		if err != nil {
			return nil, fmt.Errorf("generation %d cannot be used: the kept copy of %s: %w", e.Generation, ref.Path, err)
		}
		files = append(files, ref.file(data))
	}
	return files, nil
}

// Append adds an entry. An applied or restored one keeps sources, the files it
// was read from, raw, the main file first; of a rejected one they are ignored.
//
// Limits: 10 MiB for a file, 10,001 files, 64 MiB for all; beyond it nothing is
// written and the error says so. Of the changes the first 10,000 are kept, of
// the error 4 KiB. Afterwards the history holds the 50 newest with files and the
// 50 newest rejected ones; fewer when their different files take more than 256
// MiB or they have more than 100,000 files. Of repeated starts with the same
// generation the first and the newest are kept.
func (l *Log) Append(e Entry, sources []config.File) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.append(e, sources); err != nil {
		return fmt.Errorf("write history of the configuration: %w", err)
	}
	return nil
}

func (l *Log) append(e Entry, sources []config.File) error {
	if l.readOnly {
		return errReadOnly
	}
	if l.stale {
		if err := l.scan(); err != nil {
			return err
		}
	}
	r := &record{Main: l.main, Number: l.number + 1, Entry: e}
	blobs, err := r.complete(sources)
	if err != nil {
		return err
	}
	text, err := r.encode()
	if err != nil {
		return err
	}
	if err := l.store(r, text, blobs); err != nil {
		// How far it came is read back from the disk, as after a crash.
		l.stale = true
		if again := l.scan(); again != nil {
			err = errors.Join(err, again)
		}
		return err
	}
	l.note(r)
	l.prune()
	return nil
}

// complete fills in what Append derives and returns the files to keep, each
// content once.
func (r *record) complete(sources []config.File) ([]newFile, error) {
	r.At = r.At.UTC().Round(0)
	r.Changes = slices.Clone(r.Changes[:min(len(r.Changes), maxChanges)])
	r.Error = strings.ToValidUTF8(r.Error[:min(len(r.Error), maxErrorBytes)], "")
	r.Files = nil
	if !r.kept() {
		return nil, r.validate()
	}
	var blobs []newFile
	seen := map[string]bool{}
	for i := range sources {
		f := &sources[i]
		ref := FileRef{Path: filepath.Clean(f.Path), Mode: f.Mode.Perm(), Size: int64(len(f.Data)), SHA256: sum(f.Data)}
		r.Files = append(r.Files, ref)
		if !seen[ref.SHA256] {
			seen[ref.SHA256] = true
			blobs = append(blobs, newFile{ref.SHA256, f.Data})
		}
	}
	return blobs, r.validate()
}

// store follows the order of writes in the package's documentation.
func (l *Log) store(r *record, text []byte, blobs []newFile) error {
	var missing []newFile
	for _, b := range blobs {
		data, err := l.vol.read(fileName(b.name), maxFileBytes)
		if err != nil || sum(data) != b.name {
			missing = append(missing, newFile{newPrefix + b.name, b.data})
		}
	}
	if len(missing) > 0 {
		if err := failpoint.Call("history.files.write", func() error { return l.vol.write(missing) }); err != nil {
			return err
		}
		for _, m := range missing {
			to := fileName(strings.TrimPrefix(m.name, newPrefix))
			if err := failpoint.Call("history.files.rename", func() error { return l.vol.rename(m.name, to) }); err != nil {
				return err
			}
		}
		if err := failpoint.Call("history.files.sync", func() error { return l.vol.sync() }); err != nil {
			return err
		}
	}
	name := entryName(r.Number, r.Generation)
	if err := failpoint.Call("history.entry.write", func() error { return l.vol.write([]newFile{{newPrefix + name, text}}) }); err != nil {
		return err
	}
	if err := failpoint.Call("history.entry.rename", func() error { return l.vol.rename(newPrefix+name, name) }); err != nil {
		return err
	}
	// Commit point.
	return failpoint.Call("history.entry.sync", func() error { return l.vol.sync() })
}

// note takes an entry over that is on the disk and is the newest.
func (l *Log) note(r *record) {
	l.entries = append(l.entries, &stored{Entry: r.Entry, number: r.Number, name: entryName(r.Number, r.Generation)})
	l.number = max(l.number, r.Number)
	l.generation = max(l.generation, r.Generation)
}

// Close lets the directory go. The log must not be used afterwards.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.vol.close(); err != nil && !errors.Is(err, fs.ErrClosed) {
		return fmt.Errorf("close history of the configuration: %w", err)
	}
	return nil
}
