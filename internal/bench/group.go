package main

import (
	"fmt"
	"time"
)

// groupStats is all streams whose path begins alike.
type groupStats struct {
	Unique, BadSig, Dups int64
	Last                 int64   // µs, of first deliveries
	Shares               []int64 // unique deliveries of each stream; with full only
	E2E                  summary // of all together; with full only
}

func (s *receiver) group(prefix string, full bool) (g groupStats) {
	var latency []int64
	s.mu.RLock()
	defer s.mu.RUnlock()
	for p, st := range s.streams {
		if len(p) < len(prefix) || p[:len(prefix)] != prefix {
			continue
		}
		st.mu.Lock()
		g.BadSig += st.badSig
		g.Dups += st.dups
		g.Unique += int64(len(st.latency))
		g.Last = max(g.Last, st.last)
		if full {
			g.Shares = append(g.Shares, int64(len(st.latency)))
			latency = append(latency, st.latency...)
		}
		st.mu.Unlock()
	}
	g.E2E = summarise(latency)
	return g
}

// perSecond is deliveries over the time from the first send to the last first
// arrival.
func perSecond(unique, lastUs, startUs int64) float64 {
	return float64(unique) / (float64(lastUs-startUs) / 1e6)
}

// waitGroup waits until the streams have want unique events between them, all of them signed.
// It asks for little while it waits: the receiver shares the processor with what is measured.
func (l *lab) waitGroup(prefix string, want int64) (g groupStats, err error) {
	last, lastN := time.Now(), int64(-1)
	for {
		var sum groupStats
		err := l.control("/_sum?"+prefix, nil, &sum)
		switch {
		case err != nil:
			return g, err
		case sum.BadSig > 0:
			return g, fmt.Errorf("%w: %d", errBadSig, sum.BadSig)
		case sum.Unique >= want:
			err = l.control("/_group?"+prefix, nil, &g)
			return g, err
		case sum.Unique != lastN:
			lastN, last = sum.Unique, time.Now()
		case time.Since(last) > 10*time.Second:
			return g, fmt.Errorf("%w: %d of %d", errLost, want-sum.Unique, want)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
