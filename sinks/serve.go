package sinks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	hclog "github.com/hashicorp/go-hclog"
	plugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
)

// What the relay and a plugin agree on before they speak gRPC. The cookie is no secret:
// it is how a plugin notices that somebody started it by hand.
const (
	MagicCookieKey   = "PEANUTS_RELAY_SINK"
	MagicCookieValue = "5e1c7b0a-peanuts-relay-sink-v1"
	ProtocolVersion  = 1
	PluginName       = "sink" // in go-plugin's map of plugins
)

// nameFile is where the kernel keeps the name of this process.
const nameFile = "/proc/self/comm"

// lastGrace is what the end of the process leaves to sinks that close.
const lastGrace = 2 * time.Second

// How much of one call, and of all calls together, the relay may send before it is read,
// in bytes. grpc begins with 64 KiB for all, so that batches that are sent at a time would
// wait for each other.
const (
	streamWindow = 1 << 20
	connWindow   = 8 << 20
)

// Serve is the only call of a plugin's main. It serves the sink to the relay that
// started the process and ends the process when it is told to, or when the relay is
// gone: it never returns.
//
// Started by hand, the program explains itself. Its subcommand describe prints the
// description as JSON.
//
// Serve owns the process: it sets [slog.Default], takes standard input, and ignores
// SIGTERM and SIGINT, because the relay decides when a sink ends. What is written to
// [os.Stderr] and [os.Stdout] reaches the log of the relay line by line. Unless GOGC or
// GOMEMLIMIT is set, at least 24 MiB may be allocated between two collections of garbage.
func Serve[C any](p Plugin[C]) {
	k, err := p.kit()
	if err != nil {
		fmt.Fprintf(os.Stderr, "this sink cannot run: %v\n", err)
		os.Exit(exitBug)
	}
	if len(os.Args) > 1 {
		os.Exit(k.command(os.Args[1:], os.Stdout, os.Stderr))
	}
	if os.Getenv(MagicCookieKey) != MagicCookieValue {
		fmt.Fprint(os.Stderr, k.help())
		os.Exit(exitByHand)
	}
	room := leaveRoom(os.Getenv)
	defer runtime.KeepAlive(room)
	k.serve(os.Stdin, os.Stdout, os.Stderr)
}

// How a plugin exits.
const (
	exitBug    = 1 // it is described wrongly, or could not serve
	exitByHand = 2 // it was started by hand
)

// command runs a subcommand.
func (k *kit) command(args []string, out, errs io.Writer) (status int) {
	switch args[0] {
	case "describe":
		_, _ = out.Write(k.describe())
	case "help", "--help", "-h":
		_, _ = io.WriteString(out, k.help())
	case "version", "--version":
		fmt.Fprintln(out, k.name, k.about.GetVersion())
	default:
		fmt.Fprintf(errs, "unknown command %q\n\n%s", args[0], k.help())
		return exitByHand
	}
	return 0
}

// help says what this program is to somebody who started it by hand.
func (k *kit) help() string {
	summary, homepage := k.about.GetSummary(), k.about.GetHomepage()
	if summary == "" {
		summary = "a sink"
	}
	if homepage != "" {
		homepage = "\nDocumentation: " + homepage + "\n"
	}
	return fmt.Sprintf(`peanuts-sink-%[1]s %[2]s: %[3]s

This is a plugin of Peanuts Relay, which starts it by itself. Put it into the
directory that plugins.dir names, say "sink: %[1]s" at a webhook, and check with

  peanuts-relay check

What it is and which settings it takes, as JSON:

  peanuts-sink-%[1]s describe
%[4]s`, k.name, k.about.GetVersion(), summary, homepage)
}

// showName gives the process a name that ps and top show. The relay executes a
// descriptor, of which the kernel makes the name 3. Where there is no such file, there is
// no such name.
func (k *kit) showName() { _ = os.WriteFile(nameFile, []byte("sink-"+k.name), 0) }

// serve serves until the relay ends it or is gone, and exits.
func (k *kit) serve(stdin, stdout, stderr *os.File) {
	// A channel that nobody reads: the signals are taken, and dropped. Unlike an ignored
	// signal, the programs that a sink starts do not inherit that.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGTERM, syscall.SIGINT)
	log := newLog(stderr)
	slog.SetDefault(slog.New(log))
	k.showName()

	svc := newService(k, log)
	serving := make(chan *grpc.Server, 1)
	var made atomic.Bool
	if isLifeline(stdin) {
		go func() {
			_, _ = io.Copy(io.Discard, stdin)
			// The server is stopped and not just left, because that removes its socket.
			select {
			case server := <-serving:
				server.Stop()
			case <-time.After(lastGrace):
			}
			svc.shutdown()
			os.Exit(0)
		}()
	}
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig: plugin.HandshakeConfig{ProtocolVersion: ProtocolVersion, MagicCookieKey: MagicCookieKey, MagicCookieValue: MagicCookieValue},
		Plugins:         plugin.PluginSet{PluginName: &goPlugin{service: svc}},
		Logger: hclog.New(&hclog.LoggerOptions{Name: "serve", Level: hclog.Warn, DisableTime: true,
			Output: slog.NewLogLogger(log, slog.LevelWarn).Writer()}),
		GRPCServer: func(opts []grpc.ServerOption) *grpc.Server {
			back := sync.OnceFunc(func() { os.Stdout, os.Stderr = stdout, stderr })
			server := grpc.NewServer(append(opts,
				grpc.MaxRecvMsgSize(maxReceive),
				grpc.ForceServerCodecV2(sinkpb.Codec{}),
				grpc.StaticStreamWindowSize(streamWindow),
				grpc.StaticConnWindowSize(connWindow),
				grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
					back()
					return next(ctx, req)
				}),
			)...)
			made.Store(true)
			serving <- server
			return server
		},
	})
	svc.shutdown()
	if !made.Load() {
		os.Exit(exitBug) // go-plugin has logged why
	}
	os.Exit(0)
}

// shutdown closes the sinks, within a time.
func (s *service) shutdown() {
	ctx, cancel := context.WithTimeout(context.Background(), lastGrace)
	defer cancel()
	_, _ = s.Drain(ctx, &sinkpb.DrainRequest{})
}

// isLifeline reports whether the end of stdin means that the relay is gone. A terminal
// and /dev/null say nothing about it.
func isLifeline(stdin *os.File) bool {
	info, err := stdin.Stat()
	return err == nil && info.Mode()&(os.ModeNamedPipe|os.ModeSocket) != 0
}

// goPlugin registers the service with go-plugin's server.
type goPlugin struct {
	plugin.NetRPCUnsupportedPlugin
	service *service
}

func (p *goPlugin) GRPCServer(_ *plugin.GRPCBroker, server *grpc.Server) error {
	sinkpb.RegisterSinkServer(server, p.service)
	return nil
}

func (p *goPlugin) GRPCClient(context.Context, *plugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, errors.New("this is the side of the plugin")
}
