package main

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/failpoint/pointlist"
	"github.com/peanutsapp/peanuts-relay/internal/testhost"
)

// daemonPoints are the points that only a whole daemon comes to. Those of the queue have a
// test there.
func daemonPoints(t *testing.T) (of []pointlist.Point) {
	t.Helper()
	points, err := pointlist.In("../internal")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range points {
		if !strings.HasPrefix(p.File, "queue/") {
			of = append(of, p)
		}
	}
	return of
}

// failingDaemon is the daemon built with its points, without the race detector.
func failingDaemon(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "peanuts-relay")
	if out, err := exec.CommandContext(t.Context(), testhost.Program(t, "go"), "build", "-tags", "failpoints", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return binary
}

// inside says which points are in a program by name, and which functions of package
// failpoint it has.
func inside(t *testing.T, binary string) (names, functions int) {
	t.Helper()
	points, err := pointlist.In("../internal")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range points {
		if bytes.Contains(raw, []byte(p.Name)) {
			names++
		}
	}
	f, err := elf.NewFile(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	symbols, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	for _, symbol := range symbols {
		if strings.Contains(symbol.Name, "internal/failpoint.") {
			functions++
		}
	}
	return names, functions
}

// What is built without the tag has none of the points: they are inlined to nothing, and
// so is what they are called with. TestNothingAcknowledgedIsLostAtAnyFailpoint has the
// control.
func TestANormalBuildHasNoFailpoints(t *testing.T) {
	t.Parallel()
	binary := filepath.Join(t.TempDir(), "peanuts-relay")
	if out, err := exec.CommandContext(t.Context(), testhost.Program(t, "go"), "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if names, functions := inside(t, binary); names != 0 || functions != 0 {
		t.Errorf("a normal build has %d points by name, and %d functions for them", names, functions)
	}
}

// A daemon under load dies at each of the points outside the queue: while it starts, answers, attempts,
// takes over another configuration, writes that down, or stops; or a call of that fails. Whatever
// was acknowledged ends once.
func TestNothingAcknowledgedIsLostAtAnyFailpoint(t *testing.T) {
	t.Parallel()
	points := daemonPoints(t)
	rounds, _ := strconv.Atoi(os.Getenv("FAILPOINT_ROUNDS")) // the short form when it is not a number
	var specs []string
	for i, p := range points {
		whats := p.Whats()
		if rounds == 0 {
			specs = append(specs, fmt.Sprintf("%s=%s@%d", p.Name, whats[i%len(whats)], (pointTimes(p.Name)+1)/2))
		}
		for n := range rounds {
			for _, what := range whats {
				specs = append(specs, fmt.Sprintf("%s=%s@%d", p.Name, what, 1+n%pointTimes(p.Name)))
			}
		}
	}
	binary := failingDaemon(t)
	if names, functions := inside(t, binary); names < 60 || functions == 0 {
		t.Errorf("the build with points has %d of them by name, and %d functions", names, functions)
	}
	var acked atomic.Int64
	t.Run("points", func(t *testing.T) {
		for _, spec := range specs {
			t.Run(spec, func(t *testing.T) {
				t.Parallel()
				acked.Add(int64(failOnce(t, binary, spec)))
			})
		}
	})
	t.Attr("cases", strconv.Itoa(len(specs)))
	t.Attr("acked", strconv.FormatInt(acked.Load(), 10))
	t.Attr("lost", "0") // else a run has failed
	t.Logf("%d points, %d runs, %d acknowledged events", len(points), len(specs), acked.Load())
}

// pointTimes is how often a daemon that does everything comes to a point at least.
func pointTimes(name string) int {
	switch {
	case strings.HasPrefix(name, "attempt."), name == "answer.event":
		return 40
	case name == "reload.settled", name == "reload.recorded":
		return 3
	case name == "reload.rejected", name == "socket.removed":
		return 1
	case name == "answer.stream", strings.HasPrefix(name, "reload."), strings.HasPrefix(name, "history."):
		return 4 // the start and three reloads, or four streams
	}
	return 1
}

// failOnce has a daemon die at one point, and the next one account for what the first had
// acknowledged: that many events.
func failOnce(t *testing.T, binary, spec string) int {
	r := newReceiver(t)
	s := newSite(t, "", crashWebhooks(r))
	s.binary, s.env = binary, []string{"FAILPOINT=" + spec}
	l := newLedger()
	var next atomic.Int64
	p := s.start()
	stop := senders(4, func(quit <-chan struct{}) { s.persist(l, int(next.Add(1)), quit) })
	s.everything(p, l, &next)
	point, what, _ := strings.Cut(spec, "=")
	what, _, _ = strings.Cut(what, "@")
	reached := strings.Contains(p.output(), "failpoint "+point+": "+what)
	s.env = nil
	p = s.up() // the senders wait for it with what was not acknowledged
	stop()
	if !reached {
		t.Errorf("%s was never reached", spec)
	}
	s.repeats(l)
	s.settle()
	s.check(l, r, 4)
	p.stop()
	verifyStore(t, s.data)
	return l.len()
}

// everything is what happens to a daemon until it ends: events come one by one and
// in a stream, the configuration is changed, to a wrong one too, an operator works, and it is stopped.
func (s *site) everything(p *process, l *ledger, next *atomic.Int64) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	alive := func() bool {
		select {
		case <-p.over:
			return false
		default:
			return ctx.Err() == nil
		}
	}
	until(s.t, "the daemon to be ready, or to end", func() bool { return !alive() || strings.Contains(p.output(), "msg=ready") })
	var operator sync.WaitGroup
	operator.Go(func() { s.operate(ctx) })
	text, err := os.ReadFile(s.config())
	if err != nil {
		s.t.Fatal(err)
	}
	for _, timeout := range []string{"31s", "32s", "soon", "33s"} {
		if alive() {
			s.stream(ctx, l, int(next.Add(1)))
			s.rewrite(bytes.Replace(text, []byte("timeout: 30s"), []byte("timeout: "+timeout), 1))
			_, _ = s.admin.Reload(ctx) // wrong files are refused, and the daemon may go away
		}
	}
	for alive() && l.len() < 40 {
		time.Sleep(time.Millisecond)
	}
	_ = p.cmd.Process.Signal(os.Interrupt) // it may have ended
	p.wait()
	operator.Wait()
}

// rewrite replaces the configuration as a whole.
func (s *site) rewrite(text []byte) {
	s.t.Helper()
	err := os.WriteFile(s.config()+".new", text, 0o600)
	if err == nil {
		err = os.Rename(s.config()+".new", s.config())
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// stream hands in event n as a stream of one. Whoever gets no answer repeats it by itself.
func (s *site) stream(ctx context.Context, l *ledger, n int) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://relay/v1/events", strings.NewReader(crashRequest(n)+"\n"))
	if err != nil {
		s.t.Error(err)
		return
	}
	req.Header.Set("Content-Type", "application/x-ndjson")
	resp, err := s.client.Do(req)
	if err != nil {
		return
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	var result struct {
		answer
		Status int
	}
	if err == nil && json.Unmarshal(bytes.TrimSpace(body), &result) == nil && slices.Contains([]int{http.StatusOK, http.StatusAccepted}, result.Status) {
		l.book(n, result.answer)
	}
}
