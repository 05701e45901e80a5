package relay

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/watchdog"
)

// sayOthers warns of a socket that a socket unit puts elsewhere than the configuration
// says: whoever reads the latter looks for it in vain.
func (r *relay) sayOthers(l net.Listener, configured string) {
	if at := l.Addr().String(); at != configured {
		r.log.Warn("the socket is that of the service manager, at another path than the configuration says; make ListenStream= of the socket unit and listen the same",
			"socket", at, "configured", configured)
	}
}

// word is what the service manager is told to show (STATUS= of sd_notify(3)): what the
// daemon does, or what is wrong as long as something is.
type word struct {
	mu    sync.Mutex // guards both, and the order of what is sent
	usual string
	wrong string
}

// notify tells the service manager a state, if there is one.
func (r *relay) notify(state string) {
	if r.Notify == nil {
		return
	}
	r.word.mu.Lock()
	defer r.word.mu.Unlock()
	lines := strings.Split(state, "\n")
	for i, line := range lines {
		if text, ok := strings.CutPrefix(line, "STATUS="); ok {
			r.word.usual = text
			lines[i] = "STATUS=" + r.word.now()
		}
	}
	r.send(strings.Join(lines, "\n"))
}

// trouble says what is wrong; "" that nothing is.
func (r *relay) trouble(text string) {
	r.word.mu.Lock()
	defer r.word.mu.Unlock()
	r.word.wrong = text
	r.send("STATUS=" + r.word.now())
}

func (w *word) now() string {
	if w.wrong != "" {
		return w.wrong
	}
	return w.usual
}

func (r *relay) send(state string) {
	if err := r.Notify(state); err != nil {
		r.log.Warn("service manager was not told", "state", state, "err", err)
	}
}

// watch feeds the watchdog of the service manager, if there is one, until the returned
// function is called: while the daemon starts, serves, and waits for space. A stop has
// limits of its own.
func (r *relay) watch(events, admin net.Listener) (end func()) {
	if r.Watchdog <= 0 || r.Notify == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var dog sync.WaitGroup
	dog.Go(func() {
		watchdog.Run(ctx, watchdog.Options{Limit: r.Watchdog, Logger: r.log, Notify: r.notify, Status: r.trouble,
			Parts: []watchdog.Part{
				{Name: "queue", Turn: r.queueTurn, Storage: watchdog.Slow},
				{Name: "deliveries", Turn: r.dispatchTurn, Storage: watchdog.Stuck},
				watchdog.Socket("events socket", events.Addr().String(), r.ingest.Full),
				watchdog.Socket("admin socket", admin.Addr().String(), r.api.Full),
			}})
	})
	return func() {
		cancel()
		dog.Wait()
	}
}

// queueTurn has the committer go round. A store that is not open, or has stopped, is
// known: the daemon waits for space, or ends.
func (r *relay) queueTurn(ctx context.Context, at func(string)) error {
	s := r.store.get()
	if s == nil {
		return nil
	}
	at("the committer")
	_ = s.Turn(ctx) // its error is that it has stopped
	return nil
}

func (r *relay) dispatchTurn(ctx context.Context, at func(string)) error {
	d := r.dispatcher.running()
	if d == nil {
		return nil
	}
	err := d.Turn(ctx, at)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

const (
	// startLook is how often a start that takes long is looked at, and startMore how much
	// longer it may take then, if it works.
	startLook = 5 * time.Second
	startMore = 60 * time.Second
)

// sayStarting asks the service manager for more time while the store is being opened, for
// as long as that gets ahead; an hour of recovery is no reason to begin it again. A start
// that hangs is not prolonged.
func (r *relay) sayStarting() (end func()) {
	if r.Notify == nil {
		return func() {}
	}
	r.notify("STATUS=opening the queue")
	quit := make(chan struct{})
	var teller sync.WaitGroup
	teller.Go(func() {
		began, before := time.Now(), watchdog.Look()
		tick := time.NewTicker(startLook)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
			}
			now := watchdog.Look()
			if now.Progress(before, startLook) {
				r.notify(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d\nSTATUS=opening the queue for %v", startMore.Microseconds(), time.Since(began).Round(time.Second)))
			}
			before = now
		}
	})
	return func() {
		close(quit)
		teller.Wait()
	}
}
