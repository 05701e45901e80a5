// Package overhead measures what it costs to deliver through a plugin: a real queue
// with every commit on the disk, a real dispatcher and the real host with a real
// process, against a sink in the same process that is called under the same limits.
// Neither does anything with a delivery but count it.
//
// What it guarantees: both sides alternate, plugin first in every other round, each on
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

// Side is what one of both did. The medians are of the rounds.
type Side struct {
	PerSecond []float64     `json:"per_second"` // of each round, from the first attempt (Flow: the first event) to the last commit
	Median    float64       `json:"median"`
	CPU       time.Duration `json:"cpu_ns"`        // of the daemon for one delivery, of all rounds
	Plugin    time.Duration `json:"plugin_cpu_ns"` // the same of the plugin's process
}

// Report is what a comparison found.
type Report struct {
	Plugin     Side    `json:"plugin"`
	InProcess  Side    `json:"in_process"`
	Ratio      float64 `json:"ratio"`      // the median of the ratios of the rounds
	Lowest     float64 `json:"lowest"`     // of the rounds
	Deliveries int64   `json:"deliveries"` // counted, of all legs
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
		plugin, inProcess, err := l.round(ctx, round%2 == 0)
		if err != nil {
			return r, err
		}
		r.Deliveries += 2 * int64(l.perLeg())
		if round == 0 {
			continue // caches, connections and the plugin itself are cold
		}
		r.Plugin.add(plugin)
		r.InProcess.add(inProcess)
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

// round is one leg of each side.
func (l *lab) round(ctx context.Context, pluginFirst bool) (plugin, inProcess leg, err error) {
	legs := []func(){
		func() { // a profile tells the sides apart by the label
			pprof.Do(ctx, pprof.Labels("side", "plugin"), func(ctx context.Context) {
				if err == nil {
					plugin, err = l.leg(ctx, l.pluginSink)
				}
			})
		},
		func() {
			pprof.Do(ctx, pprof.Labels("side", "in_process"), func(ctx context.Context) {
				if err == nil {
					inProcess, err = l.leg(ctx, l.ownSink)
				}
			})
		},
	}
	if !pluginFirst {
		slices.Reverse(legs)
	}
	for _, leg := range legs {
		leg()
	}
	return plugin, inProcess, err
}

func (s *Side) add(l leg) {
	s.PerSecond = append(s.PerSecond, l.perSecond)
	s.CPU += l.cpu
	s.Plugin += l.plugin
}

// finish makes medians, and shares of what was added up.
func (r *Report) finish(deliveries int) {
	ratios := make([]float64, len(r.Plugin.PerSecond))
	for n := range ratios {
		ratios[n] = r.Plugin.PerSecond[n] / r.InProcess.PerSecond[n]
	}
	r.Ratio, r.Lowest = median(ratios), slices.Min(ratios)
	for _, s := range []*Side{&r.Plugin, &r.InProcess} {
		s.Median = median(s.PerSecond)
		s.CPU /= time.Duration(deliveries)
		s.Plugin /= time.Duration(deliveries)
	}
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// perLeg is how many deliveries a leg makes: the same number for each webhook.
func (l *lab) perLeg() int { return l.events() * l.o.Webhooks }

func (l *lab) events() int { return max(1, l.o.Deliveries/l.o.Webhooks) }

func webhook(n int) string { return fmt.Sprintf("bench.w%d", n) }
