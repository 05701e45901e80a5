package main

import (
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"time"
)

// leg is what one flood, or one run of a floor, reached. What it did not measure is zero.
type leg struct {
	rate    float64 // deliveries/s, from the first send to the last first arrival; of the log floor acks/s
	acks    float64 // acks/s
	ack     summary
	e2e     summary
	cpu     time.Duration // of the daemon
	written int64         // bytes that the daemon caused to be written to disk
	events  int64
	others  float64 // share of the processors that something else had
}

func (l leg) perEvent() float64 { return float64(l.cpu) / float64(max(1, l.events)) }

// turn is one of the things that are compared: it makes a leg each time.
type turn func() (leg, error)

// alternate lets each side run in turns, so many rounds after one that does not count.
// Every second round goes backwards, so that a machine that becomes slower favours nobody.
// What it returns is by side, then by round.
func alternate(rounds int, sides ...turn) ([][]leg, error) {
	out := make([][]leg, len(sides))
	for round := range rounds + 1 {
		for i := range sides {
			if round%2 == 1 {
				i = len(sides) - 1 - i
			}
			l, err := sides[i]()
			if err != nil {
				return nil, err
			}
			if round > 0 {
				out[i] = append(out[i], l)
			}
		}
	}
	return out, nil
}

// The share of the processors that others may have in a leg of a round that counts, and how
// many rounds count whatever they had.
const (
	disturbed   = 0.25
	leastRounds = 3
)

// undisturbed leaves out the rounds in a leg of which other programs had more than a quarter of
// the processors, so far as that leaves three; else it takes the three quietest. What the
// legs themselves showed has no part in that.
func undisturbed(legs [][]leg) [][]leg {
	worst := make([]float64, len(legs[0]))
	for _, side := range legs {
		for i, l := range side {
			worst[i] = max(worst[i], l.others)
		}
	}
	sorted := slices.Sorted(slices.Values(worst))
	limit := max(disturbed, sorted[min(leastRounds, len(sorted))-1])
	out := make([][]leg, len(legs))
	for n, side := range legs {
		for i, l := range side {
			if worst[i] <= limit {
				out[n] = append(out[n], l)
			}
		}
	}
	return out
}

// rounds says in a heading how many count.
func rounds(legs [][]leg, all int) string {
	if len(legs[0]) == all {
		return fmt.Sprintf("median of %d rounds", all)
	}
	return fmt.Sprintf("median of the %d quietest of %d rounds", len(legs[0]), all)
}

// each is one figure of every leg.
func each(legs []leg, of func(leg) float64) (v []float64) {
	for _, l := range legs {
		v = append(v, of(l))
	}
	return v
}

func rates(legs []leg) []float64 { return each(legs, func(l leg) float64 { return l.rate }) }

// cpus is processor time of the daemon for an event, in nanoseconds.
func cpus(legs []leg) []float64 { return each(legs, leg.perEvent) }

// byVolume is the rate over all legs together. A median says nothing of what happens in few of
// them, such as the merging of tables.
func byVolume(legs []leg) float64 {
	var events, seconds float64
	for _, l := range legs {
		events += float64(l.events)
		seconds += float64(l.events) / l.rate
	}
	return events / seconds
}

// Percentiles of the legs in milliseconds.
func ackP50(l leg) float64 { return float64(l.ack.P50) / 1000 }
func ackP99(l leg) float64 { return float64(l.ack.P99) / 1000 }
func e2eP50(l leg) float64 { return float64(l.e2e.P50) / 1000 }
func e2eP99(l leg) float64 { return float64(l.e2e.P99) / 1000 }

// middleOf is the median over the legs.
func middleOf(legs []leg, of func(leg) float64) float64 { return median(each(legs, of)) }

// bareLeg is a run of the bare client.
func (l *lab) bareLeg(args ...string) turn {
	return func() (leg, error) {
		before := l.processors()
		r, err := l.bare(args...)
		return leg{rate: r.PerSecond, e2e: r.RTT, others: before.othersUntil(l.processors())}, err
	}
}

// floorLeg is a run of the log floor.
func (l *lab) floorLeg(n int) turn {
	return func() (leg, error) {
		before := l.processors()
		r, err := l.walFloor(n)
		return leg{rate: r.PerSecond, ack: r.Ack, others: before.othersUntil(l.processors())}, err
	}
}

// floodLeg sends events and waits until each has made so many deliveries to the streams
// whose path begins with streams.
func (l *lab) floodLeg(streams string, deliveries int64, args ...string) turn {
	return func() (leg, error) {
		if err := l.control("/_reset", nil, new(any)); err != nil {
			return leg{}, err
		}
		began := l.processors()
		before, err := l.usage()
		if err != nil {
			return leg{}, err
		}
		load, err := l.load(args...)
		if err != nil {
			return leg{}, err
		}
		g, err := l.waitGroup(streams, load.Acked*deliveries)
		if err != nil {
			return leg{}, err
		}
		time.Sleep(300 * time.Millisecond) // the last completions are committed within 10 ms
		after, err := l.usage()
		return leg{rate: perSecond(g.Unique, g.Last, load.StartUs), acks: load.PerSecond, ack: load.Ack, e2e: g.E2E, events: load.Acked,
			cpu: after.cpu - before.cpu, written: after.written - before.written, others: began.othersUntil(l.processors())}, err
	}
}

// flood is n events from 16 connections to the webhook of the measured deliveries.
func (l *lab) flood(n int) turn {
	return l.floodLeg(mainStream, 1, "-n", strconv.Itoa(n), "-c", "16")
}

// background is a sender that goes on until it is stopped.
type background struct {
	cmd  *exec.Cmd
	stop func() error
}

// sendOn starts a sender beside what is measured. stop ends it and waits for it; every one
// has to be stopped.
func (l *lab) sendOn(args ...string) (*background, error) {
	cmd, err := command(append([]string{"load", "-socket", l.socket(), "-until-eof", "-n", "99999999", "-max", "10m"}, args...)...)
	if err != nil {
		return nil, err
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &background{cmd: cmd, stop: func() error {
		_ = in.Close() // that is the sign to stop
		return cmd.Wait()
	}}, nil
}

// beside runs a side while a sender goes on.
func (l *lab) beside(lead time.Duration, measured turn, args ...string) turn {
	return func() (leg, error) {
		b, err := l.sendOn(args...)
		if err != nil {
			return leg{}, err
		}
		time.Sleep(lead)
		out, err := measured()
		if failed := b.stop(); err == nil {
			err = failed
		}
		return out, err
	}
}
