package main

import (
	"fmt"
	"strconv"
	"syscall"
	"time"
)

// rateNow is deliveries per second of a flood on the daemon as it stands.
func (l *lab) rateNow(n int) (float64, error) {
	if err := l.control("/_reset", nil, new(any)); err != nil {
		return 0, err
	}
	load, err := l.load("-n", strconv.Itoa(n), "-c", "16")
	if err != nil {
		return 0, err
	}
	s, err := l.waitFor(load.Acked, 10*time.Second)
	if err != nil {
		return 0, err
	}
	return perSecond(s, load.StartUs), settled(s, load.Acked)
}

// measureBacklog compares the rate on an empty queue with the rate beside a
// webhook that has a backlog, and times the first delivery after a start with
// that backlog.
func measureBacklog(l *lab, n sizes, r *report) error {
	if err := l.fresh(); err != nil {
		return err
	}
	defer func() { l.stopDaemon(syscall.SIGKILL) }()
	if err := l.warm(); err != nil {
		return err
	}
	empty, err := l.rateNow(4 * n.flood) // long enough for the database to merge tables now and then
	if err != nil {
		return err
	}
	back, err := l.load("-n", strconv.Itoa(n.backlog), "-c", "4", "-ndjson", "-helper", "backlog", "-max", "10m")
	if err != nil {
		return err
	}
	if back.Acked < int64(n.backlog) {
		return fmt.Errorf("only %d of %d were accepted: %s", back.Acked, n.backlog, back.FirstErr)
	}
	r.backlog = back.Acked
	peak := l.watchPeak()
	full, err := l.rateNow(n.flood / 2)
	r.backlogAnon = peak()
	if err == nil {
		err = l.rested()
	}
	if err != nil {
		return err
	}
	long, err := l.rateNow(4 * n.flood)
	if err != nil {
		return err
	}
	r.backlogLong = long / empty
	u, err := l.usage()
	if err != nil {
		return err
	}
	r.backlogRSS = u.resident
	r.backlogRatio = full / empty
	l.stopDaemon(syscall.SIGKILL)
	const stuck = "/delay/600000/stuck"
	before, err := l.stats("/_count", stuck)
	if err != nil {
		return err
	}
	r.backlogFirst, err = l.restart(stuck, before.Requests)
	return err
}
