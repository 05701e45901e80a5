package queue

import "encoding/binary"

// recentRows is how many ready rows are remembered: more than lanes keep in
// memory when they are not behind, less than half a megabyte.
const recentRows = 4096

// recent remembers the newest ready rows, so that the outcome of a delivery that
// was handed over in memory need not read its row back. Whatever else touches
// such a row, retention for one, makes it forgotten (group.put, group.del): a row
// that is remembered is byte for byte the one that is stored. Owned by the
// committer.
type recent struct {
	rows  map[position]pendingRow
	order [recentRows]position // a ring
	next  int
}

func (r *recent) init() { r.rows = map[position]pendingRow{} }

// add remembers a row that the group under way has just written.
func (r *recent) add(lane Lane, seq uint64, row *pendingRow) {
	at := position{seq: seq, lane: lane}
	delete(r.rows, r.order[r.next])
	r.order[r.next] = at
	r.next = (r.next + 1) % recentRows
	r.rows[at] = *row
}

// forget drops a row by its key, if it is a ready one.
func (r *recent) forget(key []byte) {
	if key[0] == kindReady {
		delete(r.rows, position{seq: tail8(key), lane: Lane(binary.BigEndian.Uint32(key[1:]))})
	}
}

// pending is the row of a pending delivery and, when it had to be read, its
// bytes; found is false when there is none. err is about damage.
func (g *group) pending(d *Delivery, key []byte) (row pendingRow, raw []byte, found bool, err error) {
	if d.Track == Ready {
		if row, found = g.s.c.recent.rows[position{seq: d.Seq, lane: d.Lane}]; found {
			return row, nil, true, nil
		}
	}
	if raw = g.get(key); raw == nil {
		return row, nil, false, nil
	}
	row, err = decodePending(key, raw)
	return row, raw, true, err
}
