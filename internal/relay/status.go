package relay

import (
	"cmp"
	"crypto/rand"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/event"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

// status is what only the composition root knows of the daemon.
func (r *relay) status() rest.Status {
	s := rest.Status{
		Version:   r.Version,
		Commit:    r.Commit,
		GoVersion: runtime.Version(),
		PID:       os.Getpid(),
		StartedAt: rest.At(r.started),
		Config:    rest.Config{Path: r.Path, State: rest.ConfigCurrent},
		Listen:    rest.Listen{Events: r.boot.Listen.Events, Admin: r.boot.Listen.Admin, Web: r.webAddress(), Metrics: r.boot.Listen.Metrics},
		Queue:     rest.Queue{Dir: r.boot.Queue.Dir, MaxBytes: r.boot.Queue.MaxBytes},
	}
	s.Plugins = r.plugins()
	if snap := r.current.Load(); snap.cfg != nil {
		s.Queue.MaxBytes = snap.cfg.Queue.MaxBytes
	}
	if l := r.reloader.Load(); l != nil {
		s.Config = l.Status()
		if degraded := l.Degraded(); degraded != "" {
			s.Reasons = append(s.Reasons, degraded)
		}
	} else if r.invalid != nil { // it may wait for space for long
		s.Config.State, s.Config.Generation = rest.ConfigLastKnownGood, r.LastKnownGood
		s.Reasons = append(s.Reasons, "the configuration files are not valid, so the last known good configuration is being started: "+r.invalid.Error())
	}
	for _, side := range []*sideListener{r.web, r.metrics} {
		if err := side.problem(); err != nil {
			s.Reasons = append(s.Reasons, side.key+" is not served: "+err.Error())
		}
	}
	switch err := r.ready(); {
	case r.stopping.Load():
		s.State = rest.StateStopping
	case err != nil:
		s.Reasons = append(s.Reasons, err.Error())
	}
	return s
}

// ready says why events are not taken; nil = they are.
func (r *relay) ready() error {
	if r.stopping.Load() {
		return errStopping
	}
	return r.gate.Load().err
}

func (r *relay) ingestStatus() rest.Ingest {
	m := r.ingest.Metrics()
	out := rest.Ingest{Accepted: uint64(m.Accepted), Duplicates: uint64(m.Duplicates), Unstable: uint64(m.Unstable)}
	for _, reason := range slices.Sorted(maps.Keys(m.Rejected)) {
		out.Rejected = append(out.Rejected, rest.Rejected{Reason: reason, Count: uint64(m.Rejected[reason])})
	}
	return out
}

// sample makes what a test of a webhook sends: an event fitted to the helper's
// fields, marked by ids that begin with test_.
func (r *relay) sample(webhook, eventType string) (*delivery.Outbound, error) {
	snap := r.current.Load()
	w, ok := snap.webhooks[webhook]
	if !ok {
		return nil, fmt.Errorf("webhook %q is not configured", webhook)
	}
	h := snap.helper(w.Helper.ID)
	first := event.Created
	if len(w.Events) > 0 {
		first = w.Events[0]
	}
	eventType = cmp.Or(eventType, first)
	unique := strings.ToLower(rand.Text())[:16]
	in := event.Sample(&h.Helper, eventType, "test_"+unique, time.Now())
	if err := in.Check(&h.Helper); err != nil {
		return nil, err
	}
	eventID := "evt_test_" + unique
	payload, _ := event.Encode(nil, in, &h.Helper, w.PayloadFormat(), eventID)
	return &delivery.Outbound{DeliveryID: "del_test_" + unique, EventID: eventID, EventType: eventType, EntryID: in.EntryID,
		Webhook: webhook, Attempt: 1, Test: true, Payload: payload}, nil
}
