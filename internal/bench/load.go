package main

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// loadResult is what one run of the load generator saw.
type loadResult struct {
	Run       string  `json:"run"`
	Acked     int64   `json:"acked"`
	Errors    int64   `json:"errors"`
	FirstErr  string  `json:"first_error,omitempty"`
	StartUs   int64   `json:"start_us"`
	PerSecond float64 `json:"ack_per_s"`
	Ack       summary `json:"ack"`
}

// loader sends events to the events socket over a number of connections.
type loader struct {
	socket  string
	helper  string
	spread  int  // this many helpers, numbered, in turns; 0 = the one
	giveUp  bool // a connection stops at its first error (crash tests)
	maxTime time.Duration
	run     uint32
	pacer   pacer
	stopped atomic.Bool // nothing more is sent

	acked, errs atomic.Int64
	firstErr    atomic.Value
}

func (l *loader) fail(err error) {
	l.firstErr.CompareAndSwap(nil, err.Error())
	l.errs.Add(1)
}

// target is the helper of an event.
func (l *loader) target(seq int) string {
	if l.spread < 1 {
		return l.helper
	}
	return numbered(l.helper, seq%l.spread)
}

func numbered(helper string, n int) string { return fmt.Sprintf("%s-%04d", helper, n) }

// connection sends one event after another and waits for each answer.
func (l *loader) connection() (lats []int64, seqs []int) {
	var c net.Conn
	var rd *rawReader
	var ev, req []byte
	defer func() {
		if c != nil {
			c.Close()
		}
	}()
	for {
		seq, t0, ok := l.pacer.take()
		if !ok || l.stopped.Load() || time.Since(l.pacer.start) > l.maxTime {
			return lats, seqs
		}
		ev = appendEvent(ev[:0], l.target(seq), l.run, seq, t0)
		req = fmt.Appendf(req[:0], "POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", len(ev))
		req = append(req, ev...)
		err := func() (err error) {
			if c == nil {
				if c, err = net.DialTimeout("unix", l.socket, 2*time.Second); err != nil {
					return err
				}
				rd = newRawReader(c)
			}
			if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
				return err
			}
			if _, err := c.Write(req); err != nil {
				return err
			}
			m, err := rd.Read(true)
			if err == nil && m.Status != 202 {
				err = fmt.Errorf("status %d: %.200s", m.Status, m.Body)
			}
			return err
		}()
		if err != nil {
			l.fail(err)
			if c != nil {
				c.Close()
				c = nil
			}
			if l.giveUp {
				return lats, seqs
			}
			time.Sleep(20 * time.Millisecond)
			continue
		}
		l.acked.Add(1)
		lats = append(lats, time.Since(t0).Microseconds())
		seqs = append(seqs, seq)
	}
}

// ndjsonChunk is how many lines go into one chunk of an NDJSON stream.
const ndjsonChunk = 100

// ndjsonStream sends its share of events as one NDJSON request and reads the
// results meanwhile.
func (l *loader) ndjsonStream() error {
	c, err := net.DialTimeout("unix", l.socket, 2*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(l.maxTime)); err != nil {
		return err
	}
	wrote := make(chan error, 1)
	go func() { wrote <- l.writeNDJSON(c) }()
	return errors.Join(l.readResults(c), <-wrote)
}

func (l *loader) writeNDJSON(c net.Conn) error {
	w := bufio.NewWriterSize(c, 64<<10)
	fmt.Fprint(w, "POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n")
	var chunk []byte
	for more := true; more; {
		chunk = chunk[:0]
		for range ndjsonChunk {
			seq, t0, ok := l.pacer.take()
			if !ok || l.stopped.Load() {
				more = false
				break
			}
			chunk = append(appendEvent(chunk, l.target(seq), l.run, seq, t0), '\n')
		}
		if len(chunk) > 0 {
			fmt.Fprintf(w, "%x\r\n", len(chunk))
			w.Write(chunk)
			fmt.Fprint(w, "\r\n")
		}
	}
	fmt.Fprint(w, "0\r\n\r\n")
	return w.Flush()
}

// readResults counts the result lines. The response is chunked; lines may
// straddle chunks, so results are counted by the member that each accepted one
// has and no other text contains.
func (l *loader) readResults(c net.Conn) error {
	br := bufio.NewReaderSize(c, 64<<10)
	for {
		line, err := br.ReadSlice('\n')
		switch {
		case bytes.Contains(line, []byte(`"error":`)):
			l.fail(fmt.Errorf("%s", line))
		case bytes.Contains(line, []byte(`"deliveries":`)):
			l.acked.Add(1)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func runLoad(args []string) error {
	fs := flag.NewFlagSet("load", flag.ExitOnError)
	l := &loader{run: rand.Uint32()}
	fs.StringVar(&l.socket, "socket", "", "events socket")
	fs.StringVar(&l.helper, "helper", "bench", "helper id")
	fs.IntVar(&l.spread, "spread", 0, "send to this many helpers in turns, <helper>-0000 and so on")
	fs.BoolVar(&l.giveUp, "stop-on-error", false, "a connection stops at its first error")
	fs.DurationVar(&l.maxTime, "max", 2*time.Minute, "stop sending after this long")
	fs.IntVar(&l.pacer.n, "n", 1000, "events")
	fs.Float64Var(&l.pacer.rate, "rate", 0, "events/s over all connections; 0 = as fast as acks come")
	conns := fs.Int("c", 16, "connections")
	ndjson := fs.Bool("ndjson", false, "one NDJSON stream per connection")
	acked := fs.String("acked", "", "write the run and the acknowledged sequences here")
	untilEOF := fs.Bool("until-eof", false, "stop sending when the standard input ends")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *untilEOF {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			l.stopped.Store(true)
		}()
	}
	l.pacer.start = time.Now()
	lats, seqs := make([][]int64, *conns), make([][]int, *conns)
	var wg sync.WaitGroup
	for w := range *conns {
		wg.Go(func() {
			if !*ndjson {
				lats[w], seqs[w] = l.connection()
			} else if err := l.ndjsonStream(); err != nil {
				l.fail(err)
			}
		})
	}
	wg.Wait()
	el := time.Since(l.pacer.start)
	if *acked != "" {
		if err := writeAcked(*acked, l.run, slices.Concat(seqs...)); err != nil {
			return err
		}
	}
	first, _ := l.firstErr.Load().(string)
	return printJSON(loadResult{Run: fmt.Sprintf("%08x", l.run), Acked: l.acked.Load(), Errors: l.errs.Load(), FirstErr: first,
		StartUs: l.pacer.start.UnixMicro(), PerSecond: float64(l.acked.Load()) / el.Seconds(), Ack: summarise(concat(lats))})
}

func writeAcked(path string, run uint32, seqs []int) error {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%08x\n", run)
	for _, q := range seqs {
		fmt.Fprintln(&b, q)
	}
	return os.WriteFile(path, b.Bytes(), 0o600)
}

func concat(v [][]int64) []int64 { return slices.Concat(v...) }
