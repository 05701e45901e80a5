package main

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// measureKill kills the daemon under flood and accounts for every event that
// was acknowledged.
func measureKill(l *lab, n sizes, r *report) error {
	for range n.kills {
		if err := l.oneKill(r); err != nil {
			return err
		}
	}
	return nil
}

func (l *lab) oneKill(r *report) error {
	if err := l.fresh(); err != nil {
		return err
	}
	acked := filepath.Join(l.dir, "acked")
	type answer struct {
		r   loadResult
		err error
	}
	done := make(chan answer, 1)
	go func() {
		res, err := l.load("-n", "1000000", "-c", "16", "-max", "5s", "-stop-on-error", "-acked", acked)
		done <- answer{res, err}
	}()
	time.Sleep(time.Duration(600+rand.IntN(900)) * time.Millisecond)
	l.stopDaemon(syscall.SIGKILL)
	a := <-done
	if a.err != nil {
		return a.err
	}
	at, err := l.stats("/_count", mainStream)
	if err != nil {
		return err
	}
	var back time.Duration
	if at.Unique < a.r.Acked {
		back, err = l.restart(mainStream, at.Requests)
	} else { // all had arrived: there may be nothing to redeliver, so ready is back
		back, err = l.startDaemon()
	}
	if err != nil {
		return err
	}
	defer l.stopDaemon(syscall.SIGTERM)
	r.killBack = max(r.killBack, back)
	s, err := l.waitFor(a.r.Acked, 3*time.Second)
	if err != nil {
		return err
	}
	ids, err := os.ReadFile(acked)
	if err != nil {
		return err
	}
	var miss struct{ Acked, Missing int }
	if err := l.control("/_missing?"+mainStream, bytes.NewReader(ids), &miss); err != nil {
		return err
	}
	r.killTrials++
	r.killAcked += int64(miss.Acked)
	r.killLost += int64(miss.Missing)
	r.killDups = max(r.killDups, s.Dups)
	if miss.Missing > 0 {
		return fmt.Errorf("%w: %d of %d", errLost, miss.Missing, miss.Acked)
	}
	return nil
}

// restart starts the daemon and returns how long it takes until a stream has
// more than had requests.
func (l *lab) restart(stream string, had int64) (time.Duration, error) {
	t0 := time.Now()
	if _, err := l.startDaemon(); err != nil {
		return 0, err
	}
	for time.Since(t0) < time.Minute {
		now, err := l.stats("/_count", stream)
		if err != nil {
			return 0, err
		}
		if now.Requests > had {
			return time.Since(t0), nil
		}
		time.Sleep(2 * time.Millisecond)
	}
	return 0, errors.New("nothing was delivered within a minute of the start")
}
