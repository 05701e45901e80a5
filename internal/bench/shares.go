package main

import (
	"cmp"
	"errors"
	"fmt"
	"math"
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
		if err := l.fresh(); err != nil {
			return err
		}
		defer l.stopDaemon(syscall.SIGKILL)
		if err := l.warmAll(n.fairHooks); err != nil {
			return err
		}
		var least, middle, top []float64
		for range n.legs {
			a, b, c, err := l.fairShares(n)
			if err != nil {
				return err
			}
			least, middle, top = append(least, a), append(middle, b), append(top, c)
		}
		alone := l.floodLeg(fairStreams, 1, "-n", strconv.Itoa(n.fair/20), "-rate", "500", "-c", "16", "-helper", "fair", "-spread", strconv.Itoa(n.fairHooks))
		legs, err := alternate(n.legs, alone, l.besideFlooded(n, alone))
		if err != nil {
			return err
		}
		r.heading(fmt.Sprintf("%d webhooks, median of %d legs", n.fairHooks, n.legs))
		r.tell("share of each at half time, least / median / most", "%.2f / %.2f / %.2f", median(least), median(middle), median(top))
		r.tell("end to end p50 / p99 of them at 500/s in all, ms", "%.1f / %.1f", middleOf(legs[0], e2eP50), middleOf(legs[0], e2eP99))
		r.tell("  beside one more that is flooded, ms", "%.1f / %.1f", middleOf(legs[1], e2eP50), middleOf(legs[1], e2eP99))
		r.tell("  of that until the ack, ms", "%.1f / %.1f", middleOf(legs[1], ackP50), middleOf(legs[1], ackP99))
		return nil
	})
}

// fairShares gives all webhooks the same number of events and looks when half has arrived.
func (l *lab) fairShares(n sizes) (least, median, most float64, err error) {
	if err := l.control("/_reset", nil, new(any)); err != nil {
		return 0, 0, 0, err
	}
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

// besideFlooded runs a leg while one more webhook has more to do than it can, and then
// discards what is left of that.
func (l *lab) besideFlooded(n sizes, measured turn) turn {
	return func() (leg, error) {
		done := make(chan error, 1)
		go func() {
			_, err := l.load("-n", strconv.Itoa(2*n.fair), "-c", "4", "-ndjson", "-helper", "flooded")
			done <- err
		}()
		out, err := measured()
		return out, cmp.Or(errors.Join(err, <-done), l.discard("flooded.main"))
	}
}

// warmAll sends each of the webhooks an event, so that it has a connection.
func (l *lab) warmAll(hooks int) error {
	_, err := l.floodLeg(fairStreams, 1, "-n", strconv.Itoa(hooks), "-c", "16", "-helper", "fair", "-spread", strconv.Itoa(hooks))()
	return err
}

// measureBurst sends 200 events a second to one helper, alone and while another helper
// is flooded.
func measureBurst(l *lab, n sizes, r *report) error {
	return l.with("", fmt.Sprintf("  neighbour:\n    secret: %s\n    webhooks: {main: {url: \"http://%s/ok/neighbour\", concurrency: 64}}\n", l.secret, l.recvAddr), func() error {
		if err := l.warmed(); err != nil {
			return err
		}
		defer l.stopDaemon(syscall.SIGKILL)
		steady := l.floodLeg(mainStream, 1, "-n", strconv.Itoa(n.burst), "-rate", "200", "-c", "4")
		legs, err := alternate(n.legs, steady, l.beside(500*time.Millisecond, steady, "-c", "16", "-helper", "neighbour"))
		if err != nil {
			return err
		}
		r.heading(fmt.Sprintf("A burst on one helper, median of %d legs", n.legs))
		r.tell("ack p50 / p99 of a sender of 200/s, alone, ms", "%.2f / %.2f", middleOf(legs[0], ackP50), middleOf(legs[0], ackP99))
		r.tell("  beside 16 connections that flood another helper, ms", "%.2f / %.2f", middleOf(legs[1], ackP50), middleOf(legs[1], ackP99))
		return nil
	})
}

const (
	fanStreams  = "/ok/fan-"
	fanWebhooks = 100
)

// measureFanout makes the same number of deliveries in two ways: one event to 100 webhooks,
// and 100 events to one.
func measureFanout(l *lab, n sizes, r *report) error {
	var b strings.Builder
	fmt.Fprintf(&b, "  fan:\n    secret: %s\n    webhooks:\n", l.secret)
	for i := range fanWebhooks {
		name := numbered("fan", i)
		fmt.Fprintf(&b, "      %s: {url: \"http://%s/ok/%s\", concurrency: 1}\n", name, l.recvAddr, name)
	}
	return l.with("", b.String(), func() error {
		if err := l.warmed(); err != nil {
			return err
		}
		defer l.stopDaemon(syscall.SIGKILL)
		fan := l.floodLeg(fanStreams, fanWebhooks, "-n", strconv.Itoa(n.fanout/fanWebhooks), "-c", "16", "-helper", "fan")
		legs, err := alternate(n.legs, fan, l.flood(n.fanout))
		if err != nil {
			return err
		}
		cost := func(x leg) float64 { return micros(float64(x.cpu) / float64(n.fanout)) }
		wrote := func(x leg) float64 { return float64(x.written) / float64(n.fanout) }
		r.heading(fmt.Sprintf("One event to 100 webhooks ÷ 100 events to one, median of %d rounds", n.legs))
		r.tell("processor time a delivery, µs", "%.0f / %.0f", middleOf(legs[0], cost), middleOf(legs[1], cost))
		ratio := ratios(each(legs[0], cost), each(legs[1], cost))
		r.add("  divided; highest", "%.2f; %.2f", most("", math.NaN(), 0.5), ratio.median, ratio.highest)
		r.tell("bytes written a delivery", "%.0f / %.0f", middleOf(legs[0], wrote), middleOf(legs[1], wrote))
		return nil
	})
}
