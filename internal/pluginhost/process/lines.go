package process

import "bytes"

// overlap is how much of a line is kept beyond what is shown, so that a secret which the
// cut would split is masked whole first.
const overlap = 8 << 10

// lines makes lines of a stream. A line longer than max is cut. It is not safe for
// concurrent use.
type lines struct {
	max int // bytes that are kept of a line, beyond them overlap for masking
	// line takes one line, without its end; cut = there was more of it. It must not keep
	// text. It returns false when it wants no more of what is at hand: the rest is then
	// given to skip.
	line func(text []byte, cut bool) bool
	// skip takes whole lines that line did not want. It returns how many bytes of them it
	// had enough of: the next line is given to line again.
	skip func(text []byte) int

	partial []byte // the beginning of a line
	cut     bool   // partial is full; the rest of the line is thrown away
}

// write takes what was read.
func (l *lines) write(p []byte) {
	wanted := true
	for len(p) > 0 {
		if !wanted && len(l.partial) == 0 {
			if end := bytes.LastIndexByte(p, '\n') + 1; end > 0 {
				n := l.skip(p[:end])
				p = p[n:]
				wanted = n < end
				if !wanted {
					continue
				}
			}
			if len(p) == 0 {
				return
			}
		}
		end := bytes.IndexByte(p, '\n')
		if end < 0 {
			l.keep(p)
			return
		}
		if len(l.partial) == 0 && end <= l.max {
			wanted = l.line(p[:end], false)
		} else {
			l.keep(p[:end])
			wanted = l.flush()
		}
		p = p[end+1:]
	}
}

func (l *lines) keep(p []byte) {
	room := l.max + overlap - len(l.partial)
	if len(p) > room {
		p, l.cut = p[:max(0, room)], true
	}
	l.partial = append(l.partial, p...)
}

// flush gives what there is of a line that has not ended.
func (l *lines) flush() (wanted bool) {
	if len(l.partial) == 0 && !l.cut {
		return true
	}
	wanted = l.line(l.partial, l.cut || len(l.partial) > l.max)
	l.partial, l.cut = l.partial[:0], false
	if cap(l.partial) > 4<<10 {
		l.partial = nil // a plugin that wrote one long line does not keep its room for ever
	}
	return wanted
}
