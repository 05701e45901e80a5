package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/peanutsapp/peanuts-relay/internal/id"
	"github.com/peanutsapp/peanuts-relay/internal/queue/rawdb"
)

const (
	// mostFindings bounds what a report lists one by one; the rest is counted.
	mostFindings = 10_000
)

// FsckOptions say which store is checked and how. Only Dir is required.
type FsckOptions struct {
	Dir string
	// Repair builds a store of everything that can be read in place of one with
	// problems, and keeps the former files in a directory of their own.
	Repair bool
	// Progress is told how many bytes of how many were read, often; nil = nobody.
	Progress func(done, total int64)

	// For this package's tests.
	stat  func(string) (diskState, error)
	crash func(step string) // between any two steps of a repair
	// trusting compares no checksums: a control of what they are worth.
	trusting bool
}

// FsckProblem is one thing that is wrong.
type FsckProblem struct {
	Where string `json:"where"` // a file of the store, or a kind of row
	What  string `json:"what"`
	Means string `json:"means,omitempty"` // for which event or delivery
}

// FsckReport says what a check found and what a repair did. It has more than fifteen
// fields because it is a document.
type FsckReport struct {
	Dir    string `json:"dir"`
	Store  string `json:"store,omitempty"` // its number; "" = not known
	Format int    `json:"format,omitempty"`

	Rows     int64 `json:"rows"`
	Events   int64 `json:"events"`   // records that can be read, copies included
	Pending  int64 `json:"pending"`  // deliveries
	Finished int64 `json:"finished"` // deliveries that are in the log

	Found    int           `json:"problems_found"` // all of them
	Problems []FsckProblem `json:"problems"`       // the first 10,000
	Notes    []string      `json:"notes,omitempty"`

	// What was acknowledged and is not there. Lists end after 10,000, counts do not.
	LostEvents        []string `json:"lost_events"`
	LostEventCount    int64    `json:"lost_event_count"`
	LostDeliveries    []string `json:"lost_deliveries"`
	LostDeliveryCount int64    `json:"lost_delivery_count"`

	Repaired    bool   `json:"repaired"`
	Quarantine  string `json:"quarantine,omitempty"`   // where the former files are
	BroughtBack int64  `json:"brought_back,omitempty"` // deliveries that are pending again
}

// Fsck checks a store that no process has open, and repairs it when it is told to. It
// opens no database that may be damaged: the files are read one by one. Without
// Repair it writes nothing but its process id into the lock file. Errors are a
// *[LockedError], a *[FormatError] (of a newer format, or no store at all), a
// *[SpaceError] (too little room for a repair), or one of the system. What is wrong
// with the store is in the report and no error.
func Fsck(ctx context.Context, o FsckOptions) (*FsckReport, error) {
	if o.Progress == nil {
		o.Progress = func(int64, int64) {}
	}
	if o.stat == nil {
		o.stat = statDisk
	}
	if o.crash == nil {
		o.crash = func(string) {}
	}
	if info, err := os.Stat(o.Dir); err != nil || !info.IsDir() {
		return nil, &FormatError{File: o.Dir, What: "is no directory of a queue", Remedy: "name the one that queue.dir of the configuration names"}
	}
	lock, err := lockDir(o.Dir, lockPatience)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if err := syncAs(o.Dir, lock.Name()); err != nil { // it may have been missing
		return nil, fmt.Errorf("lock queue: %w", err)
	}
	if err := finishSwap(o.Dir); err != nil {
		return nil, err
	}
	f := newFsck(o)
	if err := f.check(ctx); err != nil {
		return nil, err
	}
	if o.Repair && f.report.Found > 0 {
		if err := f.repair(ctx); err != nil {
			return nil, err
		}
	}
	return f.report, nil
}

// fsck is a check under way.
type fsck struct {
	o       FsckOptions
	report  *FsckReport
	seen    *census
	store   uint64
	format  int
	marker  *marker // nil = not readable
	raw     *rawdb.DB
	over    overlay
	read    int64 // bytes
	holes   bool  // rows may be missing that no file is known to have had
	missing bits  // events
	unnoted []gap // numbers that no event has, and no row says so
}

func newFsck(o FsckOptions) *fsck {
	return &fsck{o: o, report: &FsckReport{Dir: o.Dir, Problems: []FsckProblem{}, LostEvents: []string{}, LostDeliveries: []string{}}}
}

func (f *fsck) problem(where, what, means string) {
	f.report.Found++
	if len(f.report.Problems) < mostFindings {
		f.report.Problems = append(f.report.Problems, FsckProblem{where, what, means})
	}
}

func (f *fsck) lostEvent(eventID string) {
	f.report.LostEventCount++
	if len(f.report.LostEvents) < mostFindings {
		f.report.LostEvents = append(f.report.LostEvents, eventID)
	}
}

func (f *fsck) lostDelivery(deliveryID string) {
	f.report.LostDeliveryCount++
	if len(f.report.LostDeliveries) < mostFindings {
		f.report.LostDeliveries = append(f.report.LostDeliveries, deliveryID)
	}
}

// check reads everything once and compares it.
func (f *fsck) check(ctx context.Context) error {
	if err := f.readFormat(); err != nil {
		return err
	}
	db := filepath.Join(f.o.Dir, dbDir)
	raw, err := rawdb.Open(db, func(n int64) {
		f.read += n
		f.o.Progress(min(f.read, f.raw.Bytes), f.raw.Bytes)
	})
	if err != nil {
		return err
	}
	defer raw.Close()
	f.raw, raw.Trusting = raw, f.o.trusting
	if err := f.identify(ctx); err != nil {
		return err
	}
	if f.store == 0 {
		return &FormatError{File: f.o.Dir, What: "neither FORMAT nor the journal nor the database says which store this is",
			Remedy: "restore the directory from a backup, or move it away to start an empty queue"}
	}
	if f.marker != nil && !f.marker.Initialised {
		f.note("the store was never used: nothing can have been accepted")
		return nil
	}
	f.checkFiles(db)
	if err := f.readJournal(ctx); err != nil {
		return err
	}
	f.seen = newCensus(f.store)
	var damaged bool
	if f.seen.witness, damaged = readWitness(f.o.Dir); damaged {
		f.note("%s is not readable; it is made anew when the daemon starts", witnessFile)
	}
	if err := f.eachRow(ctx, nil, f.count); err != nil {
		return err
	}
	for _, p := range raw.Problems() {
		if p.Torn {
			f.note("%s: %s; a crash leaves that", filepath.Join(dbDir, p.File), p.What)
			continue
		}
		f.problem(filepath.Join(dbDir, p.File), p.What, between(f.store, p.From, p.To))
	}
	return f.compare(ctx)
}

func (f *fsck) note(format string, args ...any) {
	f.report.Notes = append(f.report.Notes, fmt.Sprintf(format, args...))
}

// readFormat reads FORMAT. A newer one is no business of this version, and one of a
// restore that was not finished only that of another restore.
func (f *fsck) readFormat() error {
	m, err := readMarkerFile(f.o.Dir)
	if m != nil && m.Restoring {
		_, err := readMarker(f.o.Dir)
		return err
	}
	if fe, ok := errors.AsType[*FormatError](err); ok {
		if fe.newer {
			return err
		}
		f.problem(formatFile, fe.What, "")
		return nil
	}
	if err != nil {
		return err
	}
	if m == nil {
		if _, err := os.Stat(filepath.Join(f.o.Dir, dbDir)); errors.Is(err, fs.ErrNotExist) {
			return &FormatError{File: f.o.Dir, What: "holds no queue", Remedy: "name the directory that queue.dir of the configuration names"}
		}
		f.problem(formatFile, "is missing", "")
		return nil
	}
	f.marker, f.format = m, m.Format
	f.store, err = m.storeID()
	return err
}

// identify finds out the number of the store, which is part of every id, from
// whatever says it.
func (f *fsck) identify(ctx context.Context) error {
	var row string
	err := f.raw.Rows(ctx, metaFormatKey(), func(r rawdb.Row) error {
		row, _ = decodePlain(r.Key, r.Value) // damage is reported with all rows
		return nil
	})
	if err != nil {
		return err
	}
	var format int
	var name string
	if n, err := fmt.Sscanf(row, "%d %s", &format, &name); n == 2 && err == nil {
		m := marker{Store: name}
		of, err := m.storeID()
		switch {
		case err != nil:
		case format > formatNumber:
			return &FormatError{File: f.o.Dir, What: fmt.Sprintf("the database is of format %d, newer than the format %d that this version knows", format, formatNumber),
				Remedy: "install the version that wrote it", newer: true}
		case f.store == 0:
			f.store, f.format = of, format
		case f.store != of:
			return &FormatError{File: f.o.Dir, What: fmt.Sprintf("FORMAT is of the store %010x and the database of %s", f.store, name),
				Remedy: "put FORMAT and db of the same store together, from one backup"}
		}
	}
	if f.store == 0 {
		f.store, f.format = f.journalStore(), formatNumber
	}
	if f.store != 0 {
		f.report.Store = fmt.Sprintf("%010x", f.store)
	}
	f.report.Format = f.format
	return nil
}

// checkFiles looks at the files of the database that hold no rows.
func (f *fsck) checkFiles(db string) {
	for _, name := range damagedStateFiles(db) {
		f.problem(filepath.Join(dbDir, name), "is not readable", "nothing is lost: it holds no rows, and is made anew when the daemon starts")
	}
}

// eventID is the id that the store gave an event, or would have: what its sender
// called it is in its record.
func (f *fsck) eventID(seq uint64) string { return id.Event(f.store, seq) }

func (f *fsck) deliveryID(lane Lane, seq uint64) string {
	return id.Delivery(f.store, uint32(lane), seq)
}

// deliveryName names a delivery for people.
func (f *fsck) deliveryName(lane Lane, seq uint64) string {
	return fmt.Sprintf("delivery %s of event %s to %s", f.deliveryID(lane, seq), f.eventID(seq), cmp.Or(f.seen.lane(lane).name, fmt.Sprintf("lane %d", lane)))
}

// sortedLanes are the lanes that anything speaks of.
func (c *census) sortedLanes() []Lane {
	lanes := make([]Lane, 0, len(c.lanes))
	for lane := range c.lanes {
		lanes = append(lanes, lane)
	}
	slices.Sort(lanes)
	return lanes
}
