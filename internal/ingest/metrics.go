package ingest

import (
	"maps"
	"sync"
	"sync/atomic"
)

// Counters is a snapshot of what the server did since it was made. Counts only
// grow; the last three are levels.
type Counters struct {
	Accepted   int64            // events made durable, repeats not counted
	Duplicates int64            // repeats answered with the first answer
	Unstable   int64            // of the accepted ones, those with a number that JavaScript does not keep
	AcceptedBy map[string]int64 // Accepted by helper, every configured one; the caller's
	Rejected   map[string]int64 // refused events and requests by code, every code there is; the caller's
	Bytes      int64            // of bodies and lines read
	Requests   int64            // HTTP requests, a stream being one

	InFlight    int64 // requests under way
	Streams     int64 // of those, streams of lines
	Connections int64 // open
}

type metrics struct {
	accepted, duplicates, unstable, bytes, requests atomic.Int64
	inFlight, streams, connections                  atomic.Int64

	mu       sync.Mutex
	rejected map[string]int64 // keys are code constants, so it stays small

	// byHelper is what each helper was accepted of. Both are replaced and made under
	// mu, and read without: the map is immutable.
	byHelper atomic.Pointer[map[string]*atomic.Int64]
}

// accept counts an event of a helper. It allocates only for the first one.
func (m *metrics) accept(helper string) {
	m.accepted.Add(1)
	m.of(helper).Add(1)
}

// of is the count of a helper. There are as many as were ever configured.
func (m *metrics) of(helper string) *atomic.Int64 {
	if n := (*m.byHelper.Load())[helper]; n != nil {
		return n
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	known := *m.byHelper.Load()
	if n := known[helper]; n != nil {
		return n // of another who was faster
	}
	next, n := maps.Clone(known), new(atomic.Int64)
	next[helper] = n
	m.byHelper.Store(&next)
	return n
}

func (m *metrics) reject(code string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rejected[code]++
}

// Metrics returns the counters. It may be called at any time.
func (s *Server) Metrics() Counters {
	m := &s.metrics
	rejected := map[string]int64{}
	for _, code := range codes() {
		rejected[code] = 0
	}
	m.mu.Lock()
	maps.Copy(rejected, m.rejected)
	m.mu.Unlock()
	acceptedBy := map[string]int64{}
	for helper := range s.o.Catalog().Helpers {
		acceptedBy[helper] = 0
	}
	for helper, n := range *m.byHelper.Load() {
		acceptedBy[helper] = n.Load()
	}
	return Counters{
		Accepted: m.accepted.Load(), AcceptedBy: acceptedBy, Duplicates: m.duplicates.Load(), Unstable: m.unstable.Load(), Rejected: rejected,
		Bytes: m.bytes.Load(), Requests: m.requests.Load(),
		InFlight: m.inFlight.Load(), Streams: m.streams.Load(), Connections: m.connections.Load(),
	}
}
