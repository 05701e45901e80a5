package cli

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// notifyPatience bounds how long the daemon waits for a service manager that
// does not read what it is told.
const notifyPatience = 5 * time.Second

// notifier tells the service manager what the daemon does (sd_notify(3)).
type notifier struct {
	turn     chan struct{} // holds the one message that is under way, so that the order stays
	patience time.Duration
}

func newNotifier() *notifier {
	return &notifier{turn: make(chan struct{}, 1), patience: notifyPatience}
}

// notify sends one state, such as READY=1. RELOADING=1 gets the time that its
// protocol asks for, MONOTONIC_USEC=. It does nothing when no service manager
// listens, may be called concurrently, and returns within about 10 s.
func (n *notifier) notify(state string) error {
	if os.Getenv("NOTIFY_SOCKET") == "" {
		return nil
	}
	patience := time.NewTimer(n.patience)
	defer patience.Stop()
	select {
	case n.turn <- struct{}{}:
	case <-patience.C:
		return fmt.Errorf("notify the service manager: it has not taken the message before for %s", n.patience)
	}
	if hasState(state, daemon.SdNotifyReloading) && !strings.Contains(state, "MONOTONIC_USEC=") {
		state = strings.TrimSuffix(state, "\n") + "\n" + daemon.SdNotifyMonotonicUsec()
	}
	sent := make(chan error, 1)
	go func() {
		_, err := daemon.SdNotify(false, state)
		<-n.turn
		sent <- err
	}()
	select {
	case err := <-sent:
		if err != nil {
			return fmt.Errorf("notify the service manager: %w", err)
		}
		return nil
	case <-patience.C:
		return fmt.Errorf("notify the service manager: it has not taken the message for %s", n.patience)
	}
}

// watchdogLimit is how long the service manager waits for word before it restarts this
// process (sd_watchdog_enabled(3)); 0 = it does not, or watches another process.
func (a *app) watchdogLimit() time.Duration {
	limit, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		fmt.Fprintf(a.Err, "%s %v; the watchdog is not fed\n", a.errStyle().warn("warning:"), err)
		return 0
	}
	return limit
}

// hasState reports whether one of the lines of state is this one.
func hasState(state, line string) bool {
	for s := range strings.SplitSeq(state, "\n") {
		if s == line {
			return true
		}
	}
	return false
}
