package main

import (
	"fmt"
	"strconv"
	"strings"
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

// backlogPoint is one measurement beside a backlog, as recorded for the plot.
type backlogPoint struct {
	Pending   int64   `json:"pending"`
	Webhooks  int     `json:"webhooks"`
	Rate      float64 `json:"rate_ratio"` // divided by the rate with none
	Anonymous int64   `json:"anonymous_bytes"`
	Resident  int64   `json:"resident_bytes"`
	First     float64 `json:"first_delivery_s"`
}

// measureBacklog compares the rate on an empty queue with the rate beside webhooks that
// have a backlog, and times the first delivery after a start with that backlog.
func measureBacklog(l *lab, n sizes, r *report) error {
	var b strings.Builder
	for i := range n.lanes {
		fmt.Fprintf(&b, "  %s:\n    secret: %s\n    webhooks:\n      stuck: {url: \"http://%s/hold/0/stuck\", concurrency: 1, retry: {timeout: 10m}}\n",
			numbered("backlog", i), l.secret, l.recvAddr)
	}
	return l.with("", b.String(), func() error {
		defer func() { l.stopDaemon(syscall.SIGKILL) }()
		return l.besideBacklog(n, r)
	})
}

func (l *lab) besideBacklog(n sizes, r *report) error {
	if err := l.fresh(); err != nil {
		return err
	}
	if err := l.warm(); err != nil {
		return err
	}
	empty, err := l.rateNow(4 * n.flood) // long enough for the database to merge tables now and then
	if err != nil {
		return err
	}
	back, err := l.load("-n", strconv.Itoa(n.backlog), "-c", "4", "-ndjson", "-helper", "backlog", "-spread", strconv.Itoa(n.lanes), "-max", "90m")
	if err != nil {
		return err
	}
	if back.Acked < int64(n.backlog) {
		return fmt.Errorf("only %d of %d were accepted: %s", back.Acked, n.backlog, back.FirstErr)
	}
	r.backlog, r.lanes = back.Acked, n.lanes
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
	if err := l.firstOfBacklog(r); err != nil || !n.drain {
		return err
	}
	return l.drainBacklog(r)
}

const stuck = "/hold/0/stuck"

func (l *lab) firstOfBacklog(r *report) error {
	l.stopDaemon(syscall.SIGKILL)
	before, err := l.stats("/_count", stuck)
	if err != nil {
		return err
	}
	r.backlogFirst, err = l.restart(stuck, before.Requests)
	return err
}

// drainBacklog lets the backlog be delivered and compares what the queue takes on the
// disk before and after. What is left is history: the log of the deliveries, and the
// payloads as long as they can be replayed.
func (l *lab) drainBacklog(r *report) error {
	before, err := diskUsage(l.data())
	if err != nil {
		return err
	}
	if err := l.control("/_open", nil, new(any)); err != nil {
		return err
	}
	began, least, moved := time.Now(), int64(1)<<62, time.Now()
	var q queueCounts
	for {
		if q, err = l.queueCounts(); err != nil {
			return err
		}
		if q.Pending == 0 {
			break
		}
		if q.Pending < least {
			least, moved = q.Pending, time.Now()
		}
		if time.Since(moved) > 2*time.Minute {
			return fmt.Errorf("the backlog stays at %d pending", least)
		}
		time.Sleep(500 * time.Millisecond)
	}
	took := time.Since(began)
	if err := l.rested(); err != nil {
		return err
	}
	after, err := diskUsage(l.data())
	if err != nil {
		return err
	}
	r.more = append(r.more,
		row{"backlog drained, delivered/s", fmt.Sprintf("%.0f/s", float64(r.backlog)/took.Seconds()), "-", "-", true},
		row{"  queue on the disk before / after, MiB", fmt.Sprintf("%d / %d", before>>20, after>>20), "-", "-", true},
		row{"  bytes on the disk for each delivery of the run", strconv.FormatInt(after/max(1, q.Success+q.Failed), 10), "-", "-", true})
	return nil
}
