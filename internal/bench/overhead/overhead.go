// Package overhead measures what it costs to deliver through a plugin: a real queue
// with every commit on the disk, a real dispatcher and the real host with a real
// process, against the same sink in this process, called under the same limits and given
// what the contract of sinks promises: the entry taken apart and the signature headers.
// A third side, for information, gets neither and only counts. No sink does anything with
// a delivery but count it.
//
// What it guarantees: the sides alternate, plugin first in every other round, each on
// an empty queue of its own. Every delivery is counted twice, by the store as it became
// durable and by the sink itself; a leg in which one is lost, repeated or failed is an
// error and gives no figure. Nothing is left of a run: no process, no file.
package overhead

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"sync/atomic"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/dispatch"
	"github.com/peanutsapp/peanuts-relay/internal/pluginhost"
	"github.com/peanutsapp/peanuts-relay/internal/secret"
	"github.com/peanutsapp/peanuts-relay/internal/signing"
)

// Options are one comparison. Dir and Payload are required.
type Options struct {
	Dir     string                 // an existing directory on a real disk; what is written there is removed
	Payload func(event int) []byte // of an event, as the relay writes it; called anew for each event
	Logger  *slog.Logger           // nil discards

	Deliveries  int  // of one leg, over all webhooks; 0 = 40,000
	Rounds      int  // of one leg each side, after one that is not counted; 0 = 5
	Webhooks    int  // of the one plugin, at the same time; 0 = 1
	Batch       int  // deliveries in one call; less than 2 = each alone
	Concurrency int  // calls of a webhook at a time; 0 = 8, as a webhook that says nothing
	Flow        bool // events come in while they are delivered; else all wait in the queue beforehand
}

// Side is what one of them did. The medians are of the rounds.
type Side struct {
	PerSecond []float64     `json:"per_second"` // of each round, from the first attempt (Flow: the first event) to the last commit
	Median    float64       `json:"median"`
	CPU       time.Duration `json:"cpu_ns"`        // of the daemon for one delivery, of all rounds
	Plugin    time.Duration `json:"plugin_cpu_ns"` // the same of the plugin's process
}

// Report is what a comparison found.
type Report struct {
	Plugin     Side    `json:"plugin"`
	InProcess  Side    `json:"in_process"`  // the same sink in this process
	Bare       Side    `json:"bare"`        // one that is given nothing and counts
	Ratio      float64 `json:"ratio"`       // of Plugin and InProcess: the median of the ratios of the rounds
	Lowest     float64 `json:"lowest"`      // of the rounds
	BareRatio  float64 `json:"bare_ratio"`  // the same of Plugin and Bare
	BareLowest float64 `json:"bare_lowest"` // of the rounds
	Deliveries int64   `json:"deliveries"`  // counted, of all legs
}

// Run makes one comparison. The program must have called Play first in its main.
func Run(ctx context.Context, o Options) (r Report, err error) {
	o.defaults()
	l, err := newLab(ctx, o)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	for round := range o.Rounds + 1 {
		legs, err := l.round(ctx, round%2 == 0)
		if err != nil {
			return r, err
		}
		r.Deliveries += int64(len(legs)) * int64(l.perLeg())
		if round == 0 {
			continue // caches, connections and the plugin itself are cold
		}
		r.Plugin.add(legs[0])
		r.InProcess.add(legs[1])
		r.Bare.add(legs[2])
	}
	r.finish(o.Rounds * l.perLeg())
	return r, nil
}

func (o *Options) defaults() {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	for _, d := range []struct {
		field *int
		value int
	}{{&o.Deliveries, 40000}, {&o.Rounds, 5}, {&o.Webhooks, 1}, {&o.Batch, 1}, {&o.Concurrency, 8}} {
		if *d.field < 1 {
			*d.field = d.value
		}
	}
}

// lab is what all legs of a comparison share.
type lab struct {
	o       Options
	dir     string
	sockets string // the path of a socket has to be short
	host    *pluginhost.Host
	file    pluginhost.File
	signer  *signing.Signer
	held    *pluginhost.Plugin // keeps the process between legs
	limits  delivery.Limits    // of the plugin
	running atomic.Pointer[dispatch.Dispatcher]
}

func newLab(ctx context.Context, o Options) (l *lab, err error) {
	l = &lab{o: o}
	if l.dir, err = os.MkdirTemp(o.Dir, "overhead-"); err != nil {
		return nil, err
	}
	if l.sockets, err = os.MkdirTemp("", "overhead-"); err != nil {
		return nil, errors.Join(err, os.RemoveAll(l.dir))
	}
	l.host = pluginhost.New(pluginhost.Options{Logger: o.Logger, SocketDir: filepath.Join(l.sockets, "s"), Changed: l.recheck})
	if err := l.start(ctx); err != nil {
		return nil, errors.Join(err, l.close())
	}
	return l, nil
}

// start starts the plugin and asks how it wants to be called.
func (l *lab) start(ctx context.Context) (err error) {
	if l.file, err = install(l.dir, l.o.Batch); err != nil {
		return err
	}
	if l.signer, err = signing.New([]signing.Spec{{Scheme: signing.Peanuts}}, []secret.String{secret.New("a-secret-of-the-benchmark")}); err != nil {
		return err
	}
	if l.held, err = l.host.Inspect(ctx, l.file); err != nil {
		return err
	}
	first, err := l.pluginSink(ctx, 0)
	if err != nil {
		return err
	}
	l.limits = first.Limits()
	first.Close()
	_, _, err = first.counts(ctx)
	return err
}

// recheck tells the dispatcher of the leg that the plugin's state has changed.
func (l *lab) recheck() {
	if d := l.running.Load(); d != nil {
		d.Recheck()
	}
}

// close ends the plugin and removes what was written.
func (l *lab) close() error {
	if l.held != nil {
		l.held.Release()
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return errors.Join(l.host.Stop(ctx), os.RemoveAll(l.dir), os.RemoveAll(l.sockets))
}

// round is one leg of each side: the plugin, the same in this process, the bare one.
func (l *lab) round(ctx context.Context, pluginFirst bool) (legs [3]leg, err error) {
	sides := []struct {
		name string
		sink func(context.Context, int) (counted, error)
		into *leg
	}{{"plugin", l.pluginSink, &legs[0]}, {"in_process", l.contractSink, &legs[1]}, {"bare", l.ownSink, &legs[2]}}
	if !pluginFirst {
		slices.Reverse(sides)
	}
	for _, s := range sides {
		pprof.Do(ctx, pprof.Labels("side", s.name), func(ctx context.Context) { // a profile tells the sides apart by it
			if err == nil {
				*s.into, err = l.leg(ctx, s.sink)
			}
		})
	}
	return legs, err
}

func (s *Side) add(l leg) {
	s.PerSecond = append(s.PerSecond, l.perSecond)
	s.CPU += l.cpu
	s.Plugin += l.plugin
}

// finish makes medians, and shares of what was added up.
func (r *Report) finish(deliveries int) {
	r.Ratio, r.Lowest = ratio(r.Plugin.PerSecond, r.InProcess.PerSecond)
	r.BareRatio, r.BareLowest = ratio(r.Plugin.PerSecond, r.Bare.PerSecond)
	for _, s := range []*Side{&r.Plugin, &r.InProcess, &r.Bare} {
		s.Median = median(s.PerSecond)
		s.CPU /= time.Duration(deliveries)
		s.Plugin /= time.Duration(deliveries)
	}
}

// ratio is the median of the ratios of the rounds, and the lowest.
func ratio(a, b []float64) (middle, lowest float64) {
	ratios := make([]float64, len(a))
	for n := range ratios {
		ratios[n] = a[n] / b[n]
	}
	return median(ratios), slices.Min(ratios)
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// perLeg is how many deliveries a leg makes: the same number for each webhook.
func (l *lab) perLeg() int { return l.events() * l.o.Webhooks }

func (l *lab) events() int { return max(1, l.o.Deliveries/l.o.Webhooks) }

func webhook(n int) string { return fmt.Sprintf("bench.w%d", n) }
