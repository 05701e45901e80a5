package queue

import "sync"

// points are the unapplied rows that dispatch looks up one by one, before a delivery
// and at the rate of deliveries: it need not wait for the database to have them. Safe
// for concurrent use.
type points struct {
	mu   sync.Mutex
	rows map[string]point
}

type point struct {
	row *row // op and value are read under the lock
	of  *batch
}

// isPoint tells the rows that are looked up that way by their keys.
func isPoint(key []byte) bool {
	return key[0] == kindState && len(key) == lenState || key[0] == kindLine && len(key) == lenLine
}

func (p *points) add(rows []row, of *batch) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range rows {
		if r := &rows[i]; isPoint(r.key) {
			if p.rows == nil {
				p.rows = map[string]point{}
			}
			p.rows[string(r.key)] = point{r, of}
		}
	}
}

// remove forgets what the database has. A row that changed again since is not of b.
func (p *points) remove(b *batch) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for key, pt := range p.rows {
		if pt.of == b {
			delete(p.rows, key)
		}
	}
}

// get returns a copy of a row's value, nil when it is deleted; known is false when
// the database has its newest change.
func (p *points) get(key []byte) (val []byte, known bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	pt, known := p.rows[string(key)]
	if known && pt.row.op != opDel {
		val = append([]byte{}, pt.row.val...)
	}
	return val, known
}
