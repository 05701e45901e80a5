package main

import (
	"fmt"
	"math"
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
	r.heading("Idle")
	r.add("anonymous memory", "%.0f MiB", most(" MiB", 48, 24), mib(after.anonymous))
	r.add("processor", "%.3f %%", most(" %", 0.5, 0.1), 100*float64(after.cpu-before.cpu)/float64(n.idle))
	return nil
}

func mib(b int64) float64 { return float64(b) / (1 << 20) }

// micros is a number of nanoseconds in microseconds.
func micros(ns float64) float64 { return ns / 1000 }

// warmed starts the daemon on an empty queue and warms it up.
func (l *lab) warmed() error {
	if err := l.fresh(); err != nil {
		return err
	}
	return l.warm()
}

func measureFlood(l *lab, n sizes, r *report) error {
	if err := l.warmed(); err != nil {
		return err
	}
	defer l.stopDaemon(syscall.SIGTERM)
	peak := l.watchPeak()
	legs, err := alternate(n.rounds, l.floorLeg(n.floor), l.flood(n.flood), l.bareLeg("-n", strconv.Itoa(n.bare)))
	top := peak()
	if err != nil {
		return err
	}
	var written, events int64
	for _, x := range legs[1] {
		written, events = written+x.written, events+x.events
	}
	legs = undisturbed(legs)
	floor, flood, bare := legs[0], legs[1], legs[2]
	acks := each(flood, func(l leg) float64 { return l.acks })
	r.heading("Flat out, 16 connections, " + rounds(legs, n.rounds))
	r.tell("bare net/http client, 64 in flight", "%.0f/s", median(rates(bare)))
	r.tell("log floor, 16 writers", "%.0f/s", median(rates(floor)))
	r.tell("durable acks/s, deliveries running", "%.0f/s", median(acks))
	r.compare("  divided by the log floor; lowest", least("", 0.3, 0.5), ratios(acks, rates(floor)))
	r.add("ack p50 / p99, ms", "%.2f / %.2f", mostOf([2]float64{2, 12}, [2]float64{1, 5}), middleOf(flood, ackP50), middleOf(flood, ackP99))
	r.tell("delivered/s, everything fsynced", "%.0f/s", median(rates(flood)))
	r.compare("  divided by the bare client; lowest", least("", 0.25, 0.4), ratios(rates(flood), rates(bare)))
	r.add("processor time per event, daemon only", "%.0f µs", most(" µs", 200, 80), micros(median(cpus(flood))))
	r.add("bytes written per event, history included, of all legs", "%.0f", most("", 6144, 2048), float64(written)/float64(max(1, events)))
	r.add("anonymous memory, peak", "%.0f MiB", most(" MiB", 128, 96), mib(top.anonymous))
	return nil
}

const tlsStream = "/ok/tls"

// measureTLS does the same over TLS: connections are kept, as by the bare client.
func measureTLS(l *lab, n sizes, r *report) error {
	helper := fmt.Sprintf("  tls:\n    secret: %s\n    webhooks: {main: {url: \"https://%s%s\", concurrency: 64, tls: {ca: %q}}}\n", l.secret, l.tlsAddr, tlsStream, l.caFile)
	return l.with("", helper, func() error {
		if err := l.fresh(); err != nil {
			return err
		}
		defer l.stopDaemon(syscall.SIGTERM)
		bare := l.bareLeg("-n", strconv.Itoa(n.bare), "-url", "https://"+l.tlsAddr+"/ok/bare", "-ca", l.caFile)
		legs, err := alternate(n.rounds, l.floodLeg(tlsStream, 1, "-n", strconv.Itoa(n.flood), "-c", "16", "-helper", "tls"), bare)
		if err != nil {
			return err
		}
		legs = undisturbed(legs)
		r.heading("Over TLS, flat out, " + rounds(legs, n.rounds))
		r.tell("bare net/http client over TLS, 64 in flight", "%.0f/s", median(rates(legs[1])))
		r.tell("delivered/s over TLS, everything fsynced", "%.0f/s", median(rates(legs[0])))
		r.compare("  divided by the bare client over TLS; lowest", least("", math.NaN(), 0.45), ratios(rates(legs[0]), rates(legs[1])))
		return nil
	})
}

func measureRate(l *lab, n sizes, r *report) error {
	if err := l.warmed(); err != nil {
		return err
	}
	defer l.stopDaemon(syscall.SIGTERM)
	var relay, bare []leg
	for range 2 {
		for _, s := range []struct {
			into *[]leg
			side turn
		}{
			{&bare, l.bareLeg("-n", strconv.Itoa(n.rate/2), "-rate", "500", "-c", "16")},
			{&relay, l.floodLeg(mainStream, 1, "-n", strconv.Itoa(n.rate), "-rate", "500", "-c", "16")},
		} {
			x, err := s.side()
			if err != nil {
				return err
			}
			*s.into = append(*s.into, x)
		}
	}
	r.heading("500 events/s, mean of 2 legs")
	r.add("end to end p50 / p99, ms", "%.2f / %.2f", mostOf([2]float64{1.5, 20}, [2]float64{0.6, 4}), middleOf(relay, e2eP50), middleOf(relay, e2eP99))
	r.tell("  bare client, p50 / p99, ms", "%.2f / %.2f", middleOf(bare, e2eP50), middleOf(bare, e2eP99))
	return nil
}

func measureNDJSON(l *lab, n sizes, r *report) error {
	if err := l.warmed(); err != nil {
		return err
	}
	defer l.stopDaemon(syscall.SIGTERM)
	accept := func() (leg, error) {
		x, err := l.load("-n", strconv.Itoa(n.accepted), "-c", "4", "-ndjson", "-helper", "quiet")
		return leg{rate: x.PerSecond}, err
	}
	deliver := l.floodLeg(mainStream, 1, "-n", strconv.Itoa(n.streamed), "-c", "4", "-ndjson")
	accepted, err := alternate(n.legs, accept)
	if err != nil {
		return err
	}
	if err := l.rested(); err != nil { // merging what was accepted is not part of delivering
		return err
	}
	legs, err := alternate(n.rounds, deliver, l.bareLeg("-n", strconv.Itoa(n.bare)))
	if err != nil {
		return err
	}
	legs = undisturbed(legs)
	r.heading("NDJSON, 4 clients, " + rounds(legs, n.rounds))
	r.add("accepted/s, no delivery", "%.0f/s", least("", 40000, 100000), median(rates(accepted[0])))
	r.tell("delivered/s, deliveries running", "%.0f/s", median(rates(legs[0])))
	r.compare("  divided by the bare client; lowest", least("", 0.5, 0.75), ratios(rates(legs[0]), rates(legs[1])))
	return nil
}
