package sinktest

import (
	"context"
	"io"
	"log"
	"log/slog"
	"net"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
)

// TB is what [Run] and [RunBinary] need of a test; it is a *testing.T. The package does
// without testing itself, because the relay's command line contains it too.
type TB[T any] interface {
	Helper()
	Context() context.Context
	Run(name string, f func(T)) bool
	Error(args ...any)
	Fatal(args ...any)
	Skip(args ...any)
	Log(args ...any)
}

// Run runs the suite against a sink in this process, each check as a subtest. server is
// the plugin's Server method.
//
// While it runs, [slog.Default] is the suite's, to see what the sink logs: not together
// with other tests that log.
func Run[T TB[T]](t T, server func() *grpc.Server, o Options) {
	t.Helper()
	s, err := newSuite(o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	heard, restore := listen()
	defer restore()
	if s.o.Logs == nil {
		s.o.Logs = heard.String
	}
	conn, end, err := inProcess(server())
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	s.client = sinkpb.NewSinkClient(conn)
	subtests(t, s)
}

// RunBinary runs the suite against a program in any language, each check as a subtest.
func RunBinary[T TB[T]](t T, path string, o Options) {
	t.Helper()
	s, err := newSuite(o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if s.binary, err = newBinary(path, s.patience()); err != nil {
		t.Fatal(err)
	}
	subtests(t, s)
}

func subtests[T TB[T]](t T, s *suite) {
	t.Helper()
	for _, c := range s.checks() {
		if s.o.Only != nil && !s.o.Only.MatchString(c.name) {
			continue
		}
		t.Run(c.name, func(t T) {
			t.Helper()
			result := s.run(t.Context(), c)
			switch result.Status {
			case Skipped:
				t.Skip(result.Details[0])
			case Failed:
				t.Error(result.Check + ": " + result.Why + ".\n" + strings.Join(result.Details, "\n"))
			}
		})
	}
}

// listen makes slog's default logger and package log write to what it returns, until
// restore is called.
func listen() (heard *kept, restore func()) {
	heard = &kept{}
	before, writer, flags := slog.Default(), log.Writer(), log.Flags()
	slog.SetDefault(slog.New(slog.NewJSONHandler(heard, &slog.HandlerOptions{Level: slog.LevelDebug})))
	return heard, func() {
		slog.SetDefault(before)
		log.SetOutput(writer)
		log.SetFlags(flags)
	}
}

// inProcess serves on a pipe in memory.
func inProcess(server *grpc.Server) (conn *grpc.ClientConn, end func(), err error) {
	l := bufconn.Listen(1 << 20)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(l)
	}()
	conn, err = grpc.NewClient("passthrough:sink", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }),
		grpc.WithDefaultCallOptions(grpc.MaxCallSendMsgSize(maxSend), grpc.MaxCallRecvMsgSize(maxAnswer)))
	if err != nil {
		return nil, nil, err
	}
	return conn, func() {
		closeAll(conn, l)
		server.Stop()
		<-served
	}, nil
}

func closeAll(closers ...io.Closer) {
	for _, c := range closers {
		_ = c.Close()
	}
}
