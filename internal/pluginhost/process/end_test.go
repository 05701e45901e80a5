package process_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/peanutsapp/peanuts-relay/internal/pluginhost/process"
	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
	"github.com/peanutsapp/peanuts-relay/internal/testhost"
	"github.com/peanutsapp/peanuts-relay/internal/zoo"
)

// hurry makes the steps of Stop short, for those that end at none of them.
func hurry(o *process.Options) {
	o.Limits.Drain, o.Limits.Shutdown, o.Limits.Term, o.Limits.Dump = 300*time.Millisecond, 300*time.Millisecond, 300*time.Millisecond, time.Second
	o.Limits.Output = 300 * time.Millisecond
}

// patient makes them long, for those that end by themselves.
func patient(o *process.Options) {
	o.Limits.Drain, o.Limits.Shutdown, o.Limits.Term = patience, patience, patience
}

func TestStopEndsWhateverItIs(t *testing.T) {
	for _, row := range []struct {
		behaviour string
		want      string
		change    func(*process.Options)
	}{
		{"healthy", "exited with status 0", patient},
		{"bare", "exited with status 0|killed by signal 15 (SIGTERM)", patient}, // has no Shutdown
		{"crash-drain", "exited with status 3", patient},
		{"hang-drain", "exited with status 0", func(o *process.Options) { patient(o); o.Limits.Drain = 100 * time.Millisecond }},
		{"ignore-term", "killed by the relay (signal 9, SIGKILL)", hurry},
		{"grandchild", "exited with status 0", patient},
		{"fork", "exited with status 0", patient},
		{"escape", "exited with status 0", patient},
	} {
		t.Run(row.behaviour, func(t *testing.T) {
			t.Parallel()
			k := keep(t)
			p := k.start(row.behaviour, row.change)
			p.Stop(t.Context())
			p.Stop(t.Context()) // again is nothing
			select {
			case <-p.Done():
			default:
				t.Fatal("Stop returned before the end")
			}
			if e := p.Exit(); !slices.Contains(strings.Split(row.want, "|"), e.String()) || !e.Asked {
				t.Errorf("it %s, want %s: %+v", e, row.want, e)
			}
			if left := marked(k.sockets); len(left) > 0 {
				t.Errorf("processes were left: %v", left)
			}
			if left, _ := filepath.Glob(k.sockets + "/*"); len(left) > 0 {
				t.Errorf("sockets were left: %v", left)
			}
		})
	}
}

func TestStopIsAtOnceWhenItsContextEnds(t *testing.T) {
	p := keep(t).start("hang-drain", func(o *process.Options) { o.Limits.Drain = time.Hour })
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	p.Stop(ctx)
	if e := p.Exit(); e.String() != "killed by the relay (signal 9, SIGKILL)" {
		t.Errorf("it %s", e)
	}
}

func TestAProcessThatIsStoppedBySignalIsKilledAllTheSame(t *testing.T) {
	k := keep(t)
	p := k.start("stopped", hurry)
	configure(t, p, `{}`)
	ctx, cancel := context.WithCancel(t.Context())
	called := make(chan error, 1)
	go func() {
		_, err := deliver(ctx, p, `{}`)
		called <- err
	}()
	eventually(t, "the process to stop", func() bool { return state(p.PID()) == "T" })
	cancel()
	if err := <-called; status.Code(err) != codes.Canceled {
		t.Errorf("the call of a stopped process ended with %v", err)
	}
	p.Stop(t.Context())
	if e := p.Exit(); !e.Killed {
		t.Errorf("it %s", e)
	}
}

func TestAbortWithDumpShowsWhereItHangs(t *testing.T) {
	for _, behaviour := range []string{"hang-deliver", "stopped"} {
		t.Run(behaviour, func(t *testing.T) {
			t.Parallel()
			k := keep(t)
			p := k.start(behaviour, func(o *process.Options) { o.Limits.Dump = patience })
			record := filepath.Join(t.TempDir(), "record")
			configure(t, p, `{"record": "`+record+`"}`)
			called := make(chan error, 1)
			go func() {
				_, err := deliver(t.Context(), p, `{}`)
				called <- err
			}()
			if behaviour == "stopped" {
				eventually(t, "the process to stop", func() bool { return state(p.PID()) == "T" })
			} else {
				eventually(t, "the call", func() bool { return len(zoo.Records(t, record)) > 0 })
			}
			p.Abort(true)
			wait(t, p.Done(), "the end")
			e := p.Exit()
			if e.Status != 2 || !strings.HasPrefix(e.Stack, "SIGQUIT: quit") || !e.Asked {
				t.Errorf("it %s: %+v", e, e)
			}
			if !strings.Contains(e.Stack, "internal/zoo.") {
				t.Errorf("the dump does not show where it hangs:\n%s", e.Stack)
			}
			if !k.log.has(`"msg":"the sink plugin wrote a stack"`)() {
				t.Errorf("the log has no dump:\n%s", k.log)
			}
			if err := <-called; status.Code(err) != codes.Unavailable {
				t.Errorf("the call ended with %v", err)
			}
		})
	}
}

// state is the letter that the kernel has for what a process does.
func state(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	return rest[:1]
}

func TestACallThatKillsThePluginFailsAfterDone(t *testing.T) {
	for _, row := range []struct{ behaviour, data, want, stack string }{
		{"crash-deliver", `{}`, "exited with status 3", ""},
		{"panic-deliver", `{}`, "exited with status 2", "panic: the stairs were wet"},
		{"crash-batch-1", `{}`, "exited with status 3", ""},
		{"healthy", `{"zoo":"crash"}`, "exited with status 3", ""},
		{"healthy", `{"zoo":"exit"}`, "exited with status 0", ""},
		{"healthy", `{"zoo":"die"}`, "exited with status 2", "panic: as the entry asked for"},
		{"healthy", `{"zoo":"kill"}`, "killed by signal 9 (SIGKILL)", ""},
		{"grandchild", `{"zoo":"kill"}`, "killed by signal 9 (SIGKILL)", ""},
	} {
		t.Run(row.behaviour+row.data, func(t *testing.T) {
			t.Parallel()
			k := keep(t)
			p := k.start(row.behaviour)
			configure(t, p, `{}`)
			_, err := deliver(t.Context(), p, row.data)
			if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), row.want) {
				t.Errorf("the call failed with %v", err)
			}
			select {
			case <-p.Done():
			default:
				t.Error("the call failed before Done was closed")
			}
			e := p.Exit()
			if e.Asked || e.Killed {
				t.Errorf("nobody asked it to end: %+v", e)
			}
			if first, _, _ := strings.Cut(e.Stack, "\n"); first != row.stack {
				t.Errorf("its stack begins with %q, want %q", first, row.stack)
			}
			if row.stack != "" && !k.log.has(row.stack)() {
				t.Error("the stack is not in the log")
			}
			if got, _, _ := strings.Cut(e.String(), ","); got != row.want {
				t.Errorf("it %s, want %s", e, row.want)
			}
		})
	}
}

func TestAPanicInACallIsAnAnswerWithPackageSinks(t *testing.T) {
	p := keep(t).start("healthy")
	configure(t, p, `{}`)
	rs, err := deliver(t.Context(), p, `{"zoo":"panic"}`)
	if err != nil || len(rs) != 1 || rs[0].GetOutcome() != sinkpb.Outcome_OUTCOME_RETRY || rs[0].GetCode() != "panic" {
		t.Errorf("answered %v, %v", rs, err)
	}
}

func TestALostConnectionIsNoEndOfTheProcess(t *testing.T) {
	p := keep(t).start("close-socket", hurry)
	configure(t, p, `{}`)
	_, err := deliver(t.Context(), p, `{}`)
	if status.Code(err) != codes.Unavailable {
		t.Errorf("the call failed with %v", err)
	}
	select {
	case <-p.Done():
		t.Fatalf("it %s", p.Exit())
	default:
	}
	if _, err := p.Client().Health(t.Context(), &sinkpb.HealthRequest{}); status.Code(err) != codes.Unavailable {
		t.Errorf("a call without a connection failed with %v", err)
	}
	p.Stop(t.Context())
}

func TestAnEscapedGrandchildThatHoldsTheOutputDelaysNothing(t *testing.T) {
	k := keep(t)
	p := k.start("escape-clean", patient, func(o *process.Options) { o.Limits.Output = 100 * time.Millisecond })
	var pid int
	eventually(t, "the grandchild", func() bool {
		_, rest, ok := strings.Cut(k.log.String(), `"msg":"escaped `)
		if !ok {
			return false
		}
		digits, _, _ := strings.Cut(rest, `"`)
		n, err := strconv.Atoi(digits)
		pid = n
		return err == nil
	})
	defer func() {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Error(err)
		}
	}()
	p.Stop(t.Context())
	if e := p.Exit(); e.Status != 0 {
		t.Errorf("it %s", e)
	}
	if !alive(pid) {
		t.Error("the grandchild is gone: this test shows nothing")
	}
}

func TestAnAnswerThatIsTooLargeIsRefusedAndThePluginLives(t *testing.T) {
	p := keep(t).start("huge-5")
	configure(t, p, `{}`)
	if _, err := deliver(t.Context(), p, `{}`); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("answered %v", err)
	}
	if _, err := p.Client().Health(t.Context(), &sinkpb.HealthRequest{}); err != nil {
		t.Errorf("the next call: %v", err)
	}
}

func TestABatchOfThirtyMiBPasses(t *testing.T) {
	p := keep(t).start("healthy")
	configure(t, p, `{}`)
	rs, err := deliver(t.Context(), p, `{"text":"`+strings.Repeat("x", 30<<20)+`"}`)
	if err != nil || len(rs) != 1 {
		t.Errorf("answered %v, %v", rs, err)
	}
	if _, err := deliver(t.Context(), p, `{"text":"`+strings.Repeat("x", 33<<20)+`"}`); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a request over the limit: %v", err)
	}
}

// TestNoDescriptorIsLeft counts them after lives of every kind: a first round may open what
// stays, such as the poller of the runtime.
func TestNoDescriptorIsLeft(t *testing.T) {
	k := keep(t)
	failing, working := k.options("crash-start"), k.options("healthy")
	working.Limits.Dump = patience
	round := func() int {
		if _, err := process.Start(t.Context(), failing); err == nil {
			t.Fatal("it was started")
		}
		for _, end := range []func(*process.Process){
			func(p *process.Process) { p.Stop(t.Context()) },
			func(p *process.Process) { p.Abort(false) },
			func(p *process.Process) { p.Abort(true) },
			func(p *process.Process) {
				configure(t, p, `{}`)
				_, _ = deliver(t.Context(), p, `{"zoo":"crash"}`)
			},
		} {
			p, err := process.Start(t.Context(), working)
			if err != nil {
				t.Fatal(err)
			}
			end(p)
			wait(t, p.Done(), "the end")
		}
		return len(glob(t, "/proc/self/fd/*"))
	}
	first := round()
	for range 3 {
		if n := round(); n > first {
			t.Errorf("there were %d descriptors after one round, and are %d now", first, n)
		}
	}
}

func TestManyAtOnceLeaveNothing(t *testing.T) {
	k := keep(t)
	o := k.options("healthy")
	failed := make(chan error, 1)
	for range 10 {
		go func() {
			p, err := process.Start(t.Context(), o)
			if err == nil {
				_, err = p.Client().Health(t.Context(), &sinkpb.HealthRequest{})
				p.Stop(t.Context())
				if e := p.Exit(); e.Status != 0 {
					err = errors.Join(err, errors.New(e.String()))
				}
			}
			failed <- err
		}()
	}
	for range 10 {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
}

func TestAPluginNeedsNoRightsOfRoot(t *testing.T) {
	if testhost.AsUser(t) {
		return
	}
	t.Run("life", TestAHealthyPluginIsStartedCalledAndStopped)
	t.Run("death", TestNothingOutlivesAHostThatIsKilled)
}
