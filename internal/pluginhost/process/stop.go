package process

import (
	"context"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
)

// killGrace is how long the kernel may take to end a process that was killed.
const killGrace = 5 * time.Second

// shutdownMethod is go-plugin's call that ends a server. Calls under way are cut off, so
// it comes after Drain.
const shutdownMethod = "/plugin.GRPCController/Shutdown"

// Stop ends the process and returns when it is gone: the Drain call, then the Shutdown
// call, then SIGTERM and the end of its standard input, then SIGKILL for its group, each
// within its limit. When ctx ends, SIGKILL comes at once. Concurrent calls wait for the
// same end. It returns at last, with the process still there, when the kernel does not
// end it within 5 s of SIGKILL; Done tells when it does.
func (p *Process) Stop(ctx context.Context) {
	p.ask()
	p.stop.Do(func() { p.end(ctx) })
	select {
	case <-p.done:
		return
	default:
	}
	p.run.child.kill()
	timer := time.NewTimer(p.opts.Limits.Output + killGrace)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		p.opts.Logger.Error("a sink plugin does not end after SIGKILL", "sink", p.opts.Sink, "pid", p.PID())
	}
}

// end goes through the steps that let the plugin end by itself.
func (p *Process) end(ctx context.Context) {
	l := p.opts.Limits
	call := func(limit time.Duration, f func(context.Context) error) error {
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		return f(ctx)
	}
	// Whether it worked is seen by the end of the process.
	_ = call(l.Drain, func(ctx context.Context) error {
		_, err := p.Client().Drain(ctx, &sinkpb.DrainRequest{})
		return err
	})
	asked := time.Now()
	err := call(l.Shutdown, func(ctx context.Context) error {
		return p.conn.Invoke(ctx, shutdownMethod, &emptypb.Empty{}, &emptypb.Empty{})
	})
	// A plugin without go-plugin has no such call, and is not waited for.
	if status.Code(err) != codes.Unimplemented && p.await(ctx, l.Shutdown-time.Since(asked)) || ctx.Err() != nil {
		return
	}
	p.run.child.signal(syscall.SIGTERM)
	p.run.child.hangUp()
	p.await(ctx, l.Term)
}

// await waits so long for the end of the process.
func (p *Process) await(ctx context.Context, limit time.Duration) (ended bool) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-p.run.child.exited:
		<-p.done
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

// Abort kills the process and its group without asking. With dump it is sent SIGQUIT
// first and has Limits.Dump to write the stacks of its goroutines, which end up in the
// log and in Exit. Abort does not wait; Done tells when it is over.
func (p *Process) Abort(dump bool) {
	p.ask()
	if !dump {
		p.run.child.kill()
		return
	}
	p.run.child.signal(syscall.SIGQUIT)
	p.run.child.signal(syscall.SIGCONT) // one that was stopped sees no signal
	go func() {
		timer := time.NewTimer(p.opts.Limits.Dump)
		defer timer.Stop()
		select {
		case <-p.run.child.exited:
		case <-timer.C:
			p.run.child.kill()
		}
	}()
}
