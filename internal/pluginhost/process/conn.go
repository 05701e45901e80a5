package process

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"
)

const (
	// maxHeaders is the size of the largest headers of an answer, in bytes.
	maxHeaders = 64 << 10
	// window is how much of an answer is in flight; static, so that a plugin cannot talk
	// grpc into more.
	window = 1 << 20
	// endGrace is how long a call that lost its connection waits to learn that the
	// process has ended.
	endGrace = time.Second

	sinkMethods  = "/peanuts.sink.v1.Sink/"
	brokerMethod = "/plugin.GRPCBroker/"
)

// dialOptions come after go-plugin's own and override them.
//
// A call is sent at most once. grpc repeats one by itself when the server says that it
// did not look at it, whatever the service configuration says; a plugin may say so after
// it did. With no room to keep the request it cannot: MaxRetryRPCBufferSize commits the
// call to its first attempt as soon as the request was written.
func (p *Process) dialOptions() []grpc.DialOption {
	l := p.opts.Limits
	return []grpc.DialOption{
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", p.run.socket)
		}),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
		grpc.WithIdleTimeout(0),
		grpc.WithMaxHeaderListSize(maxHeaders),
		grpc.WithStaticStreamWindowSize(window),
		grpc.WithStaticConnWindowSize(4 * window),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 2, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: l.Start,
		}),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(l.Receive),
			grpc.MaxCallSendMsgSize(l.Send),
			grpc.MaxRetryRPCBufferSize(0),
			grpc.WaitForReady(false),
		),
		grpc.WithChainUnaryInterceptor(p.tellEnd),
		grpc.WithChainStreamInterceptor(refuseBroker),
	}
}

// tellEnd makes a call that failed because the process died fail after Done is closed, so
// that its caller can tell.
func (p *Process) tellEnd(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	err := invoke(ctx, method, req, reply, cc, opts...)
	if err == nil || ctx.Err() != nil || !strings.HasPrefix(method, sinkMethods) {
		return err
	}
	if code := status.Code(err); code != codes.Unavailable && code != codes.Canceled {
		return err
	}
	timer := time.NewTimer(endGrace)
	defer timer.Stop()
	select {
	case <-p.run.child.exited:
	case <-timer.C:
		return err
	case <-ctx.Done():
		return err
	}
	select {
	case <-p.done:
		return status.Errorf(codes.Unavailable, "the sink plugin is gone: %s", p.exit)
	case <-ctx.Done():
		return err
	}
}

// refuseBroker keeps the plugin from opening connections through go-plugin's broker,
// which keeps a goroutine and a map entry for whatever number the plugin names.
func refuseBroker(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	if strings.HasPrefix(method, brokerMethod) {
		return nil, status.Error(codes.Unimplemented, "the broker is not used")
	}
	return streamer(ctx, desc, cc, method, opts...)
}

// ready waits until the connection is usable.
func ready(ctx context.Context, conn *grpc.ClientConn) error {
	for {
		state := conn.GetState()
		switch state {
		case connectivity.Ready:
			return nil
		case connectivity.Shutdown:
			return errors.New("the connection was closed")
		case connectivity.Idle:
			conn.Connect()
		case connectivity.TransientFailure:
			// The socket existed when its name was said, so nobody serves it.
			return fmt.Errorf("it does not answer on its socket")
		}
		if !conn.WaitForStateChange(ctx, state) {
			return context.Cause(ctx)
		}
	}
}
