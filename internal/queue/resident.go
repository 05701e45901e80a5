package queue

import (
	"errors"
	"fmt"
	"reflect"
	"sync"
	"time"
	"unsafe"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/table"
	"golang.org/x/sys/unix"
)

const (
	// unmapEvery is how much is committed between two passes over young tables: half
	// a memtable, so that what a merge leaves behind is not added to the next one's.
	unmapEvery = 8 << 20
	// pageOutEvery is how much is committed between two passes over all tables: what
	// fills level zero and is merged then.
	pageOutEvery = 64 << 20
	// pageOutAge is how long a table was left alone. What is younger will be read
	// again soon, to be merged.
	pageOutAge = 20 * time.Second
)

// residency keeps tables that nobody reads out of the memory of the process.
// Badger maps its tables and writes them through the map, so that each page of
// a backlog counts as resident until the kernel needs it: a gigabyte for a
// million deliveries, which looks like a leak to whoever watches the service,
// and is charged to its limit. Young tables are only unmapped from the process
// (MADV_DONTNEED): their pages stay in the page cache, and who reads them pays a
// minor fault. Old ones leave the page cache as well (MADV_PAGEOUT), and are read
// from the disk by who wants them. All pages are clean: Badger syncs a table
// when it makes it.
//
// Badger says neither where its tables are mapped nor lets anybody hold one, so
// its levels are reached by reflection. With a Badger that has others nothing is
// done, and TestTablesThatNobodyReadsLeaveTheMemoryOfTheProcess fails.
type residency struct {
	written int // since the last pass
	since   int // since the last one over all tables
	levels  []tableLevel
	wanted  chan residencyPass // closed when the committer ends
	ended   chan struct{}
}

// residencyPass is one pass: tables of an age are paged out if all is set, and
// younger ones unmapped.
type residencyPass struct {
	all bool
	age time.Duration
}

// tableLevel is one of Badger's levels.
type tableLevel struct {
	mu     *sync.RWMutex
	tables *[]*table.Table // guarded by mu
}

func (r *residency) init(db *badger.DB) {
	r.wanted = make(chan residencyPass, 1)
	r.ended = make(chan struct{})
	r.levels = levelsOf(db)
}

// levelsOf finds the levels, nil when there are none. They are set in badger.Open
// and never changed.
func levelsOf(db *badger.DB) (out []tableLevel) {
	lc := reflect.ValueOf(db).Elem().FieldByName("lc")
	if !lc.IsValid() || lc.Kind() != reflect.Pointer || lc.Type().Elem().Kind() != reflect.Struct {
		return nil
	}
	levels := lc.Elem().FieldByName("levels")
	if !levels.IsValid() || levels.Kind() != reflect.Slice || levels.Type().Elem().Kind() != reflect.Pointer {
		return nil
	}
	for i := range levels.Len() {
		l := levels.Index(i).Elem()
		if l.Kind() != reflect.Struct {
			return nil
		}
		mu, tables := l.FieldByName("RWMutex"), l.FieldByName("tables")
		if !mu.IsValid() || mu.Type() != reflect.TypeFor[sync.RWMutex]() || !tables.IsValid() || tables.Type() != reflect.TypeFor[[]*table.Table]() {
			return nil
		}
		out = append(out, tableLevel{mu: (*sync.RWMutex)(unsafe.Pointer(mu.UnsafeAddr())), tables: (*[]*table.Table)(unsafe.Pointer(tables.UnsafeAddr()))})
	}
	return out
}

// hold returns the tables of a level. Each is mapped until its DecrRef.
func (l *tableLevel) hold() []*table.Table {
	l.mu.RLock()
	defer l.mu.RUnlock()
	held := append([]*table.Table(nil), *l.tables...)
	for _, t := range held {
		t.IncrRef()
	}
	return held
}

// committed counts what a group wrote.
func (r *residency) committed(bytes int) {
	r.written += bytes
	r.since += bytes
	if r.since >= pageOutEvery {
		r.want(residencyPass{all: true, age: pageOutAge})
	} else if r.written >= unmapEvery {
		r.want(residencyPass{age: pageOutAge})
	}
}

// rest is called when nothing is merged any more.
func (r *residency) rest() {
	if r.since > 0 {
		r.want(residencyPass{all: true})
	}
}

func (r *residency) want(p residencyPass) {
	select {
	case r.wanted <- p:
		r.written = 0
		if p.all {
			r.since = 0
		}
	default: // a pass waits to be made
	}
}

func (s *Store) residencyLoop() {
	r := &s.c.residency
	defer close(r.ended)
	for p := range r.wanted {
		if err := r.pass(p, time.Now()); err != nil {
			s.log.Info("tables of the database stay in memory until the kernel needs it", "err", err)
			for range r.wanted {
			}
			return
		}
	}
}

// pass takes tables out of memory. MADV_DONTNEED of a shared map of a file loses
// nothing: what is read again comes from the file (madvise(2)).
func (r *residency) pass(p residencyPass, now time.Time) (err error) {
	for i := range r.levels {
		for _, t := range r.levels[i].hold() {
			if old := now.Sub(t.CreatedAt) >= p.age; !old {
				err = errors.Join(err, advise(t.Data, unix.MADV_DONTNEED))
			} else if p.all {
				err = errors.Join(err, advise(t.Data, unix.MADV_PAGEOUT))
			}
			err = errors.Join(err, t.DecrRef())
		}
	}
	return err
}

func advise(data []byte, what int) error {
	if len(data) == 0 {
		return nil
	}
	if err := unix.Madvise(data, what); err == unix.EINVAL { // the kernel does not know it
		return fmt.Errorf("madvise(%d): %w", what, err)
	}
	return nil
}
