package zoo

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// processes are the animals that are a burden as a process. They work otherwise:
//
//	ignore-term     ends neither after SIGTERM, nor Shutdown, nor the end of its standard input
//	grandchild      leaves a process with its standard output and error, and its group
//	fork-N          leaves N of them, 16 without a number
//	escape          leaves one that is in a session of its own
//	escape-clean    the same, without its environment; prints "escaped <pid>" first
//	eat-N           takes N MiB of memory at Deliver, 256 without a number, and keeps them
//	starve-N        limits its own address space to what it has and N MiB more, 256 without a
//	                number, and takes memory without end at Deliver
//	crash-children  leaves a process as grandchild does and exits with ExitCrash before a handshake
func processes() map[string]func(animal) {
	return map[string]func(animal){
		"ignore-term": func(a animal) {
			signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
			a.raw().serveAs(handshake())
			forever()
		},
		"grandchild": func(a animal) {
			leave(false, os.Environ())
			a.raw().serve()
		},
		"fork": func(a animal) {
			for range a.number(16) {
				leave(false, os.Environ())
			}
			a.raw().serve()
		},
		"escape": func(a animal) {
			leave(true, os.Environ())
			a.raw().serve()
		},
		"escape-clean": func(a animal) {
			fmt.Fprintf(os.Stderr, "escaped %d\n", leave(true, nil))
			a.raw().serve()
		},
		"crash-children": func(animal) {
			leave(false, os.Environ())
			os.Exit(ExitCrash)
		},
		"eat": func(a animal) {
			r := a.raw()
			r.before = at("deliver", func() {
				kept := take(a.number(256))
				forever()
				_ = kept
			})
			r.serve()
		},
		"starve": func(a animal) {
			r := a.raw()
			r.before = at("deliver", func() {
				limit := uint64(addressSpace() + a.number(256)<<20)
				must(syscall.Setrlimit(syscall.RLIMIT_AS, &syscall.Rlimit{Cur: limit, Max: limit}))
				take(1 << 20)
			})
			r.serve()
		},
	}
}

// leave starts a process that sleeps, with our standard output and error.
func leave(session bool, env []string) (pid int) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{filePrefix + sleeper}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Env = env
	if env == nil {
		cmd.Env = []string{} // nil would be ours
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: session}
	must(cmd.Start())
	return cmd.Process.Pid
}

// sleep is what is left behind.
func sleep() {
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGPIPE)
	time.Sleep(lifetime)
	os.Exit(0)
}

// stop stops the process until somebody sends SIGCONT. The signal takes effect a moment
// after the call that sends it.
func stop() {
	must(syscall.Kill(os.Getpid(), syscall.SIGSTOP))
	time.Sleep(time.Second)
}

// take fills so many MiB.
func take(mib int) (kept [][]byte) {
	for range mib {
		b := make([]byte, 1<<20)
		for i := range b {
			b[i] = byte(i)
		}
		kept = append(kept, b)
	}
	return kept
}

// addressSpace is how many bytes the process has mapped.
func addressSpace() int {
	b, err := os.ReadFile("/proc/self/statm")
	must(err)
	pages := 0
	_, err = fmt.Sscan(strings.Fields(string(b))[0], &pages)
	must(err)
	return pages * os.Getpagesize()
}
