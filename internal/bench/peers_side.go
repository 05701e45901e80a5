package main

import (
	"debug/buildinfo"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// side is a contestant: something that takes the benchmark's events at POST /v1/events
// on a Unix socket, answers 202 when they are durable, and delivers those of the helper
// bench to /ok/main, 64 at a time, and those of slow to the tarpit, 8 at a time.
type side interface {
	version() string
	start() error // on the data that there is; returns once it takes events
	stop(syscall.Signal)
	wipe() error // removes the data of a stopped side
	socket() string
	pids() []int // every process of it
	// must says that a lost event ends the run: it is the daemon under test.
	must() bool
}

// sideNames are the sides in the order of the table.
func sideNames() []string { return []string{"relay", "nats", "asynq", "bullmq"} }

func sideTitle(name string) string {
	return map[string]string{"relay": "Peanuts Relay", "nats": "NATS JetStream", "asynq": "asynq", "bullmq": "BullMQ"}[name]
}

// newSide prepares a side; an error says what is missing to run it here.
func newSide(name string, l *lab, src peerSource) (side, error) {
	switch name {
	case "relay":
		return &relaySide{l}, nil
	case "nats":
		return newNATS(l, src)
	case "asynq":
		return newAsynq(l, src)
	case "bullmq":
		return newBullMQ(l, src)
	}
	return nil, fmt.Errorf("no side %q", name)
}

// relaySide is the built daemon.
type relaySide struct{ l *lab }

func (s *relaySide) version() string {
	out, err := exec.Command(s.l.binary, "--version").Output()
	if err != nil {
		return "the daemon"
	}
	first, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(first)
}

func (s *relaySide) start() error            { _, err := s.l.startDaemon(); return err }
func (s *relaySide) stop(sig syscall.Signal) { s.l.stopDaemon(sig) }
func (s *relaySide) wipe() error             { return os.RemoveAll(s.l.data()) }
func (s *relaySide) socket() string          { return s.l.socket() }
func (s *relaySide) pids() []int             { return descendants(s.l.daemon.Process.Pid) }
func (s *relaySide) must() bool              { return true }

// peer is a side of several processes.
type peer struct {
	l      *lab
	dir    string // its data, sockets and logs
	what   string
	launch func(*peer) error // starts the processes, stores first
	procs  []*peerProcess
}

type peerProcess struct {
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it has ended and was waited for
}

func newPeer(l *lab, name, what string, launch func(*peer) error) *peer {
	return &peer{l: l, dir: filepath.Join(l.dir, name), what: what, launch: launch}
}

func (p *peer) version() string         { return p.what }
func (p *peer) must() bool              { return false }
func (p *peer) path(name string) string { return filepath.Join(p.dir, name) }
func (p *peer) socket() string          { return p.path("events.sock") }
func (p *peer) wipe() error             { return os.RemoveAll(p.dir) }
func (p *peer) url(t peerTarget) string { return "http://" + p.l.recvAddr + t.path }

// peerTarget is a destination that every side has.
type peerTarget struct {
	helper, path string
	concurrency  int
}

// peerTargets is what writeConfig gives the daemon.
func peerTargets() []peerTarget {
	return []peerTarget{{"bench", mainStream, 64}, {"slow", "/delay/5000/slow", 8}}
}

func (p *peer) start() error {
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return err
	}
	if err := os.RemoveAll(p.socket()); err != nil { // of a killed one
		return err
	}
	if err := p.launch(p); err != nil {
		p.stop(syscall.SIGKILL)
		return err
	}
	return nil
}

// run starts a process of the peer.
func (p *peer) run(name string, env []string, program string, args ...string) error {
	path := p.path(name + ".log")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	cmd := exec.Command(program, args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = p.dir, append(os.Environ(), env...), f, f
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	proc := &peerProcess{cmd, path, make(chan struct{})}
	go func() { _ = cmd.Wait(); close(proc.done) }()
	p.procs = append(p.procs, proc)
	return nil
}

// until waits until the process that was started last has got somewhere.
func (p *peer) until(what string, reached func() bool) error {
	last := p.procs[len(p.procs)-1]
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
		if reached() {
			return nil
		}
		select {
		case <-last.done:
			return fmt.Errorf("%s: the process ended: %s", what, tail(last.log))
		case <-time.After(5 * time.Millisecond):
		}
	}
	return fmt.Errorf("%s: not within 30 s: %s", what, tail(last.log))
}

// tail is the end of a log.
func tail(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(b[max(0, len(b)-400):]))
}

// stop ends the processes, the one that was started last first. SIGKILL is for all at once.
func (p *peer) stop(sig syscall.Signal) {
	all := p.pids()
	for _, proc := range slices.Backward(p.procs) {
		_ = proc.cmd.Process.Signal(sig)
		if sig == syscall.SIGKILL {
			continue
		}
		select {
		case <-proc.done:
		case <-time.After(10 * time.Second):
			_ = proc.cmd.Process.Kill()
		}
	}
	var ours []int
	for _, proc := range p.procs {
		<-proc.done
		ours = append(ours, proc.cmd.Process.Pid)
	}
	for _, pid := range all { // a child of Redis that rewrites its file outlives it
		if !slices.Contains(ours, pid) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	p.procs = nil
}

func (p *peer) pids() (out []int) {
	for _, proc := range p.procs {
		out = append(out, descendants(proc.cmd.Process.Pid)...)
	}
	return out
}

// descendants is a process and those that it started and that live.
func descendants(root int) []int {
	children := map[int][]int{}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return []int{root}
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if v, err := procField("/proc/"+e.Name()+"/status", "PPid:", 1); err == nil {
			children[int(v)] = append(children[int(v)], pid)
		}
	}
	out := []int{root}
	for i := 0; i < len(out); i++ {
		out = append(out, children[out[i]]...)
	}
	return out
}

// moduleVersion is the version of a module in a Go program.
func moduleVersion(program, module string) (string, error) {
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return "", err
	}
	if info.Main.Path == module {
		return info.Main.Version, nil
	}
	for _, d := range info.Deps {
		if d.Path == module {
			return d.Version, nil
		}
	}
	return "", errors.New("no module " + module + " in " + program)
}
