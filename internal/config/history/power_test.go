package history

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

var errPower = errors.New("the power is gone")

// memory is a volume that forgets what was not synced: when the power goes, of
// the changes to the directory since the last sync any are on the disk and any
// are not, in no order, and a file that was being written has any part of it.
// Real file systems are kinder.
type memory struct {
	now     map[string][]byte // as a process sees it
	durable map[string][]byte // as of the last sync
	changes []func(map[string][]byte)
	left    int // calls until the power goes; < 0 = it stays

	keep func() bool         // whether a change that was not synced is there
	some func(int) int       // how much of a file is
	torn func([]byte) []byte // what else may be in it
}

func newMemory() *memory {
	return &memory{now: map[string][]byte{}, durable: map[string][]byte{}, left: -1}
}

// call counts, and reports whether the power is still there.
func (m *memory) call() bool {
	if m.left > 0 {
		m.left--
	}
	return m.left != 0
}

func (m *memory) change(f func(map[string][]byte)) {
	f(m.now)
	m.changes = append(m.changes, f)
}

func (m *memory) list() ([]string, error) {
	if m.left == 0 {
		return nil, errPower
	}
	return slices.Sorted(maps.Keys(m.now)), nil
}

func (m *memory) read(name string, _ int64) ([]byte, error) {
	data, ok := m.now[name]
	switch {
	case m.left == 0:
		return nil, errPower
	case !ok:
		return nil, fs.ErrNotExist
	}
	return data, nil
}

func (m *memory) write(files []newFile) error {
	for _, n := range files {
		if _, there := m.now[n.name]; there {
			return fs.ErrExist
		}
		if !m.call() {
			cut := n.data[:m.some(len(n.data))]
			m.changes = append(m.changes, func(to map[string][]byte) { to[n.name] = m.torn(cut) })
			return errPower
		}
		m.change(func(to map[string][]byte) { to[n.name] = n.data })
	}
	return nil
}

func (m *memory) rename(from, to string) error {
	if !m.call() {
		return errPower
	}
	data := m.now[from]
	m.change(func(in map[string][]byte) {
		delete(in, from)
		in[to] = data
	})
	return nil
}

func (m *memory) remove(name string) error {
	if !m.call() {
		return errPower
	}
	m.change(func(in map[string][]byte) { delete(in, name) })
	return nil
}

func (m *memory) sync() error {
	if !m.call() {
		return errPower
	}
	m.durable, m.changes = maps.Clone(m.now), nil
	return nil
}

func (m *memory) close() error { return nil }

// after is the disk as it is found when the power is back.
func (m *memory) after() *memory {
	found := maps.Clone(m.durable)
	for _, change := range m.changes {
		if m.keep() {
			change(found)
		}
	}
	return &memory{now: found, durable: maps.Clone(found), left: -1, keep: m.keep, some: m.some, torn: m.torn}
}

// The power goes at any call of a series of Appends. Afterwards everything that
// was acknowledged is there, nothing is damaged, and the history goes on.
func TestAPowerCutLosesNothingThatWasAppended(t *testing.T) {
	cuts := 0
	rapid.Check(t, func(t *rapid.T) {
		m := newMemory()
		m.keep = func() bool { return rapid.Bool().Draw(t, "keep") }
		m.some = func(n int) int { return rapid.IntRange(0, n).Draw(t, "part") }
		m.torn = func(b []byte) []byte {
			if rapid.Bool().Draw(t, "zeros") {
				return make([]byte, len(b))
			}
			return b
		}
		l, err := openVolume(m, mainFile, false)
		if err != nil {
			t.Fatal(err)
		}
		// A history that is full, so that entries and files are removed as well.
		acked := uint64(48)
		for g := uint64(1); g <= acked; g++ {
			if err := l.Append(entryOf(g), sourcesOf(g)); err != nil {
				t.Fatal(err)
			}
		}
		for range rapid.IntRange(1, 3).Draw(t, "power cuts") {
			m.left = rapid.IntRange(1, 60).Draw(t, "calls")
			for g := l.Generation() + 1; ; g++ {
				if err := l.Append(entryOf(g), sourcesOf(g)); err != nil {
					break
				}
				acked = g
			}
			if rapid.Bool().Draw(t, "only a kill") {
				// What the next process reports must stay like what was acknowledged.
				m.left = -1
				if l, err = openVolume(m, mainFile, false); err != nil {
					t.Fatal(err)
				}
				acked = l.Generation()
			}
			cuts++
			m = m.after()
			if l, err = openVolume(m, mainFile, false); err != nil {
				t.Fatal(err)
			}
			if err := soundAfter(l, m, acked); err != nil {
				t.Fatal(err)
			}
			acked = l.Generation()
		}
	})
	t.Logf("%d power cuts", cuts)
}

// soundAfter checks the history that was found after acked was acknowledged.
func soundAfter(l *Log, m *memory, acked uint64) error {
	if err := check(l); err != nil {
		return err
	}
	last, _, err := l.Last()
	if err != nil {
		return err
	}
	if last.Generation < acked || last.Generation > acked+1 {
		return fmt.Errorf("last is generation %d, %d was acknowledged", last.Generation, acked)
	}
	got := generations(l)
	for i, g := range got {
		if g != last.Generation-uint64(i) {
			return fmt.Errorf("entries %v have a hole", got)
		}
	}
	if len(got) < min(int(acked), maxKept) || len(got) > maxKept {
		return fmt.Errorf("%d entries of %d", len(got), last.Generation)
	}
	wanted := map[string]bool{}
	for _, e := range l.entries {
		wanted[e.name] = true
		for _, f := range e.Files {
			wanted[fileName(f.SHA256)] = true
		}
	}
	for name := range m.now {
		if !wanted[name] {
			return fmt.Errorf("%s is left over", name)
		}
	}
	return nil
}
