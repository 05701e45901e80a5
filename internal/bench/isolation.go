package main

import (
	"errors"
	"strconv"
	"syscall"
	"time"
)

// tarpitRate is how many events a second the tarpit gets beside the measured
// flood: far more than its 8 slots of 5 s can take, so that its backlog grows,
// and few enough that accepting them costs the processor next to nothing.
const tarpitRate = "300"

// measureIsolation floods the healthy webhook alone, then with a second sender
// whose events go to a receiver that takes 5 s.
func measureIsolation(l *lab, n sizes, r *report) error {
	alone, err := l.healthyRate(n, false)
	if err != nil {
		return err
	}
	beside, err := l.healthyRate(n, true)
	if err != nil {
		return err
	}
	again, err := l.healthyRate(n, false)
	if err != nil {
		return err
	}
	r.isolation = beside / ((alone + again) / 2)
	return nil
}

func (l *lab) healthyRate(n sizes, tarpit bool) (float64, error) {
	if err := l.fresh(); err != nil {
		return 0, err
	}
	defer l.stopDaemon(syscall.SIGKILL)
	if err := l.warm(); err != nil {
		return 0, err
	}
	done := make(chan error, 1)
	if tarpit {
		go func() {
			_, err := l.load("-n", "1500", "-c", "4", "-rate", tarpitRate, "-helper", "slow", "-max", "20s")
			done <- err
		}()
		time.Sleep(time.Second) // the tarpit's slots are full by now
	} else {
		done <- nil
	}
	load, err := l.load("-n", strconv.Itoa(n.isolation), "-c", "16")
	if err != nil {
		return 0, err
	}
	s, err := l.waitFor(load.Acked, 5*time.Second)
	if err := errors.Join(err, settled(s, load.Acked)); err != nil {
		return 0, err
	}
	return perSecond(s, load.StartUs), <-done
}
