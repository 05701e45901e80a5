package rawdb

import (
	"bytes"
	"cmp"
	"container/heap"
	"context"
	"encoding/binary"
	"path/filepath"
	"sort"
)

// row is one version of a row.
type row struct {
	key     []byte
	version uint64
	meta    byte
	value   []byte
}

func rowOf(key []byte, meta byte, value []byte) row {
	return row{key: keyOf(key), version: versionOf(key), meta: meta, value: value}
}

// compare orders rows by key, the newest version first.
func compare(a []byte, av uint64, b []byte, bv uint64) int {
	return cmp.Or(bytes.Compare(a, b), cmp.Compare(bv, av))
}

// Row is the newest version of a row.
type Row struct {
	Key     []byte
	Value   []byte
	Version uint64
	Damage  string // why Value cannot be read; "" = it was
}

// source gives rows in order.
type source struct {
	head row
	next func() (row, bool, error)
}

type sources []*source

func (s sources) Len() int { return len(s) }
func (s sources) Less(i, j int) bool {
	return compare(s[i].head.key, s[i].head.version, s[j].head.key, s[j].head.version) < 0
}
func (s sources) Swap(i, j int) { s[i], s[j] = s[j], s[i] }
func (s *sources) Push(x any)   { *s = append(*s, x.(*source)) }
func (s *sources) Pop() any {
	old := *s
	x := old[len(old)-1]
	*s = old[:len(old)-1]
	return x
}

// merge is the rows of all sources under way.
type merge struct {
	prefix []byte
	live   sources
	later  []*table // not begun, by their first key
}

// begin makes the sources of all logs; tables wait until it is their turn.
func (d *DB) begin(prefix []byte) (*merge, error) {
	m := &merge{prefix: prefix}
	for _, log := range d.logs {
		if err := m.add(memSource(log, prefix)); err != nil {
			return nil, err
		}
	}
	for _, t := range d.tables {
		if t.first != nil {
			m.later = append(m.later, t)
		}
	}
	sort.Slice(m.later, func(i, j int) bool { return bytes.Compare(keyOf(m.later[i].first), keyOf(m.later[j].first)) < 0 })
	return m, nil
}

// add takes a source in, unless it has no rows.
func (m *merge) add(s *source) error {
	if err := advance(s); err != nil {
		return err
	}
	if s.head.key != nil {
		heap.Push(&m.live, s)
	}
	return nil
}

// next is the row that comes next, of whatever version; its key is nil when there is
// none.
func (m *merge) next() (r row, err error) {
	for len(m.later) > 0 && (len(m.live) == 0 || bytes.Compare(keyOf(m.later[0].first), m.live[0].head.key) <= 0) {
		s, err := tableSource(m.later[0], m.prefix)
		m.later = m.later[1:]
		if err == nil {
			err = m.add(s)
		}
		if err != nil {
			return r, err
		}
	}
	if len(m.live) == 0 {
		return r, nil
	}
	r = m.live[0].head
	if err := advance(m.live[0]); err != nil {
		return row{}, err
	}
	if m.live[0].head.key == nil {
		heap.Pop(&m.live)
	} else {
		heap.Fix(&m.live, 0)
	}
	return r, nil
}

// Rows calls f for every row with the prefix that is not deleted, in order. Key and
// value are f's to keep.
func (d *DB) Rows(ctx context.Context, prefix []byte, f func(Row) error) error {
	defer func() {
		for _, t := range d.tables {
			t.close()
		}
	}()
	m, err := d.begin(prefix)
	if err != nil {
		return err
	}
	var same []row // the newest version of a row, once or more
	for n := 0; ; n++ {
		if n%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		r, err := m.next()
		if err != nil {
			return err
		}
		over := r.key == nil || !bytes.HasPrefix(r.key, prefix) && bytes.Compare(r.key, prefix) > 0
		if len(same) > 0 && (over || !bytes.Equal(r.key, same[0].key)) {
			if err := d.emit(same, prefix, f); err != nil {
				return err
			}
			same = same[:0]
		}
		switch {
		case over:
			return nil
		case len(same) == 0 || r.version == same[0].version:
			same = append(same, r)
		}
	}
}

// emit hands on a row. It can be there more than once: when garbage of the value log is
// collected, what is still needed is written again with the version that it had, and
// older files go on saying where it was.
func (d *DB) emit(same []row, prefix []byte, f func(Row) error) error {
	r := &same[0]
	if r.meta&bitDelete != 0 || !bytes.HasPrefix(r.key, prefix) || bytes.HasPrefix(r.key, []byte("!badger!")) {
		return nil
	}
	out := Row{Key: r.key, Value: r.value, Version: r.version}
	var first *unresolved
	for i := range same {
		if same[i].meta&bitPointer == 0 {
			out.Value, first = same[i].value, nil
			break
		}
		value, wrong, err := d.resolve(&same[i])
		if err != nil {
			return err
		}
		if wrong == nil {
			out.Value, first = value, nil
			break
		}
		if first == nil {
			first = wrong
		}
	}
	if first != nil {
		out.Value, out.Damage = nil, first.why
		if first.problem.File != "" {
			d.report(first.problem)
		}
	}
	return f(out)
}

func advance(s *source) error {
	r, ok, err := s.next()
	if err != nil || !ok {
		s.head = row{}
		return err
	}
	s.head = r
	return nil
}

func memSource(m *memtable, prefix []byte) *source {
	i := sort.Search(len(m.rows), func(i int) bool { return bytes.Compare(m.rows[i].key, prefix) >= 0 })
	return &source{next: func() (row, bool, error) {
		if i == len(m.rows) {
			return row{}, false, nil
		}
		i++
		return m.rows[i-1], true, nil
	}}
}

// tableSource begins with the block that may have the first row with the prefix.
func tableSource(t *table, prefix []byte) (*source, error) {
	if err := t.load(); err != nil {
		return nil, err
	}
	block := max(sort.Search(len(t.blocks), func(i int) bool { return bytes.Compare(keyOf(t.blocks[i].key), prefix) >= 0 })-1, 0)
	var rows []stored
	return &source{next: func() (row, bool, error) {
		for {
			for len(rows) == 0 {
				if block == len(t.blocks) {
					t.close()
					return row{}, false, nil
				}
				var err error
				if rows, err = t.block(block); err != nil {
					return row{}, false, err
				}
				block++
			}
			r, ok := tableRow(rows[0])
			rows = rows[1:]
			if !ok {
				t.d.report(Problem{File: filepath.Base(t.path), What: "has a row that is not readable", From: r.key, To: r.key})
			} else if bytes.Compare(r.key, prefix) >= 0 {
				return r, true, nil
			}
		}
	}}, nil
}

// tableRow reads meta, the user's meta, expiry, value.
func tableRow(s stored) (row, bool) {
	if len(s.value) < 3 {
		return rowOf(s.key, 0, nil), false
	}
	_, n := binary.Uvarint(s.value[2:])
	if n <= 0 {
		return rowOf(s.key, 0, nil), false
	}
	return rowOf(s.key, s.value[0], s.value[2+n:]), true
}

// Verify reads every block of every table that Open chose, and reports what it finds.
func (d *DB) Verify() error {
	for _, t := range d.tables {
		if err := t.load(); err != nil {
			return err
		}
		for i := range t.blocks {
			if _, err := t.block(i); err != nil {
				t.close()
				return err
			}
		}
		t.close()
	}
	return nil
}
