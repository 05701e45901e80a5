package web

import (
	"fmt"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

// Sizes of a chart in its own units: each minute is 10 wide; the page stretches it.
const (
	minuteWide = 10.0
	chartTall  = 100.0
)

// chart is the minutes of a webhook as bars.
type chart struct {
	Wide, Tall                 float64
	Delivered, Retried, Failed uint32 // in all minutes
	Most                       uint32 // attempts in one minute, at the top of the chart
	Longest                    rest.Millis
	Mean                       rest.Millis // of all attempts
	From, To                   rest.Time
	Bars                       []bar
}

// bar is one minute. Heights are in units of the chart; a part that is there is always
// tall enough to be seen.
type bar struct {
	rest.Minute
	X, Wide         float64
	Good, Late, Bad part // from the bottom up
	Avg, Max        part
	Some            bool
	Words           string
}

type part struct{ Y, Tall float64 }

func newChart(minutes []rest.Minute) chart {
	c := chart{Wide: minuteWide * float64(len(minutes)), Tall: chartTall}
	var total time.Duration
	for _, m := range minutes {
		n := m.Delivered + m.Retried + m.Failed
		c.Delivered, c.Retried, c.Failed = c.Delivered+m.Delivered, c.Retried+m.Retried, c.Failed+m.Failed
		c.Most, c.Longest = max(c.Most, n), max(c.Longest, m.Max)
		total += time.Duration(m.Mean) * time.Duration(n)
	}
	if n := c.All(); n > 0 {
		c.Mean = rest.Millis(total / time.Duration(n))
	}
	for i, m := range minutes {
		b := bar{Minute: m, X: float64(i)*minuteWide + 1, Wide: minuteWide - 2, Some: m.Delivered+m.Retried+m.Failed > 0}
		y := chartTall
		for _, p := range []struct {
			part *part
			n    uint32
		}{{&b.Good, m.Delivered}, {&b.Late, m.Retried}, {&b.Bad, m.Failed}} {
			tall := height(float64(p.n), float64(c.Most))
			y = max(0, y-tall)
			*p.part = part{y, tall}
		}
		avg, longest := height(float64(m.Mean), float64(c.Longest)), height(float64(m.Max), float64(c.Longest))
		b.Avg, b.Max = part{chartTall - avg, avg}, part{chartTall - longest, longest}
		b.Words = fmt.Sprintf("%s: %d delivered, %d to be retried, %d failed; on average %s, at most %s",
			m.At.UTC().Format("15:04"), m.Delivered, m.Retried, m.Failed, shortly(m.Mean), shortly(m.Max))
		c.Bars = append(c.Bars, b)
	}
	if n := len(minutes); n > 0 {
		c.From, c.To = minutes[0].At, minutes[n-1].At
	}
	return c
}

// All is the attempts of all minutes.
func (c chart) All() uint32 { return c.Delivered + c.Retried + c.Failed }

// height is that of n where most is the whole chart: at least 3, when there is any.
func height(n, most float64) float64 {
	if n <= 0 || most <= 0 {
		return 0
	}
	return max(3, float64(int(n/most*chartTall*10))/10)
}

// phase is a part of the time of an attempt.
type phase struct {
	Name    string
	Class   string
	Took    rest.Millis
	X, Wide float64 // in hundredths of the whole
}

// phases are the parts of the time of an attempt that took any.
func phases(a *rest.Attempt) (out []phase) {
	all := []phase{{Name: "DNS", Class: "dns", Took: a.Phases.DNS}, {Name: "connect", Class: "connect", Took: a.Phases.Connect},
		{Name: "TLS", Class: "tls", Took: a.Phases.TLS}, {Name: "waiting for the answer", Class: "wait", Took: a.Phases.FirstByte}}
	rest := a.Duration
	for _, p := range all {
		rest -= p.Took
	}
	all = append(all, phase{Name: "the rest", Class: "rest", Took: max(0, rest)})
	at := 0.0
	for _, p := range all {
		if p.Took <= 0 || a.Duration <= 0 {
			continue
		}
		p.X, p.Wide = at, min(100-at, float64(p.Took)/float64(a.Duration)*100)
		at += p.Wide
		out = append(out, p)
	}
	return out
}
