package main

import (
	"strconv"
	"syscall"
	"time"
)

func measureIdle(l *lab, n sizes, r *report) error {
	if err := l.fresh(); err != nil {
		return err
	}
	defer l.stopDaemon(syscall.SIGTERM)
	time.Sleep(2 * time.Second)
	before, err := l.usage()
	if err != nil {
		return err
	}
	time.Sleep(n.idle)
	after, err := l.usage()
	if err != nil {
		return err
	}
	r.idleCPU = float64(after.cpu-before.cpu) / float64(n.idle)
	r.idleAnon = after.anonymous
	return nil
}

func measureFlood(l *lab, n sizes, r *report) error {
	if err := l.fresh(); err != nil {
		return err
	}
	defer l.stopDaemon(syscall.SIGTERM)
	if err := l.warm(); err != nil {
		return err
	}
	bare1, err := l.bare("-n", "20000")
	if err != nil {
		return err
	}
	floor1, err := l.walFloor(n.flood / 2)
	if err != nil {
		return err
	}
	before, err := l.usage()
	if err != nil {
		return err
	}
	peak := l.watchPeak()
	load, err := l.load("-n", strconv.Itoa(n.flood), "-c", "16")
	if err != nil {
		return err
	}
	s, err := l.waitFor(load.Acked, 10*time.Second)
	r.floodAnon = peak()
	if err != nil {
		return err
	}
	time.Sleep(300 * time.Millisecond) // the last completions are committed within 10 ms
	after, err := l.usage()
	if err != nil {
		return err
	}
	floor2, err := l.walFloor(n.flood / 2)
	if err != nil {
		return err
	}
	bare2, err := l.bare("-n", "20000")
	if err != nil {
		return err
	}
	r.bare = (bare1.PerSecond + bare2.PerSecond) / 2
	r.floor = (floor1.PerSecond + floor2.PerSecond) / 2
	r.acks, r.ack = load.PerSecond, load.Ack
	r.delivered = perSecond(s, load.StartUs)
	r.cpuPerEvent = (after.cpu - before.cpu) / time.Duration(max(1, s.Unique))
	r.bytesPerEvent = (after.written - before.written) / max(1, s.Unique)
	return settled(s, load.Acked)
}

func measureRate(l *lab, n sizes, r *report) error {
	if err := l.fresh(); err != nil {
		return err
	}
	defer l.stopDaemon(syscall.SIGTERM)
	if err := l.warm(); err != nil {
		return err
	}
	bare, err := l.bare("-n", "2500", "-rate", "500", "-c", "16")
	if err != nil {
		return err
	}
	load, err := l.load("-n", strconv.Itoa(n.rate), "-rate", "500", "-c", "16")
	if err != nil {
		return err
	}
	s, err := l.waitFor(load.Acked, 10*time.Second)
	if err != nil {
		return err
	}
	r.e2e, r.bareRTT = s.E2E, bare.RTT
	return settled(s, load.Acked)
}

func measureNDJSON(l *lab, n sizes, r *report) error {
	if err := l.fresh(); err != nil {
		return err
	}
	defer l.stopDaemon(syscall.SIGTERM)
	if err := l.warm(); err != nil {
		return err
	}
	only, err := l.load("-n", strconv.Itoa(n.ndjson), "-c", "4", "-ndjson", "-helper", "quiet")
	if err != nil {
		return err
	}
	r.ndjsonAccepted = only.PerSecond
	bare1, err := l.bare("-n", "20000")
	if err != nil {
		return err
	}
	load, err := l.load("-n", strconv.Itoa(n.ndjson/2), "-c", "4", "-ndjson")
	if err != nil {
		return err
	}
	s, err := l.waitFor(load.Acked, 10*time.Second)
	if err != nil {
		return err
	}
	bare2, err := l.bare("-n", "20000")
	if err != nil {
		return err
	}
	r.ndjsonDelivered = perSecond(s, load.StartUs)
	r.ndjsonBare = (bare1.PerSecond + bare2.PerSecond) / 2
	return settled(s, load.Acked)
}
