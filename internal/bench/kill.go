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
	var k killed
	for range n.kills {
		if err := l.oneKill(&k); err != nil {
			return err
		}
	}
	const inFlight = 64 // the webhook's concurrency
	r.heading(fmt.Sprintf("kill -9 under flood, %d times", n.kills))
	r.add("acknowledged events lost, of all", "%.0f of %.0f", most("", 0, 0), float64(k.lost), float64(k.acked))
	r.add("most duplicates in one trial; 64 are in flight", "%.0f", most("", inFlight, inFlight), float64(k.dups))
	r.add("first redelivery after the start, slowest", "%.2f s", most(" s", 2, 1), k.back.Seconds())
	return nil
}

// killed is what all trials together show.
type killed struct {
	acked, lost int64
	dups        int64 // most in one trial
	back        time.Duration
}

func (l *lab) oneKill(k *killed) error {
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
	k.back = max(k.back, back)
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
	k.acked += int64(miss.Acked)
	k.lost += int64(miss.Missing)
	k.dups = max(k.dups, s.Dups)
	if s.BadSig > 0 {
		return fmt.Errorf("%w: %d", errBadSig, s.BadSig)
	}
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
