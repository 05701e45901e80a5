package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// bareResult is what the bare client reached: the same signed events POSTed
// from memory straight to the receiver, with no queue between.
type bareResult struct {
	PerSecond float64 `json:"per_s"`
	Errors    int64   `json:"errors"`
	RTT       summary `json:"rtt"`
}

// pacer hands out sequence numbers, at a rate when one is set.
type pacer struct {
	n     int
	rate  float64
	start time.Time
	next  atomic.Int64
}

// take returns the next sequence and the time at which it counts as sent; ok
// is false when all are taken. A timer that wakes under 5 ms late is this
// program's fault and is not charged; being held up longer is the target's.
func (p *pacer) take() (seq int, at time.Time, ok bool) {
	seq = int(p.next.Add(1)) - 1
	if seq >= p.n {
		return 0, time.Time{}, false
	}
	at = time.Now()
	if p.rate > 0 {
		due := p.start.Add(time.Duration(float64(seq) / p.rate * 1e9))
		time.Sleep(time.Until(due))
		if at = time.Now(); at.Sub(due) > 5*time.Millisecond {
			at = due
		}
	}
	return seq, at, true
}

func runBare(args []string) error {
	fs := flag.NewFlagSet("bare", flag.ExitOnError)
	n := fs.Int("n", 20000, "events")
	conns := fs.Int("c", 64, "concurrent requests")
	rate := fs.Float64("rate", 0, "events/s; 0 = flat out")
	to := fs.String("url", "", "webhook URL")
	raw := fs.Bool("raw", false, "raw sockets instead of net/http")
	secret := fs.String("secret", "", "HMAC secret")
	ca := fs.String("ca", "", "certificate that is trusted over TLS")
	if err := fs.Parse(args); err != nil {
		return err
	}
	u, err := url.Parse(*to)
	if err != nil {
		return err
	}
	trust, err := trusting(*ca)
	if err != nil {
		return err
	}
	hc := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: *conns, MaxIdleConns: *conns, DisableCompression: true, TLSClientConfig: trust}}
	p := &pacer{n: *n, rate: *rate, start: time.Now()}
	run := rand.Uint32()
	var errs atomic.Int64
	lats := make([][]int64, *conns)
	var wg sync.WaitGroup
	for w := range *conns {
		wg.Go(func() {
			post := httpPoster(hc, *to)
			if *raw {
				post = rawPoster(u)
			}
			var ev []byte
			for {
				seq, t0, ok := p.take()
				if !ok {
					return
				}
				ev = appendEvent(ev[:0], "bench", run, seq, t0)
				if err := post(ev, sign([]byte(*secret), ev)); err != nil {
					errs.Add(1)
				}
				lats[w] = append(lats[w], time.Since(t0).Microseconds())
			}
		})
	}
	wg.Wait()
	el := time.Since(p.start)
	return printJSON(bareResult{float64(int64(*n)-errs.Load()) / el.Seconds(), errs.Load(), summarise(concat(lats))})
}

type poster func(body []byte, signature string) error

func httpPoster(hc *http.Client, to string) poster {
	return func(body []byte, signature string) error {
		r, err := http.NewRequest(http.MethodPost, to, bytes.NewReader(body))
		if err != nil {
			return err
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("X-Peanuts-Signature", signature)
		resp, err := hc.Do(r)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("status %d", resp.StatusCode)
		}
		return nil
	}
}

func rawPoster(u *url.URL) poster {
	var c net.Conn
	var rd *rawReader
	var req []byte
	return func(body []byte, signature string) error {
		if c == nil {
			var err error
			if c, err = net.Dial("tcp", u.Host); err != nil {
				return err
			}
			rd = newRawReader(c)
		}
		req = fmt.Appendf(req[:0], "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nX-Peanuts-Signature: %s\r\nContent-Length: %d\r\n\r\n", u.Path, u.Host, signature, len(body))
		req = append(req, body...)
		if _, err := c.Write(req); err != nil {
			return err
		}
		m, err := rd.Read(true)
		if err == nil && m.Status != http.StatusOK {
			err = fmt.Errorf("status %d", m.Status)
		}
		return err
	}
}

// floorResult is the log floor: C writers append an event to one file and wait
// for a shared fdatasync. No durable queue on this disk acks faster at this C.
type floorResult struct {
	PerSecond float64 `json:"acks_per_s"`
	Ack       summary `json:"ack"`
}

// wal is one file with group commit and nothing else.
type wal struct {
	f       *os.File
	kick    chan struct{}
	mu      sync.Mutex
	pending []chan struct{}
	buf     []byte
}

func (w *wal) append(ev []byte) {
	done := make(chan struct{})
	w.mu.Lock()
	w.buf = append(w.buf, ev...)
	w.pending = append(w.pending, done)
	w.mu.Unlock()
	select {
	case w.kick <- struct{}{}:
	default:
	}
	<-done
}

func (w *wal) run() error {
	for range w.kick {
		w.mu.Lock()
		waiting, b := w.pending, w.buf
		w.pending, w.buf = nil, nil
		w.mu.Unlock()
		if len(waiting) == 0 {
			continue
		}
		if _, err := w.f.Write(b); err != nil {
			return err
		}
		if err := syscall.Fdatasync(int(w.f.Fd())); err != nil {
			return err
		}
		for _, c := range waiting {
			close(c)
		}
	}
	return nil
}

func runWALFloor(args []string) error {
	fs := flag.NewFlagSet("walfloor", flag.ExitOnError)
	n := fs.Int("n", 20000, "events")
	conns := fs.Int("c", 16, "concurrent writers")
	path := fs.String("file", "", "file to write, removed at the end")
	if err := fs.Parse(args); err != nil {
		return err
	}
	f, err := os.Create(*path)
	if err != nil {
		return err
	}
	defer os.Remove(*path)
	defer f.Close()
	w := &wal{f: f, kick: make(chan struct{}, 1)}
	failed := make(chan error, 1)
	go func() { failed <- w.run() }()
	p := &pacer{n: *n, start: time.Now()}
	run := rand.Uint32()
	lats := make([][]int64, *conns)
	var wg sync.WaitGroup
	for i := range *conns {
		wg.Go(func() {
			var ev []byte
			for {
				seq, t0, ok := p.take()
				if !ok {
					return
				}
				ev = appendEvent(ev[:0], "bench", run, seq, t0)
				w.append(ev)
				lats[i] = append(lats[i], time.Since(t0).Microseconds())
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case err := <-failed:
		return err
	case <-done:
	}
	el := time.Since(p.start)
	close(w.kick)
	return printJSON(floorResult{float64(*n) / el.Seconds(), summarise(concat(lats))})
}
