package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

// failures follows the daemon's stream of what ends as failed. The log is no place to look
// for it at the end of a soak: its history is dropped meanwhile.
type failures struct {
	stop func() error // ends the stream

	mu      sync.Mutex        // guards the rest
	entries map[string]string // by delivery id: the entry
}

func (f *failures) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.entries)
}

// runs is what failed, as run and sequence of the event.
func (f *failures) runs() map[string]bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := map[string]bool{}
	for _, entry := range f.entries {
		if run, seq, _, ok := findEvent([]byte(entry)); ok {
			out[fmt.Sprintf("%08x-%08d", run, seq)] = true
		}
	}
	return out
}

// followFailed begins to follow a webhook. stop has to be called.
func (l *lab) followFailed(webhook string) (*failures, error) {
	ctx, cancel := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://admin/v1/deliveries/stream?status=failed&webhook="+webhook, nil)
	if err != nil {
		cancel()
		return nil, err
	}
	hc := l.adminClient()
	hc.Timeout = 0
	resp, err := hc.Do(req)
	if err != nil {
		cancel()
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		cancel()
		resp.Body.Close()
		return nil, fmt.Errorf("stream of failed deliveries: %s", resp.Status)
	}
	f := &failures{entries: map[string]string{}}
	done := make(chan error, 1)
	go func() {
		defer resp.Body.Close()
		done <- f.read(bufio.NewScanner(resp.Body))
	}()
	f.stop = func() error {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			return fmt.Errorf("stream of failed deliveries: %w", err)
		}
		return nil
	}
	return f, nil
}

var errStreamEnded = errors.New("it ended by itself")

// read takes in the stream until it ends.
func (f *failures) read(lines *bufio.Scanner) error {
	lines.Buffer(nil, 1<<20)
	for event := ""; lines.Scan(); {
		key, value, _ := strings.Cut(lines.Text(), ": ")
		switch {
		case key == "event":
			event = value
		case key == "data" && event == "missed":
			return fmt.Errorf("it left changes out: %s", value)
		case key == "data":
			var change struct {
				Delivery struct {
					ID      string `json:"id"`
					EntryID string `json:"entry_id"`
				} `json:"delivery"`
			}
			if err := json.Unmarshal([]byte(value), &change); err != nil {
				return err
			}
			f.mu.Lock()
			f.entries[change.Delivery.ID] = change.Delivery.EntryID
			f.mu.Unlock()
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return errStreamEnded
}

// accounts is what became of the events of a soak.
type accounts struct {
	acked      int64 // by the sender
	arrived    int64 // of those, at the receiver
	never      int64 // of those, failed and never arrived
	dups       int64 // requests that the receiver had answered with 200 before
	named      int64 // failed deliveries, by the stream
	daemon     queueCounts
	unverified int64 // requests with a bad signature
}

// check says what does not add up.
func (a accounts) check() error {
	var errs []error
	if lost := a.acked - a.arrived - a.never; lost > 0 {
		errs = append(errs, fmt.Errorf("%w: %d of %d", errLost, lost, a.acked))
	}
	if q := a.daemon; q.Success+q.Failed != a.acked || q.Pending != 0 {
		errs = append(errs, fmt.Errorf("the daemon counts %d delivered, %d failed and %d pending of %d acknowledged", q.Success, q.Failed, q.Pending, a.acked))
	}
	if a.daemon.Success > a.arrived {
		errs = append(errs, fmt.Errorf("the daemon counts %d delivered, and %d arrived", a.daemon.Success, a.arrived))
	}
	if a.named != a.daemon.Failed {
		errs = append(errs, fmt.Errorf("the daemon counts %d failed, and its stream named %d", a.daemon.Failed, a.named))
	}
	if a.unverified > 0 {
		errs = append(errs, fmt.Errorf("%w: %d", errBadSig, a.unverified))
	}
	return errors.Join(errs...)
}

func (a accounts) String() string {
	return fmt.Sprintf("%d acknowledged = %d arrived + %d failed + %d lost; %d requests were duplicates; the daemon counts %d delivered, %d failed (%d of which had arrived), %d pending",
		a.acked, a.arrived, a.never, a.acked-a.arrived-a.never, a.dups, a.daemon.Success, a.daemon.Failed, a.daemon.Failed-a.never, a.daemon.Pending)
}

// account waits until nothing is pending and finds every acknowledged event, at the
// receiver or among what failed.
func (l *lab) account(files []string, ended *failures) (err error) {
	var a accounts
	a.daemon, err = l.drained()
	for end := time.Now().Add(30 * time.Second); int64(ended.count()) < a.daemon.Failed && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
	}
	if err := errors.Join(err, ended.stop()); err != nil {
		return err
	}
	failed := ended.runs()
	a.named = int64(ended.count())
	for _, file := range files {
		ids, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		var miss struct {
			Acked, Missing int64
			Sequences      []int
		}
		if err := l.control("/_missing?"+soakStream, bytes.NewReader(ids), &miss); err != nil {
			return err
		}
		run, _, _ := bytes.Cut(ids, []byte("\n"))
		a.acked, a.arrived = a.acked+miss.Acked, a.arrived+miss.Acked-miss.Missing
		for _, seq := range miss.Sequences {
			if failed[fmt.Sprintf("%s-%08d", run, seq)] {
				a.never++
			}
		}
	}
	s, err := l.stats("/_count", soakStream)
	if err != nil {
		return err
	}
	a.dups, a.unverified = s.Dups, s.BadSig
	fmt.Println(a)
	return a.check()
}

// drained waits until nothing is pending: what is retried last is due four seconds after its
// first attempt.
func (l *lab) drained() (q queueCounts, err error) {
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if q, err = l.queueCounts(); err != nil || q.Pending == 0 {
			return q, err
		}
	}
	return q, fmt.Errorf("%d deliveries are pending two minutes after the last event", q.Pending)
}
