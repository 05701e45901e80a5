package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// backlogPoint is one measurement beside a backlog, as recorded for the plot.
type backlogPoint struct {
	Pending   int64   `json:"pending"`
	Webhooks  int     `json:"webhooks"`
	Rate      float64 `json:"rate_ratio"` // divided by the rate with none: the median of the legs
	Volume    float64 `json:"rate_ratio_by_volume"`
	Lowest    float64 `json:"lowest_rate_ratio"`
	Anonymous int64   `json:"anonymous_bytes"`
	Resident  int64   `json:"resident_bytes"`
	First     float64 `json:"first_delivery_s"`
}

// targets are those of a million pending, or of ten million.
func (p *backlogPoint) targets() (rate, memory target) {
	if p.Pending > 5000000 {
		return leastOf(nil, []float64{0.9, 0.9}), most(" MiB", math.NaN(), 160)
	}
	return leastOf([]float64{0.7, 0.7}, []float64{0.95, 0.95}), most(" MiB", 200, 128)
}

// measureBacklog keeps two daemons, one with a backlog and one without, floods them in
// turns, and times the first delivery after a start with that backlog. The legs are short:
// a queue that has been quiet for 5 s gives space back, and would do that in the other's turn.
func measureBacklog(l *lab, n sizes, r *report) error {
	if err := l.warmed(); err != nil {
		return err
	}
	defer l.stopDaemon(syscall.SIGKILL)
	tall, err := l.sibling("tall")
	if err != nil {
		return err
	}
	var b strings.Builder
	for i := range max(1, n.lanes) {
		fmt.Fprintf(&b, "  %s:\n    secret: %s\n    webhooks:\n      stuck: {url: \"http://%s/hold/0/stuck\", concurrency: 1, retry: {timeout: 10m}}\n",
			numbered("backlog", i), l.secret, l.recvAddr)
	}
	return tall.with("", b.String(), func() error {
		if err := tall.warmed(); err != nil {
			return err
		}
		defer func() { tall.stopDaemon(syscall.SIGKILL) }()
		return besideBacklog(l, tall, n, r)
	})
}

func besideBacklog(flat, tall *lab, n sizes, r *report) error {
	back, err := tall.load("-n", strconv.Itoa(n.backlog), "-c", "4", "-ndjson", "-helper", "backlog", "-spread", strconv.Itoa(n.lanes), "-max", "90m")
	if err != nil {
		return err
	}
	if back.Acked < int64(n.backlog) {
		return fmt.Errorf("only %d of %d were accepted: %s", back.Acked, n.backlog, back.FirstErr)
	}
	if err := tall.rested(); err != nil {
		return err
	}
	p := &backlogPoint{Pending: back.Acked, Webhooks: n.lanes}
	var resting resting
	peak := tall.watchPeak()
	legs, err := alternate(n.tallPairs, resting.beside(flat, tall.untilRest(tall.flood(n.tall))), resting.beside(tall, flat.untilRest(flat.flood(n.tall))))
	p.Anonymous = peak().anonymous
	if err != nil {
		return err
	}
	u, err := tall.usage()
	if err != nil {
		return err
	}
	p.Resident = u.resident
	rate, cpu := ratios(rates(legs[0]), rates(legs[1])), ratios(cpus(legs[0]), cpus(legs[1]))
	p.Rate, p.Lowest, p.Volume = rate.median, rate.lowest, byVolume(legs[0])/byVolume(legs[1])
	first, err := tall.firstOfBacklog()
	if err != nil {
		return err
	}
	p.First, r.backlog = first.Seconds(), p
	p.rows(r, n, legs, cpu, resting.most)
	if !n.drain {
		return nil
	}
	return tall.drainBacklog(r, p)
}

// rows are the figures beside the backlog.
func (p *backlogPoint) rows(r *report, n sizes, legs [][]leg, cpu quotient, resting float64) {
	pending := fmt.Sprintf("%d pending", p.Pending)
	if p.Webhooks > 1 {
		pending += fmt.Sprintf(" of %d webhooks", p.Webhooks)
	}
	rate, memory := p.targets()
	r.heading(fmt.Sprintf("Beside %s ÷ beside none, two daemons in turns, %d pairs of %d events", pending, n.tallPairs, n.tall))
	r.tell("delivered/s beside it / beside none, median", "%.0f/s / %.0f/s", median(rates(legs[0])), median(rates(legs[1])))
	r.add("rate, median of the pairs / of all events together; lowest", "%.2f / %.2f; %.2f", rate, p.Rate, p.Volume, p.Lowest)
	r.tell("processor time an event, until merging has come to rest; highest", "%.2f; %.2f", cpu.median, cpu.highest)
	r.add("anonymous memory, peak", "%.0f MiB", memory, mib(p.Anonymous))
	r.add("total resident, after the legs", "%.0f MiB", most(" MiB", math.NaN(), 256), mib(p.Resident))
	r.add("first delivery after kill -9 and start", "%.2f s", most(" s", math.NaN(), 2), p.First)
	r.tell("  processor of the daemon that rests meanwhile, most in a leg", "%.1f %%", 100*resting)
}

// resting watches that a daemon which is not measured takes nothing from the one that is.
type resting struct{ most float64 }

func (r *resting) beside(other *lab, measured turn) turn {
	return func() (leg, error) {
		began := time.Now()
		before, err := other.usage()
		if err != nil {
			return leg{}, err
		}
		out, err := measured()
		if err != nil {
			return out, err
		}
		after, err := other.usage()
		r.most = max(r.most, float64(after.cpu-before.cpu)/float64(time.Since(began)))
		return out, err
	}
}

// untilRest lets a daemon merge its tables before the other one's turn, and adds what that
// costs to the leg.
func (l *lab) untilRest(measured turn) turn {
	return func() (leg, error) {
		out, err := measured()
		if err != nil {
			return out, err
		}
		before, err := l.usage()
		if err != nil {
			return out, err
		}
		if err := l.rested(); err != nil {
			return out, err
		}
		after, err := l.usage()
		out.cpu += after.cpu - before.cpu
		out.written += after.written - before.written
		return out, err
	}
}

const stuck = "/hold/0/stuck"

func (l *lab) firstOfBacklog() (time.Duration, error) {
	l.stopDaemon(syscall.SIGKILL)
	before, err := l.stats("/_count", stuck)
	if err != nil {
		return 0, err
	}
	return l.restart(stuck, before.Requests)
}

// drainBacklog lets the backlog be delivered and compares what the queue takes on the
// disk before and after. What is left is history: the log of the deliveries, and the
// payloads as long as they can be replayed.
func (l *lab) drainBacklog(r *report, p *backlogPoint) error {
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
	r.tell("backlog drained, delivered/s", "%.0f/s", float64(p.Pending)/took.Seconds())
	r.tell("  queue on the disk before / after, MiB", "%.0f / %.0f", mib(before), mib(after))
	r.tell("  bytes on the disk for each delivery of the run", "%.0f", float64(after)/float64(max(1, q.Success+q.Failed)))
	return nil
}
