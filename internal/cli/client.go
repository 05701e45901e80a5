package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/peanutsapp/peanuts-relay/internal/adminclient"
	"github.com/peanutsapp/peanuts-relay/internal/config"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

// adminFlag is for the commands that talk to the daemon's admin socket.
func (a *app) adminFlag(c *cobra.Command) *cobra.Command {
	c.Flags().StringVar(&a.admin, "admin", "", "`PATH` of the admin socket; default listen.admin of the configuration")
	return c
}

// configFile is the file that --config or the search order names.
func (a *app) configFile() (string, error) {
	path, err := config.Find(a.configPath, a.Env)
	if err != nil {
		return "", WithExit(ExitConfig, err, "")
	}
	return path, nil
}

// listeners reads where the daemon listens. No secret is read for it, so that a
// user who may read the file but none of its secrets can use the sockets.
func (a *app) listeners(flag string) (events, admin string, err error) {
	path, err := a.configFile()
	if err == nil {
		events, admin, err = config.Listeners(path)
	}
	if err == nil && (events == "" || admin == "") {
		err = fmt.Errorf("%s: listen names no socket", path)
	}
	if err == nil {
		return events, admin, nil
	}
	f := &fault{code: ExitConfig, err: fmt.Errorf("find the daemon's socket: %w", err),
		hint: "name the socket with " + flag + ", or the file with --config; peanuts-relay check says what is wrong with it"}
	// The findings have no cause to ask for.
	if path != "" && errors.Is(unix.Access(path, unix.R_OK), fs.ErrPermission) {
		f.code, f.hint = ExitPermission, "name the socket with "+flag+", or try sudo"
	}
	return "", "", f
}

func (a *app) eventsSocket(flag string) (string, error) {
	if flag != "" {
		return flag, nil
	}
	events, _, err := a.listeners("--socket")
	if exitCode(err) == ExitConfig {
		if socket := a.runningEvents(); isSocket(socket) {
			fmt.Fprintf(a.Err, "%s %v; sending to %s\n", a.errStyle().warn("warning:"), rootCause(err), socket)
			return socket, nil
		}
	}
	return events, err
}

// runningEvents finds the events socket of a daemon that goes on while its files
// are broken: a slip of the operator does not stop programs that send. The daemon
// knows best; a user who may not ask it goes by what the files still say.
func (a *app) runningEvents() string {
	if admin, ok := a.runningSocket(); ok {
		if s, err := status(admin); err == nil {
			return s.Listen.Events
		}
	}
	path, err := config.Find(a.configPath, a.Env)
	if err != nil {
		return ""
	}
	return config.EventsSocket(path)
}

func (a *app) adminSocket() (string, error) {
	if a.admin != "" {
		return a.admin, nil
	}
	_, admin, err := a.listeners("--admin")
	if exitCode(err) == ExitConfig {
		if socket, ok := a.runningSocket(); ok {
			fmt.Fprintf(a.Err, "%s %v; asking the daemon at %s\n", a.errStyle().warn("warning:"), rootCause(err), socket)
			return socket, nil
		}
	}
	return admin, err
}

// probeTimeout bounds the question which files a daemon has.
const probeTimeout = 5 * time.Second

// runningSocket finds the socket of a daemon that goes on while its files do not
// say where: when they are broken the command line is needed most. Only the
// daemon of these very files will do.
func (a *app) runningSocket() (string, bool) {
	path, err := config.Find(a.configPath, a.Env)
	if err != nil {
		return "", false
	}
	whole, err := filepath.Abs(path)
	if err != nil {
		return "", false
	}
	for _, socket := range config.AdminSockets(path) {
		if isSocket(socket) && servesFile(socket, whole) {
			return socket, true
		}
	}
	return "", false
}

// servesFile asks the daemon at socket whether path is its main file.
func servesFile(socket, path string) bool {
	s, err := status(socket)
	return err == nil && filepath.Clean(s.Config.Path) == path
}

func status(socket string) (rest.Status, error) {
	ctx, cancel := context.WithTimeout(context.Background(), probeTimeout)
	defer cancel()
	c := adminclient.New(socket)
	defer c.Close()
	return c.Status(ctx)
}

func isSocket(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().Type() == fs.ModeSocket
}

// withAdmin runs f with a client of the admin socket and words its errors.
func (a *app) withAdmin(f func(*adminclient.Client) error) error {
	socket, err := a.adminSocket()
	if err != nil {
		return err
	}
	c := adminclient.New(socket)
	defer c.Close()
	return adminFault(socket, f(c))
}

// adminFault gives the errors of the admin client their exit status and what to
// do about them.
func adminFault(socket string, err error) error {
	if err == nil || isFault(err) {
		return err
	}
	refused, isRefused := errors.AsType[*adminclient.Error](err)
	switch {
	case errors.Is(err, adminclient.ErrUnreachable):
		return socketFault(socket, errNobody, "")
	case errors.Is(err, adminclient.ErrPermission):
		return socketFault(socket, fs.ErrPermission, "it belongs to the daemon's user: try sudo")
	case errors.Is(err, context.Canceled):
		return WithExit(ExitFailure, errors.New("interrupted"), "")
	case isRefused:
		return refusal(refused)
	}
	return WithExit(ExitUnavailable, fmt.Errorf("the conversation with the daemon at %s broke: %w", socket, err), "peanuts-relay status says whether it runs")
}

var errNobody = errors.New("nothing listens there")

func isFault(err error) bool {
	_, ok := errors.AsType[*fault](err)
	return ok
}

func refusal(e *adminclient.Error) error {
	f := &fault{code: ExitFailure, err: e}
	switch {
	case e.Code == rest.CodeNotFound && e.Field == "": // a route, not an object
		f.hint = "is the socket that of listen.admin, and the daemon of this version?"
	case e.Code == rest.CodeNotFound && e.Field == "generation":
		f.hint = "peanuts-relay config history lists them"
	case e.Code == rest.CodeNotFound:
		f.hint = "peanuts-relay webhooks and peanuts-relay deliveries list what there is"
	case e.Code == rest.CodeInvalidConfig:
		f.code, f.hint = ExitConfig, strings.Join(findingLines(e.Findings), "\n  ")
	case e.Code == rest.CodeInFlight:
		f.code, f.hint = ExitTryAgain, "try again when the attempt is over"
	case e.Code == rest.CodePayloadExpired:
		f.hint = "history.payloads of the configuration says how long payloads are kept"
	case e.Code == rest.CodeBadRequest:
		f.code = ExitUsage
	case e.Status == http.StatusForbidden, e.Status == http.StatusUnauthorized:
		f.code = ExitPermission
	case e.Status == http.StatusTooManyRequests, e.Status == http.StatusServiceUnavailable, e.Status == http.StatusInsufficientStorage:
		f.code, f.hint = ExitTryAgain, "try again later; peanuts-relay status says what is wrong"
	}
	return f
}

// findingLines is one line for each of findings, at most as many as check
// prints.
func findingLines(findings []rest.Finding) []string {
	const most = 20
	var lines []string
	for i, f := range findings {
		if i == most {
			lines = append(lines, fmt.Sprintf("and %d more", len(findings)-most))
			break
		}
		line := f.Severity + ": " + f.File
		if f.Line > 0 {
			line += ":" + strconv.Itoa(f.Line)
		}
		line += ": " + f.Message
		if f.Suggestion != "" {
			line += " (" + f.Suggestion + ")"
		}
		lines = append(lines, oneLine(line))
	}
	return lines
}

// completionTimeout bounds what a shell waits for when a name is completed.
const completionTimeout = time.Second

// completeWebhooks completes the names of webhooks from the running daemon.
func (a *app) completeWebhooks(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	socket, err := a.adminSocket()
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
	defer cancel()
	c := adminclient.New(socket)
	defer c.Close()
	list, err := c.Webhooks(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, w := range list.Webhooks {
		names = append(names, w.ID)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
