package main

import (
	"bufio"
	"errors"
	"strings"
	"testing"
	"time"
)

func steady() []soakLine {
	lines := make([]soakLine, 10)
	for i := range lines {
		lines[i] = soakLine{rate: 2000, ack: summary{P50: 1000, P99: 5000}, e2e: summary{P50: 2000, P99: 1e6},
			anonymous: 80 << 20, files: 100, disk: int64(i%5+1) * (100 << 20), pending: 100}
	}
	return lines
}

func TestASoakFailsByWhatGrewAndNothingElse(t *testing.T) {
	if err := judge(steady()); err != nil {
		t.Errorf("steady: %v", err)
	}
	if err := judge(steady()[:1]); err != nil {
		t.Errorf("too few lines to tell: %v", err)
	}
	if err := judge(nil); err == nil {
		t.Error("nothing at all is no error")
	}
	for name, change := range map[string]func(*soakLine){
		"anonymous memory grew from ": func(s *soakLine) { s.anonymous = 116<<20 + 1 },
		"descriptors grew from ":      func(s *soakLine) { s.files = 158 },
		"ack p50 grew from ":          func(s *soakLine) { s.ack.P50 = 3501 },
		"ack p99 grew from ":          func(s *soakLine) { s.ack.P99 = 20_001 },
		"end to end p50 grew from ":   func(s *soakLine) { s.e2e.P50 = 5001 },
		"end to end p99 grew from ":   func(s *soakLine) { s.e2e.P99 = 2_500_001 },
		"pending grew from ":          func(s *soakLine) { s.pending = 701 },
	} {
		lines := steady()
		change(&lines[0]) // while caches fill
		change(&lines[9])
		if err := judge(lines); err != nil {
			t.Errorf("%s, one line: %v", name, err)
		}
		lines = steady()
		change(&lines[8])
		change(&lines[9])
		err := judge(lines)
		if err == nil || !strings.HasPrefix(err.Error(), name) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestASoakFailsWhenItsRateIsNotHeld(t *testing.T) {
	lines := steady()
	for i := range lines[:5] {
		lines[i].rate = 1950
	}
	if err := judge(lines); err == nil || err.Error() != "1975 events/s instead of 2000" {
		t.Errorf("%v", err)
	}
}

func TestASoakFailsWhenTheDiskIsNotGivenBackOrGrows(t *testing.T) {
	kept := steady()
	for i := range kept[5:] {
		kept[5+i].disk = 500<<20 + 1<<20
	}
	if err := judge(kept); err == nil || !strings.HasPrefix(err.Error(), "the disk was not given back: ") {
		t.Errorf("never lower: %v", err)
	}
	more := steady()
	more[9].disk = 500<<20*5/4 + 32<<20 + 1
	if err := judge(more); err == nil || !strings.HasPrefix(err.Error(), "the disk grew from ") {
		t.Errorf("more at the end: %v", err)
	}
}

func TestASoakAccountsForEveryEvent(t *testing.T) {
	right := accounts{acked: 100, arrived: 97, never: 3, dups: 2, named: 4, daemon: queueCounts{Success: 96, Failed: 4}}
	if err := right.check(); err != nil {
		t.Errorf("right: %v", err)
	}
	for name, change := range map[string]func(*accounts){
		"acknowledged events never arrived: 1 of 100":                                func(a *accounts) { a.arrived-- },
		"the daemon counts 95 delivered, 4 failed and 1 pending of 100 acknowledged": func(a *accounts) { a.daemon.Success, a.daemon.Pending = 95, 1 },
		"the daemon counts 96 delivered, 4 failed and 0 pending of 101 acknowledged": func(a *accounts) { a.acked++; a.never++ },
		"the daemon counts 98 delivered, and 97 arrived":                             func(a *accounts) { a.daemon.Success, a.daemon.Failed, a.named = 98, 2, 2 },
		"the daemon counts 4 failed, and its stream named 3":                         func(a *accounts) { a.named-- },
		"the receiver saw bad signatures: 1":                                         func(a *accounts) { a.unverified = 1 },
	} {
		a := right
		change(&a)
		if err := a.check(); err == nil || err.Error() != name {
			t.Errorf("%v, want %s", err, name)
		}
	}
}

func TestFailuresAreReadFromTheStream(t *testing.T) {
	f := &failures{entries: map[string]string{}}
	err := f.read(bufio.NewScanner(strings.NewReader(": hello\n\n" +
		"event: delivery\ndata: {\"kind\":\"attempt\",\"delivery\":{\"id\":\"del_1\",\"entry_id\":\"entry-0000000a-00000007-0000000000000001\"}}\n\n" +
		"event: delivery\ndata: {\"kind\":\"attempt\",\"delivery\":{\"id\":\"del_1\",\"entry_id\":\"entry-0000000a-00000007-0000000000000001\"}}\n\n" +
		"event: delivery\ndata: {\"kind\":\"attempt\",\"delivery\":{\"id\":\"del_2\",\"entry_id\":\"other\"}}\n\n")))
	if !errors.Is(err, errStreamEnded) {
		t.Errorf("%v", err)
	}
	if runs := f.runs(); f.count() != 2 || len(runs) != 1 || !runs["0000000a-00000007"] {
		t.Errorf("%d, %v", f.count(), runs)
	}
	for _, text := range []string{"event: missed\ndata: {\"missed\":3}\n", "event: delivery\ndata: {\n"} {
		if err := f.read(bufio.NewScanner(strings.NewReader(text))); err == nil || errors.Is(err, errStreamEnded) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestADayEndsInTheMiddleOfASoakWheneverItBegins(t *testing.T) {
	at := func(day, hour, minute int) time.Time { return time.Date(2026, 3, day, hour, minute, 0, 0, time.UTC) }
	for _, row := range []struct{ now, want time.Time }{
		{at(1, 12, 0), at(1, 23, 55)},
		{at(1, 0, 0), at(1, 23, 55)},
		{at(1, 23, 55), at(1, 23, 55)},
		{at(1, 23, 56), at(2, 23, 55)}, // the queue's time never goes back
	} {
		if got := untilMidnight(row.now, 5*time.Minute); !got.Equal(row.want) {
			t.Errorf("at %v: %v, want %v", row.now, got, row.want)
		}
	}
}
