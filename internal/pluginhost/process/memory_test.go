package process_test

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/peanutsapp/peanuts-relay/internal/pluginhost/process"
	"github.com/peanutsapp/peanuts-relay/internal/zoo"
)

func TestTheKernelKillsAPluginThatEatsMemory(t *testing.T) {
	procs := zoo.MemoryGroup(t, 96<<20)
	k := keep(t)
	p := k.start("eat-1024")
	configure(t, p, `{}`)
	if err := os.WriteFile(procs, []byte(strconv.Itoa(p.PID())), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := deliver(t.Context(), p, `{}`); status.Code(err) != codes.Unavailable {
		t.Errorf("the call ended with %v", err)
	}
	wait(t, p.Done(), "the end")
	e := p.Exit()
	if e.Memory == process.MemoryUnknown || !strings.HasSuffix(e.String(), "by the kernel for lack of memory") {
		t.Errorf("it %s: %+v", e, e)
	}
	t.Logf("it %s", e)
}

func TestAPluginThatMayHaveNoMoreMemorySaysSo(t *testing.T) {
	p := keep(t).start("starve")
	configure(t, p, `{}`)
	if _, err := deliver(t.Context(), p, `{}`); status.Code(err) != codes.Unavailable {
		t.Errorf("the call ended with %v", err)
	}
	wait(t, p.Done(), "the end")
	e := p.Exit()
	said := strings.Join(append(e.Last, e.Stack), "\n")
	// The race detector has words of its own for it.
	if e.Status < 1 || !strings.Contains(said, "memory") && !strings.Contains(said, "ThreadSanitizer") && !strings.Contains(said, "address space") {
		t.Errorf("it %s, and said: %.500s", e, said)
	}
}

func TestSIGKILLByAPersonIsNotTakenForLackOfMemory(t *testing.T) {
	p := keep(t).start("healthy")
	configure(t, p, `{}`)
	if _, err := deliver(t.Context(), p, `{"zoo":"kill"}`); status.Code(err) != codes.Unavailable {
		t.Errorf("the call ended with %v", err)
	}
	if e := p.Exit(); e.Memory == process.MemoryCertain || e.Signal != 9 || e.Killed {
		t.Errorf("it %s: %+v", e, e)
	}
}
