package history

// Limits of a history.
const (
	maxKept     = 50 // entries with files
	maxRejected = 50
	maxDamaged  = 8 // entries set aside
	// maxRefs bounds memory: with 10,001 files each, ten entries are kept.
	maxRefs = 100_010
	// maxBytes bounds the disk: of many large files fewer former versions are kept.
	maxBytes = 256 << 20
)

// divide says which of the entries, oldest first, stay and which are too many.
// The newest with files always stays.
func divide(entries []*stored) (stay, drop []*stored) {
	kept, rejected, refs, total := 0, 0, 0, int64(0)
	full := false
	counted := map[string]bool{}
	over := make(map[*stored]bool, len(entries))
	for i := len(entries) - 1; i >= 0; i-- {
		e := entries[i]
		if !e.kept() {
			rejected++
			over[e] = rejected > maxRejected
			continue
		}
		if between(entries, i) {
			over[e] = true
			continue
		}
		kept++
		refs += len(e.Files)
		for _, f := range e.Files {
			if !counted[f.SHA256] {
				counted[f.SHA256] = true
				total += f.Size
			}
		}
		full = full || kept > 1 && (kept > maxKept || refs > maxRefs || total > maxBytes)
		over[e] = full
	}
	for _, e := range entries {
		if over[e] {
			drop = append(drop, e)
		} else {
			stay = append(stay, e)
		}
	}
	return stay, drop
}

// between reports whether entry i is a repeated start of its generation that is
// neither the first nor the newest one: a daemon that starts again and again
// must not push out what ran before.
func between(entries []*stored, i int) bool {
	same := func(from, to, step int) bool {
		for j := from; j != to; j += step {
			if entries[j].kept() {
				return entries[j].Generation == entries[i].Generation
			}
		}
		return false
	}
	return same(i-1, -1, -1) && same(i+1, len(entries), 1)
}
