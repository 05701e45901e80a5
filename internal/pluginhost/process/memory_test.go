package process_test

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/peanutsapp/peanuts-relay/internal/pluginhost/process"
)

// group makes a memory group of the kernel with a limit, whichever version it has.
func group(t *testing.T, limit int) (procs string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root may make a memory group")
	}
	for _, kind := range []struct{ root, limit, swap string }{
		{"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"},
		{"/sys/fs/cgroup", "memory.max", "memory.swap.max"},
	} {
		dir := filepath.Join(kind.root, "peanuts-relay-test-"+strconv.Itoa(os.Getpid()))
		if os.Mkdir(dir, 0o755) != nil {
			continue
		}
		t.Cleanup(func() {
			eventually(t, "the memory group to be removed", func() bool {
				err := os.Remove(dir)
				return err == nil || errors.Is(err, os.ErrNotExist)
			})
		})
		if os.WriteFile(filepath.Join(dir, kind.limit), []byte(strconv.Itoa(limit)), 0) != nil {
			continue
		}
		_ = os.WriteFile(filepath.Join(dir, kind.swap), []byte(strconv.Itoa(limit)), 0)
		return filepath.Join(dir, "cgroup.procs")
	}
	t.Skip("this machine lets nobody make a memory group")
	return ""
}

func TestTheKernelKillsAPluginThatEatsMemory(t *testing.T) {
	procs := group(t, 96<<20)
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
