//go:build linux

package main

import (
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/adminclient"
	"github.com/peanutsapp/peanuts-relay/internal/cli"
	"github.com/peanutsapp/peanuts-relay/internal/disktest"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
	"github.com/peanutsapp/peanuts-relay/internal/testhost"
)

const (
	diskSize = 500 << 20
	// The site's min_free, and half of it: the marks for accepting and for
	// delivering.
	acceptMark   = 128 << 20
	dispatchMark = acceptMark / 2
)

// A power cut keeps what was synced and nothing else, which a kill does not
// show: after a kill the kernel still writes everything.
func TestNothingAcknowledgedIsLostByAPowerCut(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"ext4", "xfs"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			disk := disktest.New(t, kind, "", diskSize)
			r := newReceiver(t)
			s := newSite(t, filepath.Join(disk.Dir, "queue", "data"), crashWebhooks(r))
			l := newLedger()
			var next atomic.Int64
			cuts := times(t, "DAEMON_POWER_CUTS", 2)
			for i := range cuts {
				p := s.up()
				s.repeats(l)
				stop := s.flood(l, &next, 8)
				want := l.len() + 50
				until(t, "events to be acknowledged", func() bool { return l.len() > want })
				disk.CutUnder(p.cmd.Process)
				p.kill()
				disk.Unmount()
				disk.Mount()
				p = s.up()
				stop()
				if i == cuts-1 {
					s.settle()
					s.repeats(l)
					s.check(l, r, 4)
				}
				p.stop()
			}
			verifyStore(t, s.data)
			testhost.Cases(t, cuts)
		})
	}
}

func (s *site) status() rest.Status {
	s.t.Helper()
	st, err := s.admin.Status(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return st
}

func (s *site) ready() bool {
	h, err := s.admin.Ready(s.t.Context())
	return err == nil && h.OK
}

// retry brings a delivery back as an operator does: while it is being attempted, it
// is asked for again.
func (s *site) retry(id string) {
	s.t.Helper()
	until(s.t, "the end of an attempt", func() bool {
		_, err := s.admin.Retry(s.t.Context(), id)
		if e, ok := errors.AsType[*adminclient.Error](err); ok && e.Code == rest.CodeInFlight {
			return false
		}
		if err != nil {
			s.t.Fatal(err)
		}
		return true
	})
}

func TestAFullDiskRefusesPausesAndRecoversByItself(t *testing.T) {
	t.Parallel()
	disk := disktest.New(t, "ext4", "", diskSize, "-m", "0")
	r := newReceiver(t)
	s := newSite(t, filepath.Join(disk.Dir, "data"), crashWebhooks(r))
	l := newLedger()
	var next atomic.Int64
	p := s.up()
	s.answers(l, &next, http.StatusAccepted)
	s.settle()

	some := disktest.Fill(t, disk.Dir, acceptMark-16<<20)
	s.answers(l, &next, http.StatusInsufficientStorage)
	if s.ready() || s.status().State != rest.StateDegraded {
		t.Errorf("a daemon that refuses says that it is well: %+v", s.status())
	}
	waiting := l.acked[1].Deliveries[3].ID
	s.retry(waiting)
	until(t, "the attempt", func() bool { return r.attempts(waiting) >= 2 }) // between the marks what was accepted is delivered

	more := disktest.Fill(t, disk.Dir, dispatchMark-16<<20)
	until(t, "deliveries to pause", func() bool {
		s.retry(waiting) // the outcome is what makes the daemon look
		return s.status().Webhooks[0].HeldReason == "storage"
	})
	p.waitLine("deliveries pause")
	s.retry(waiting)
	before := r.attempts(waiting)
	if st := s.status(); st.Webhooks[0].HeldReason != "storage" {
		t.Errorf("while the disk is full: %+v", st.Webhooks)
	}
	if got := r.attempts(waiting); got != before {
		t.Errorf("%d attempts while deliveries pause", got-before)
	}
	more()
	some()
	p.waitLine("deliveries resume")
	until(t, "the attempt", func() bool { return r.attempts(waiting) > before })
	s.answers(l, &next, http.StatusAccepted)
	until(t, "readiness", s.ready)
	s.settle()
	s.check(l, r, 4)
	p.stop()
	verifyStore(t, s.data)
}

// Many large events at once leave less time than there is between two looks at the
// disk.
func TestADaemonThatFillsItsOwnDiskRefusesInTime(t *testing.T) {
	t.Parallel()
	disk := disktest.New(t, "ext4", "", 200<<20, "-m", "0")
	r := newReceiver(t)
	s := newSite(t, filepath.Join(disk.Dir, "data"), fmt.Sprintf("      ok: {url: %q}\n", r.URL+"/ok"))
	l := newLedger()
	var next atomic.Int64
	next.Store(largeEvents)
	p := s.up()
	var senders sync.WaitGroup
	for range 8 {
		senders.Go(func() {
			for status := 0; status != http.StatusInsufficientStorage; {
				status = s.send(t.Context(), l, int(next.Add(1)))
				if status != http.StatusAccepted && status != http.StatusInsufficientStorage {
					l.complain("answered %d while the disk fills up", status)
					return
				}
			}
		})
	}
	senders.Wait()
	s.settle()
	s.check(l, r, 1)
	p.stop()
	verifyStore(t, s.data)
}

func (r *receiver) attempts(id string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a := r.seen[id]; a != nil {
		return a.attempts
	}
	return 0
}

func TestADaemonThatStartsWithoutSpaceWaitsForIt(t *testing.T) {
	t.Parallel()
	type fill func(t *testing.T, dir string) (release func())
	for name, full := range map[string]fill{
		"no bytes":  func(t *testing.T, dir string) func() { return disktest.Fill(t, dir, 0) },
		"no inodes": func(t *testing.T, dir string) func() { return disktest.FillInodes(t, dir, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			disk := disktest.New(t, "ext4", "", diskSize, "-m", "0", "-N", "1500")
			r := newReceiver(t)
			s := newSite(t, filepath.Join(disk.Dir, "queue", "data"), crashWebhooks(r))
			l := newLedger()
			var next atomic.Int64
			// Once before there is a store, once with one that is in use.
			for range 2 {
				release := full(t, disk.Dir)
				p := s.start()
				p.waitLine("queue is not opened until there is space")
				if got := s.send(t.Context(), l, int(next.Add(1))); got != http.StatusInsufficientStorage {
					t.Errorf("an event was answered %d", got)
				}
				if st := s.status(); s.ready() || st.State != rest.StateDegraded || len(st.Reasons) == 0 {
					t.Errorf("%+v", st)
				}
				release()
				p.waitLine("msg=ready")
				s.answers(l, &next, http.StatusAccepted)
				s.settle()
				s.check(l, r, 4)
				p.stop()
			}
			verifyStore(t, s.data)
		})
	}
}

func TestInodesThatRunOutRefuseAndRecoverByThemselves(t *testing.T) {
	t.Parallel()
	disk := disktest.New(t, "ext4", "", diskSize, "-m", "0", "-N", "1500")
	r := newReceiver(t)
	s := newSite(t, filepath.Join(disk.Dir, "data"), crashWebhooks(r))
	l := newLedger()
	var next atomic.Int64
	p := s.up()
	s.answers(l, &next, http.StatusAccepted)
	release := disktest.FillInodes(t, disk.Dir, 600)
	s.answers(l, &next, http.StatusInsufficientStorage)
	release()
	s.answers(l, &next, http.StatusAccepted)
	s.settle()
	s.check(l, r, 4)
	p.stop()
	verifyStore(t, s.data)
}

// From the first error of the disk on nothing is acknowledged, the process ends, and
// the next one has everything. A disk that takes no new block seems well until
// something is synced: the daemon hears of it and ends with the status for
// storage. One that is gone may also end the process by a signal, because the
// database writes through memory maps.
func TestAStorageErrorEndsTheDaemonAndLosesNothing(t *testing.T) {
	t.Parallel()
	const backing = 400 << 20
	for name, c := range map[string]struct {
		fail   func(t *testing.T, memory string, disk *disktest.Disk) (repair func())
		status []int // -1 is a signal, 2 how the Go runtime ends on one
	}{
		"no block can be written": {func(t *testing.T, memory string, _ *disktest.Disk) func() {
			return disktest.Fill(t, memory, 0)
		}, []int{cli.ExitStorage}},
		"the disk is gone": {func(_ *testing.T, _ string, disk *disktest.Disk) func() {
			disk.Cut()
			return func() {}
		}, []int{cli.ExitStorage, 2, -1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			failures := times(t, "DAEMON_STORAGE_ERRORS", 1)
			testhost.Cases(t, failures)
			for range failures {
				memory := disktest.Memory(t, backing)
				disk := disktest.New(t, "ext4", memory, diskSize, "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1", "-J", "size=4")
				r := newReceiver(t)
				s := newSite(t, filepath.Join(disk.Dir, "data"), crashWebhooks(r))
				l := newLedger()
				var next atomic.Int64
				p := s.up()
				stop := s.flood(l, &next, 8)
				until(t, "events to be acknowledged", func() bool { return l.len() > 30 })
				repair := c.fail(t, memory, disk)
				code := p.wait()
				if !slices.Contains(c.status, code) {
					t.Errorf("ended with %d:\n%s", code, p.output())
				}
				t.Logf("ended with %d, %d events were acknowledged before", code, l.len())
				repair()
				disk.Unmount()
				disk.Mount()
				p = s.up()
				stop()
				s.repeats(l)
				s.settle()
				s.check(l, r, 4)
				p.stop()
				verifyStore(t, s.data)
				disk.Unmount()
			}
		})
	}
}
