package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
	"github.com/peanutsapp/peanuts-relay/sinks"
)

// Process is one running plugin. It is safe for concurrent use.
type Process struct {
	opts Options
	run  *run
	conn *grpc.ClientConn

	done chan struct{}
	exit Exit // set before done is closed

	mu    sync.Mutex
	asked bool // to end
	stop  sync.Once
}

// Start starts a plugin and connects to it, within Limits.Start. When it fails, or ctx
// ends before it has returned, nothing of the process is left. Later the end of ctx means
// nothing.
//
// The error says what the plugin did wrong, how it ended, and its last words, masked.
func Start(ctx context.Context, o Options) (*Process, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	file := o.File
	if file == nil {
		if file, err = Open(o.Path, o.SHA256); err != nil {
			return nil, err
		}
		defer file.Close()
	}
	ctx, cancel := context.WithTimeoutCause(ctx, o.Limits.Start, fmt.Errorf("it was not ready within %s", o.Limits.Start))
	defer cancel()

	p := &Process{opts: o, run: newRun(ctx, o, file), done: make(chan struct{})}
	client := p.client()
	if err := p.connect(ctx, client); err != nil {
		return nil, fmt.Errorf("start sink plugin %s: %w", o.Sink, p.abandon(client, err))
	}
	go p.finish(client)
	return p, nil
}

// client makes go-plugin's side of the process. It is used once: its Start cannot be
// repeated.
func (p *Process) client() *plugin.Client {
	return plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig:  plugin.HandshakeConfig{ProtocolVersion: sinks.ProtocolVersion, MagicCookieKey: sinks.MagicCookieKey, MagicCookieValue: sinks.MagicCookieValue},
		Plugins:          plugin.PluginSet{sinks.PluginName: &grpcPlugin{}},
		RunnerFunc:       p.run.prepare,
		StartTimeout:     p.opts.Limits.Start,
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		Logger:           hclog.NewNullLogger(),
		SyncStdout:       p.run.paced(p.run.std[1]),
		SyncStderr:       p.run.paced(p.run.err[1]),
		GRPCDialOptions:  p.dialOptions(),
		SkipHostEnv:      true,
		UnixSocketConfig: &plugin.UnixSocketConfig{TempDir: p.opts.SocketDir},
	})
}

// grpcPlugin hands out the bare connection.
type grpcPlugin struct{ plugin.NetRPCUnsupportedPlugin }

func (*grpcPlugin) GRPCServer(*plugin.GRPCBroker, *grpc.Server) error {
	return errors.New("the host serves nothing")
}

func (*grpcPlugin) GRPCClient(_ context.Context, _ *plugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return conn, nil
}

// connect starts the process and connects to it. What go-plugin waits for has no end of
// its own, but ends with the process.
func (p *Process) connect(ctx context.Context, client *plugin.Client) error {
	stop := context.AfterFunc(ctx, func() { p.run.abort() })
	defer stop()
	protocol, err := client.Client()
	if err != nil {
		return err
	}
	conn, err := protocol.Dispense(sinks.PluginName)
	if err != nil {
		return err
	}
	p.conn = conn.(*grpc.ClientConn) // grpcPlugin made it
	if err := ready(ctx, p.conn); err != nil {
		return err
	}
	if !stop() {
		return context.Cause(ctx)
	}
	return nil
}

// abandon ends what a failing start left and says why it failed.
func (p *Process) abandon(client *plugin.Client, err error) error {
	if cause := context.Cause(p.run.ctx); cause != nil {
		err = cause
	}
	c := p.run.child
	if c == nil {
		// go-plugin makes the directory before it runs anything.
		if p.run.dir != "" {
			err = errors.Join(err, os.RemoveAll(p.run.dir))
		}
		p.run.guard.dismiss()
		return err
	}
	p.ask()
	c.kill()
	go p.finish(client)
	select {
	case <-p.done:
	case <-time.After(p.opts.Limits.Output + killGrace): // nothing but the kernel keeps it
		return fmt.Errorf("%w; process %d does not end", err, c.pid)
	}
	if !p.exit.Killed {
		err = fmt.Errorf("%w; it %s", err, p.exit)
	}
	if words := p.exit.lastWords(); words != "" {
		err = fmt.Errorf("%w; its last words: %s", err, words)
	}
	return err
}

// finish puts everything away after the process has ended. go-plugin's Kill waits for
// whatever it started, which ends with the process, and closes the connection.
func (p *Process) finish(client *plugin.Client) {
	<-p.run.gone
	p.exit = p.run.exit()
	p.mu.Lock()
	p.exit.Asked = p.asked
	p.mu.Unlock()
	client.Kill()
	if err := os.RemoveAll(p.run.dir); err != nil {
		p.opts.Logger.Warn("the sockets of a sink plugin could not be removed", "sink", p.opts.Sink, "err", err)
	}
	p.run.guard.dismiss()
	close(p.done)
}

// Client calls the plugin. Calls fail at once while there is no connection; none is ever
// sent twice. A call that fails because the process died fails with UNAVAILABLE and after
// Done is closed, unless its own context ended first.
func (p *Process) Client() sinkpb.SinkClient { return sinkpb.NewSinkClient(p.conn) }

// PID is the process's number, also after its end.
func (p *Process) PID() int { return p.run.child.pid }

// Done is closed when the process is gone: reaped, its group killed, its output read, its
// sockets removed.
func (p *Process) Done() <-chan struct{} { return p.done }

// Exit is how the process ended. It waits for Done.
func (p *Process) Exit() Exit {
	<-p.done
	return p.exit
}

// Dropped is how many lines of output were not logged so far, because there were too many.
func (p *Process) Dropped() uint64 { return p.run.out.dropped.Load() }

func (p *Process) ask() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = true
}

// exit says how the process ended. It is called after gone was closed.
func (r *run) exit() Exit {
	e := Exit{Status: -1, Dropped: r.out.dropped.Load()}
	if state := r.child.state; state != nil {
		if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			e.Signal = ws.Signal()
		} else {
			e.Status = state.ExitCode()
		}
	}
	e.Killed = e.Signal == syscall.SIGKILL && r.child.wasKilled()
	if e.Signal == syscall.SIGKILL && !e.Killed {
		switch {
		case killedForMemory(r.child.pid, r.since):
			e.Memory = MemoryCertain
		case r.kills.more():
			e.Memory = MemoryProbable
		}
	}
	r.out.mu.Lock()
	defer r.out.mu.Unlock()
	e.Last = r.out.last
	if time.Since(r.out.crashed) < 2*stackAge {
		e.Stack = r.out.crash
	}
	return e
}
