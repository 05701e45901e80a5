package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// spreadOf is the least, the median and the most of shares, divided by their mean.
// Streams that got nothing are not in shares and count as zero.
func spreadOf(shares []int64, streams int) (least, median, most float64) {
	all := slices.Clone(shares)
	for len(all) < streams {
		all = append(all, 0)
	}
	if len(all) == 0 {
		return 0, 0, 0
	}
	slices.Sort(all)
	var sum int64
	for _, v := range all {
		sum += v
	}
	if sum == 0 {
		return 0, 0, 0
	}
	mean := float64(sum) / float64(len(all))
	return float64(all[0]) / mean, float64(all[len(all)/2]) / mean, float64(all[len(all)-1]) / mean
}

const fairStreams = "/ok/fair-"

// measureFair gives many webhooks the same load, faster than it can be delivered, and
// looks at their shares at half time; then sends to all of them slowly, alone and beside
// one more webhook that is flooded.
func measureFair(l *lab, n sizes, r *report) error {
	var b strings.Builder
	for i := range n.fairHooks {
		name := numbered("fair", i)
		fmt.Fprintf(&b, "  %s:\n    secret: %s\n    webhooks: {main: {url: \"http://%s/ok/%s\"}}\n", name, l.secret, l.recvAddr, name)
	}
	fmt.Fprintf(&b, "  flooded:\n    secret: %s\n    webhooks: {main: {url: \"http://%s/ok/flooded\"}}\n", l.secret, l.recvAddr)
	return l.with("", b.String(), func() error {
		least, median, most, err := l.fairShares(n)
		if err != nil {
			return err
		}
		alone, err := l.fairLatency(n, false)
		if err != nil {
			return err
		}
		flooded, err := l.fairLatency(n, true)
		if err != nil {
			return err
		}
		ms := func(us int64) string { return fmt.Sprintf("%.1f", float64(us)/1000) }
		r.more = append(r.more,
			row{fmt.Sprintf("share of each of %d webhooks at half time, least / median / most", n.fairHooks), fmt.Sprintf("%.2f / %.2f / %.2f", least, median, most), "-", "-", true},
			row{"end to end p50 / p99 of them at 500/s in all, ms", ms(alone.P50) + " / " + ms(alone.P99), "-", "-", true},
			row{"  beside one more that is flooded, ms", ms(flooded.P50) + " / " + ms(flooded.P99), "-", "-", true})
		return nil
	})
}

func (l *lab) groupOf(prefix string) (g groupStats, err error) {
	err = l.control("/_group?"+prefix, nil, &g)
	return g, err
}

// waitGroup waits until the streams have want unique events between them.
func (l *lab) waitGroup(prefix string, want int64) (groupStats, error) {
	last, lastN := time.Now(), int64(-1)
	for {
		g, err := l.groupOf(prefix)
		switch {
		case err != nil:
			return g, err
		case g.BadSig > 0:
			return g, fmt.Errorf("%w: %d", errBadSig, g.BadSig)
		case g.Unique >= want:
			return g, nil
		case g.Unique != lastN:
			lastN, last = g.Unique, time.Now()
		case time.Since(last) > 10*time.Second:
			return g, fmt.Errorf("%w: %d of %d", errLost, want-g.Unique, want)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (l *lab) fairShares(n sizes) (least, median, most float64, err error) {
	if err := l.fresh(); err != nil {
		return 0, 0, 0, err
	}
	defer l.stopDaemon(syscall.SIGKILL)
	type answer struct {
		r   loadResult
		err error
	}
	done := make(chan answer, 1)
	go func() {
		res, err := l.load("-n", strconv.Itoa(n.fair), "-c", "4", "-ndjson", "-helper", "fair", "-spread", strconv.Itoa(n.fairHooks))
		done <- answer{res, err}
	}()
	half, err := l.waitGroup(fairStreams, int64(n.fair/2))
	a := <-done
	if err := errors.Join(err, a.err); err != nil {
		return 0, 0, 0, err
	}
	least, median, most = spreadOf(half.Shares, n.fairHooks)
	_, err = l.waitGroup(fairStreams, a.r.Acked)
	return least, median, most, err
}

func (l *lab) fairLatency(n sizes, flooded bool) (summary, error) {
	if err := l.fresh(); err != nil {
		return summary{}, err
	}
	defer l.stopDaemon(syscall.SIGKILL)
	if err := l.warmAll(n.fairHooks); err != nil {
		return summary{}, err
	}
	done := make(chan error, 1)
	if flooded {
		go func() {
			_, err := l.load("-n", strconv.Itoa(n.fair), "-c", "4", "-ndjson", "-helper", "flooded")
			done <- err
		}()
	} else {
		done <- nil
	}
	load, err := l.load("-n", strconv.Itoa(n.fair/20), "-rate", "500", "-c", "16", "-helper", "fair", "-spread", strconv.Itoa(n.fairHooks))
	if err := errors.Join(err, <-done); err != nil {
		return summary{}, err
	}
	g, err := l.waitGroup(fairStreams, load.Acked)
	return g.E2E, err
}

// warmAll sends each of the webhooks an event, so that it has a connection.
func (l *lab) warmAll(hooks int) error {
	r, err := l.load("-n", strconv.Itoa(hooks), "-c", "16", "-helper", "fair", "-spread", strconv.Itoa(hooks))
	if err != nil {
		return err
	}
	if _, err := l.waitGroup(fairStreams, r.Acked); err != nil {
		return err
	}
	return l.control("/_reset", nil, new(any))
}

// measureBurst sends 200 events a second to one helper, alone and while another helper
// is flooded.
func measureBurst(l *lab, n sizes, r *report) error {
	return l.with("", fmt.Sprintf("  neighbour:\n    secret: %s\n    webhooks: {main: {url: \"http://%s/ok/neighbour\", concurrency: 64}}\n", l.secret, l.recvAddr), func() error {
		alone, err := l.steadyAcks(n, false)
		if err != nil {
			return err
		}
		beside, err := l.steadyAcks(n, true)
		if err != nil {
			return err
		}
		ms := func(us int64) string { return fmt.Sprintf("%.2f", float64(us)/1000) }
		r.more = append(r.more,
			row{"ack p50 / p99 of a sender of 200/s, alone, ms", ms(alone.P50) + " / " + ms(alone.P99), "-", "-", true},
			row{"  beside a flood on another helper, ms", ms(beside.P50) + " / " + ms(beside.P99), "-", "-", true})
		return nil
	})
}

func (l *lab) steadyAcks(n sizes, flood bool) (summary, error) {
	if err := l.fresh(); err != nil {
		return summary{}, err
	}
	defer l.stopDaemon(syscall.SIGKILL)
	if err := l.warm(); err != nil {
		return summary{}, err
	}
	done := make(chan error, 1)
	if flood {
		go func() { // longer than the measured sender, and stopped by the clock
			_, err := l.load("-n", "100000000", "-c", "16", "-helper", "neighbour", "-max", (time.Duration(n.burst)*5*time.Millisecond + time.Second).String())
			done <- err
		}()
		time.Sleep(500 * time.Millisecond)
	} else {
		done <- nil
	}
	load, err := l.load("-n", strconv.Itoa(n.burst), "-rate", "200", "-c", "4")
	if err := errors.Join(err, <-done); err != nil {
		return summary{}, err
	}
	s, err := l.waitFor(load.Acked, 10*time.Second)
	return load.Ack, errors.Join(err, settled(s, load.Acked))
}

const (
	fanStreams  = "/ok/fan-"
	fanWebhooks = 100
)

// measureFanout delivers the same number of requests twice: one event to 100 webhooks,
// and 100 events to one.
func measureFanout(l *lab, n sizes, r *report) error {
	var b strings.Builder
	fmt.Fprintf(&b, "  fan:\n    secret: %s\n    webhooks:\n", l.secret)
	for i := range fanWebhooks {
		name := numbered("fan", i)
		fmt.Fprintf(&b, "      %s: {url: \"http://%s/ok/%s\", concurrency: 1}\n", name, l.recvAddr, name)
	}
	return l.with("", b.String(), func() error {
		one, err := l.cost(n.fanout, "bench", 1, mainStream)
		if err != nil {
			return err
		}
		fan, err := l.cost(n.fanout/fanWebhooks, "fan", fanWebhooks, fanStreams)
		if err != nil {
			return err
		}
		ratio := float64(fan.cpu) / float64(max(1, one.cpu))
		deliveries := int64(n.fanout)
		r.more = append(r.more,
			row{"processor time a delivery, one event to 100 / 100 to one, µs", fmt.Sprintf("%.0f / %.0f", float64(fan.cpu.Microseconds())/float64(deliveries), float64(one.cpu.Microseconds())/float64(deliveries)), "-", "-", true},
			row{"  divided", fmt.Sprintf("%.2f", ratio), "-", "0.5", true},
			row{"  bytes written a delivery", fmt.Sprintf("%d / %d", fan.written/deliveries, one.written/deliveries), "-", "-", true})
		return nil
	})
}

// cost is what the daemon uses for events with so many deliveries each.
func (l *lab) cost(events int, helper string, each int64, streams string) (u usage, err error) {
	if err := l.fresh(); err != nil {
		return u, err
	}
	defer l.stopDaemon(syscall.SIGKILL)
	if err := l.warm(); err != nil {
		return u, err
	}
	before, err := l.usage()
	if err != nil {
		return u, err
	}
	load, err := l.load("-n", strconv.Itoa(events), "-c", "16", "-helper", helper)
	if err != nil {
		return u, err
	}
	if _, err := l.waitGroup(streams, load.Acked*each); err != nil {
		return u, err
	}
	time.Sleep(300 * time.Millisecond) // the last completions are committed within 10 ms
	after, err := l.usage()
	return usage{cpu: after.cpu - before.cpu, written: after.written - before.written}, err
}
