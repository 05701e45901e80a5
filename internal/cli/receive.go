package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

const defaultReceiver = "127.0.0.1:9000"

type receiveFlags struct {
	secret secretFlags
	fail   int
	status int
	delay  time.Duration
	header bool
	body   bool
	json   bool
}

func (a *app) receiveCommand() *cobra.Command {
	f := &receiveFlags{}
	c := a.command(&cobra.Command{
		Use:   "receive [ADDR]",
		Short: "runs a local receiver that verifies signatures and prints events",
		Long: `runs a local receiver that verifies signatures and prints each request in one line.
ADDR is host:port, by default ` + defaultReceiver + `; port 0 picks a free one. It answers 200, and 401
to a signature that is not valid. A duplicate is a delivery that was answered 2xx
before. Ctrl-C ends it with a summary`,
		Example: `peanuts-relay receive --secret-file /etc/peanuts-relay/expenses.secret
peanuts-relay receive 127.0.0.1:9100 --secret s3cret --fail 2 --delay 500ms`,
		Args: wantArgs(0, 1, "at most one address"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.receive(cmd, f, args) },
	})
	f.secret.register(c)
	flags := c.Flags()
	flags.IntVar(&f.fail, "fail", 0, "answer the first `N` requests with 500, or with --status, and the others with 200")
	flags.IntVar(&f.status, "status", 0, "answer with this `CODE`")
	flags.DurationVar(&f.delay, "delay", 0, "wait this `TIME` before every answer, such as 500ms")
	flags.BoolVar(&f.header, "headers", false, "print the headers too, as verify takes them")
	flags.BoolVar(&f.body, "body", false, "print the body too")
	flags.BoolVar(&f.json, "json", false, "print one JSON object per request")
	return c
}

func (a *app) receive(cmd *cobra.Command, f *receiveFlags, args []string) error {
	switch {
	case f.fail < 0:
		return usagef(seeHelp(cmd), "--fail %d: want a number of requests", f.fail)
	case f.status != 0 && (f.status < 200 || f.status > 599):
		return usagef(seeHelp(cmd), "--status %d: want a status from 200 to 599", f.status)
	case f.delay < 0:
		return usagef(seeHelp(cmd), "--delay %v: want a time from now on", f.delay)
	}
	secrets, err := a.secrets(&f.secret)
	if err != nil {
		return err
	}
	addr := defaultReceiver
	if len(args) > 0 {
		addr = args[0]
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, unix.SIGTERM)
	defer stop()
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return listenFault(addr, err)
	}
	r := &receiver{app: a, flags: f, secrets: secrets, failures: f.fail, done: map[string]bool{}}
	if len(secrets) == 0 {
		fmt.Fprintf(a.Err, "%s signatures are not checked: give --secret, --secret-file or $%s\n", a.errStyle().warn("warning:"), secretVariable)
	}
	fmt.Fprintf(a.Err, "listening on http://%s\n", listener.Addr())
	err = r.serve(ctx, listener)
	fmt.Fprintln(a.Err, r.summary())
	return err
}

func listenFault(addr string, err error) error {
	f := &fault{code: ExitFailure, err: fmt.Errorf("cannot listen on %s: %w", addr, rootCause(err))}
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		f.hint = "something else listens there; port 0 picks a free one: peanuts-relay receive 127.0.0.1:0"
	case errors.Is(err, unix.EACCES):
		f.code, f.hint = ExitPermission, "ports below 1024 need root"
	default:
		f.hint = "ADDR is host:port, for example " + defaultReceiver
	}
	return f
}

// Limits of the receiver: it serves one developer, but whatever finds its port.
const (
	receiverHeaderTime = 10 * time.Second
	receiverStopTime   = 2 * time.Second
)

func (r *receiver) serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{Handler: r, ReadHeaderTimeout: receiverHeaderTime, ReadTimeout: time.Minute,
		BaseContext: func(net.Listener) context.Context { return ctx }}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	select {
	case err := <-ended:
		return fmt.Errorf("receive: %w", err)
	case <-ctx.Done():
	}
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), receiverStopTime)
	defer cancel()
	if server.Shutdown(stopping) != nil {
		_ = server.Close() // a client that holds its connection does not keep us
	}
	<-ended
	return nil
}
