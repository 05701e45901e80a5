package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

const (
	manyDropIns = 500
	// burst is how long putting the files there may take for them to be one
	// change: the watcher waits this long after the first.
	burst = 250 * time.Millisecond
	// bursts is how often it is tried on a machine that is too busy for that.
	bursts = 10
)

// applied are the configurations in the history, newest first.
func (s *site) applied() []rest.ConfigEntry {
	s.t.Helper()
	list, err := s.admin.ConfigHistory(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	var out []rest.ConfigEntry
	for _, e := range list.Entries {
		if e.Result == rest.ReloadApplied {
			out = append(out, e)
		}
	}
	return out
}

// settled waits until what runs is what change made of the files, and returns how
// many configurations ran since. ok is false when change took too long to be one.
func (s *site) settled(webhooks int, change func()) (ran uint64, ok bool) {
	s.t.Helper()
	before, began := s.generation(), time.Now()
	change()
	took := time.Since(began)
	until(s.t, fmt.Sprintf("%d webhooks", webhooks), func() bool {
		list, err := s.admin.Webhooks(s.t.Context())
		if err != nil {
			s.t.Fatal(err)
		}
		active := 0
		for _, w := range list.Webhooks {
			if w.HeldReason != "removed" {
				active++
			}
		}
		return active == webhooks
	})
	// A reload comes after the one that is under way, its record included.
	if _, err := s.admin.Reload(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	return s.generation() - before, took < burst
}

func TestABurstOfDropInsIsOneReload(t *testing.T) {
	t.Parallel()
	r := newReceiver(t)
	s, l := newSite(t, "", fmt.Sprintf("      ok: {url: \"%s/ok\"}\n", r.URL)), newLedger()
	dir, aside := filepath.Join(s.dir, "conf.d"), filepath.Join(s.dir, "aside")
	for _, d := range []string{dir, aside} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	name := func(dir string, n int) string { return filepath.Join(dir, fmt.Sprintf("%03d.yaml", n)) }
	for n := range manyDropIns {
		text := fmt.Sprintf("helpers: {crash: {webhooks: {w%03d: {url: %q, events: [delete]}}}}\n", n, r.URL+"/ok")
		if err := os.WriteFile(name(aside, n), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	move := func(from, to string) func() {
		return func() {
			for n := range manyDropIns {
				if err := os.Rename(name(from, n), name(to, n)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	s.up()
	added, removed := false, false
	for range bursts {
		ran, ok := s.settled(1+manyDropIns, move(aside, dir))
		if newest := s.applied()[0]; ok {
			added = true
			if ran != 1 || newest.Trigger != rest.TriggerWatch || len(newest.Changes) != manyDropIns || newest.Changes[0].Change != rest.ChangeAdded {
				t.Errorf("%d reloads of %d files, the newest by %s with %d changes", ran, manyDropIns, newest.Trigger, len(newest.Changes))
			}
		}
		ran, ok = s.settled(1, move(dir, aside))
		if newest := s.applied()[0]; ok {
			removed = true
			if ran != 1 || len(newest.Changes) != manyDropIns || newest.Changes[0].Change != rest.ChangeRemoved {
				t.Errorf("%d reloads of %d files less, the newest with %d changes", ran, manyDropIns, len(newest.Changes))
			}
		}
		if added && removed {
			break
		}
	}
	if !added || !removed {
		t.Skipf("moving %d files took longer than %v each of %d times", manyDropIns, burst, bursts)
	}
	if st, err := s.admin.Status(t.Context()); err != nil || st.Config.State != rest.ConfigCurrent || st.State != rest.StateOK {
		t.Errorf("afterwards the daemon says %s %s %v, %v", st.State, st.Config.State, strings.Join(st.Reasons, "; "), err)
	}
	if status := s.send(t.Context(), l, 2); status != http.StatusAccepted {
		t.Errorf("an event was answered %d", status)
	}
	until(t, "the delivery", func() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.total == 1 })
}
