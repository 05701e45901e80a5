package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// stream counts what one path of the receiver got:
//
//	/ok/<stream>          200 at once
//	/delay/<ms>/<stream>  200 after <ms>
//	/fail/<pct>/<stream>  500 for <pct>% of requests
//	/hold/<n>/<stream>    200 after /_open
//	/reset/<n>/<stream>   resets the connection
//	/drip/<n>/<stream>    sends the answer's header, one byte each half second, and no end
type stream struct {
	delay   time.Duration
	failPct float64
	kind    string // the first part of the path

	mu          sync.Mutex
	requests    int64
	failed      int64
	badSig      int64
	unknown     int64
	dups        int64
	inflight    int64
	maxInflight int64
	first, last int64              // µs, of first deliveries
	seen        map[uint32][]int64 // run → sequence → arrival in µs; 0 = not yet
	latency     []int64
	windowed    int // of latency, what window has shown
}

func newStream(path string) *stream {
	st := &stream{seen: map[uint32][]int64{}}
	f := strings.Split(strings.TrimPrefix(path, "/"), "/")
	if len(f) < 2 {
		return st
	}
	v, _ := strconv.ParseFloat(f[1], 64)
	st.kind = f[0]
	switch st.kind {
	case "delay":
		st.delay = time.Duration(v * float64(time.Millisecond))
	case "fail":
		st.failPct = v
	}
	return st
}

// record counts one request and returns the status to answer.
func (st *stream) record(body []byte, signed bool) int {
	now := time.Now().UnixMicro()
	run, seq, sent, known := findEvent(body)
	fail := st.failPct > 0 && rand.Float64()*100 < st.failPct
	st.mu.Lock()
	defer st.mu.Unlock()
	st.requests++
	st.inflight++
	st.maxInflight = max(st.maxInflight, st.inflight)
	switch {
	case !signed:
		st.badSig++
		return 401
	case fail:
		st.failed++
		return 500
	case !known:
		st.unknown++
		return 200
	}
	seen := st.seen[run]
	if seq >= len(seen) {
		seen = append(seen, make([]int64, seq+1024-len(seen))...)
		st.seen[run] = seen
	}
	if seen[seq] != 0 {
		st.dups++
		return 200
	}
	seen[seq] = now
	st.latency = append(st.latency, now-sent)
	st.first = cmp.Or(st.first, now)
	st.last = now
	return 200
}

// streamStats is one stream in the answer to /_stats.
type streamStats struct {
	Requests, Unique, Dups, Failed, BadSig, Unknown, MaxInflight int64
	First, Last                                                  int64
	E2E                                                          summary
}

func (st *stream) stats(full bool) streamStats {
	st.mu.Lock()
	defer st.mu.Unlock()
	o := streamStats{Requests: st.requests, Unique: int64(len(st.latency)), Dups: st.dups, Failed: st.failed,
		BadSig: st.badSig, Unknown: st.unknown, MaxInflight: st.maxInflight, First: st.first, Last: st.last}
	if full {
		o.E2E = summarise(slices.Clone(st.latency))
	}
	return o
}

// missing lists the acknowledged sequences of a run that never came.
func (st *stream) missing(run uint32, acked []string) (out []int) {
	st.mu.Lock()
	defer st.mu.Unlock()
	seen := st.seen[run]
	for _, l := range acked {
		if q, err := strconv.Atoi(l); err == nil && (q >= len(seen) || seen[q] == 0) {
			out = append(out, q)
		}
	}
	return out
}

// receiver is the webhook endpoint of the benchmark. It verifies the signature
// of every request when it has a secret.
type receiver struct {
	secret  []byte
	held    chan struct{} // closed by /_open
	opened  sync.Once
	down    *takedown
	mu      sync.RWMutex
	streams map[string]*stream
}

func (s *receiver) stream(path string) *stream {
	s.mu.RLock()
	st := s.streams[path]
	s.mu.RUnlock()
	if st != nil {
		return st
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if st = s.streams[path]; st == nil {
		st = newStream(path)
		s.streams[path] = st
	}
	return st
}

func (s *receiver) deliver(m *rawMessage) int {
	st := s.stream(string(m.Path))
	signed := s.secret == nil || string(m.Header("x-peanuts-signature")) == sign(s.secret, m.Body)
	status := st.record(m.Body, signed)
	if st.delay > 0 {
		time.Sleep(st.delay)
	}
	if st.kind == "hold" {
		<-s.held
	}
	st.mu.Lock()
	st.inflight--
	st.mu.Unlock()
	return status
}

// control answers /_stats, /_count, /_reset, /_open, /_down?<duration>,
// /_window?<stream>, /_sum?<prefix>, /_group?<prefix> and /_missing?<stream> (body: the run in hex,
// then the acknowledged sequences).
func (s *receiver) control(m *rawMessage) any {
	path, query, _ := strings.Cut(string(m.Path), "?")
	switch path {
	case "/_reset":
		s.mu.Lock()
		s.streams = map[string]*stream{}
		s.mu.Unlock()
	case "/_open":
		s.opened.Do(func() { close(s.held) })
	case "/_down":
		d, err := time.ParseDuration(query)
		if err != nil {
			return map[string]string{"error": err.Error()}
		}
		s.down.take(d)
	case "/_window":
		return s.stream(query).window()
	case "/_sum":
		return s.group(query, false)
	case "/_group":
		return s.group(query, true)
	case "/_stats", "/_count":
		s.mu.RLock()
		defer s.mu.RUnlock()
		out := map[string]streamStats{}
		for p, st := range s.streams {
			out[p] = st.stats(path == "/_stats")
		}
		return out
	case "/_missing":
		lines := strings.Fields(string(m.Body))
		run, err := strconv.ParseUint(lines[0], 16, 32)
		if err != nil {
			return map[string]string{"error": err.Error()}
		}
		missing := s.stream(query).missing(uint32(run), lines[1:])
		return map[string]any{"acked": len(lines) - 1, "missing": len(missing), "sequences": missing[:min(100000, len(missing))]}
	}
	return struct{}{}
}

func (s *receiver) accept(l net.Listener) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go s.serve(c)
	}
}

func (s *receiver) serve(c net.Conn) {
	defer c.Close()
	r := newRawReader(c)
	var out []byte
	for {
		m, err := r.Read(false)
		if err != nil {
			return
		}
		if bytes.HasPrefix(m.Path, []byte("/_")) {
			b, err := json.Marshal(s.control(m))
			if err != nil {
				return
			}
			out = fmt.Appendf(out[:0], "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", len(b))
			out = append(out, b...)
		} else if out = s.answer(c, m, out); out == nil {
			return
		}
		if _, err := c.Write(out); err != nil || m.Close {
			return
		}
	}
}

// answer appends the answer to a delivery to out[:0]; nil ends the connection.
func (s *receiver) answer(c net.Conn, m *rawMessage, out []byte) []byte {
	kind := s.stream(string(m.Path)).kind
	status := s.deliver(m)
	switch kind {
	case "reset":
		if t, ok := c.(*net.TCPConn); ok {
			_ = t.SetLinger(0)
		}
		return nil
	case "drip":
		drip(c)
		return nil
	}
	return append(out[:0], rawAnswer(status)...)
}

// drip writes until the other side has enough.
func drip(c net.Conn) {
	next := time.NewTicker(500 * time.Millisecond)
	defer next.Stop()
	head := "HTTP/1.1 200 OK\r\nX-Drip: "
	for n := 0; ; n++ {
		b := byte('x')
		if n < len(head) {
			b = head[n]
		}
		if _, err := c.Write([]byte{b}); err != nil {
			return
		}
		<-next.C
	}
}

func rawAnswer(status int) string {
	switch status {
	case 200:
		return "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	case 401:
		return "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"
	}
	return "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"
}

func runReceiver(args []string) error {
	fs := flag.NewFlagSet("receiver", flag.ExitOnError)
	addr := fs.String("listen", "127.0.0.1:0", "address")
	secret := fs.String("secret", "", "verify HMAC-SHA256 with this secret")
	certificate := fs.String("certificate", "", "write the certificate of the address with TLS there")
	if err := fs.Parse(args); err != nil {
		return err
	}
	s := &receiver{streams: map[string]*stream{}, held: make(chan struct{})}
	if *secret != "" {
		s.secret = []byte(*secret)
	}
	l, err := net.Listen("tcp", *addr)
	if err != nil {
		return err
	}
	if s.down, err = newTakedown(s); err != nil {
		return err
	}
	over, err := listenTLS(*certificate)
	if err != nil {
		return err
	}
	failed := make(chan error, 2)
	go func() { failed <- s.accept(l) }()
	go func() { failed <- s.accept(over) }()
	fmt.Fprintln(os.Stdout, l.Addr(), s.down.addr, over.Addr())
	return <-failed
}
