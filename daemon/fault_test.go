package main

import (
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/cli"
	"github.com/peanutsapp/peanuts-relay/internal/disktest"
	"github.com/peanutsapp/peanuts-relay/internal/testhost"
)

// ioErrors are errors of a disk that is otherwise well: of writing and of syncing, once
// and from then on, of the journal, of the database's files, and of any file.
func ioErrors() map[string]disktest.Fault {
	journal := func(path string) bool { return !strings.Contains(path, "/db/") }
	out := map[string]disktest.Fault{}
	for op, name := range map[disktest.Op]string{disktest.Writing: "writing", disktest.Syncing: "syncing"} {
		for times, often := range map[int]string{1: "once", 0: "for good"} {
			out[name+" the journal "+often] = disktest.Fault{Op: op, Times: times, Of: journal}
			out[name+" the database "+often] = disktest.Fault{Op: op, Times: times, Of: func(path string) bool { return !journal(path) }}
		}
		out[name+" anything once"] = disktest.Fault{Op: op, Times: 1}
	}
	return out
}

// From the first error of the disk on nothing is acknowledged and the daemon ends with the
// status for storage, also when the disk works again at once: what was written before may
// be gone, and nobody says what.
func TestAnIOErrorEndsTheDaemonAndLosesNothing(t *testing.T) {
	t.Parallel()
	for name, fault := range ioErrors() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rounds := times(t, "DAEMON_IO_ERRORS", 1)
			testhost.Cases(t, rounds)
			for range rounds {
				meetIOError(t, fault)
			}
		})
	}
}

func meetIOError(t *testing.T, fault disktest.Fault) {
	t.Helper()
	disk := disktest.NewFaulty(t)
	r := newReceiver(t)
	s := newSite(t, filepath.Join(disk.Dir, "data"), crashWebhooks(r))
	l := newLedger()
	var next, large atomic.Int64
	large.Store(largeEvents) // the database gets them at once
	p := s.up()
	stop, stopLarge := s.flood(l, &next, 6), s.flood(l, &large, 1)
	until(t, "events to be acknowledged", func() bool { return l.len() > 30 })
	disk.Fail(fault)
	// Of what was under way some answers may still come.
	const underWay = 50
	code, first := -2, -1
	until(t, "the end of the daemon", func() bool {
		select {
		case <-p.over:
			code = p.cmd.ProcessState.ExitCode()
			return true
		default:
		}
		if first < 0 && disk.Failed() > 0 {
			first = l.len()
		}
		return first >= 0 && l.len() > first+underWay
	})
	p.kill()
	acked := l.len()
	if code == -2 {
		t.Errorf("the daemon goes on after an error of the disk: %d events were acknowledged since", acked-first)
	} else if code != cli.ExitStorage || !strings.Contains(p.output(), "input/output error") {
		t.Errorf("ended with %d:\n%s", code, p.output())
	}
	t.Logf("ended with %d after %d errors, %d events were acknowledged before", code, disk.Failed(), acked)
	disk.Heal()
	disk.Unmount()
	disk.Mount()
	p = s.up()
	stop()
	stopLarge()
	s.repeats(l)
	s.settle()
	s.check(l, r, 4)
	p.stop()
	disk.Unmount()
	verifyStore(t, filepath.Join(disk.Behind, "data"))
}
