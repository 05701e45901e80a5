package pluginhost

import (
	"slices"
	"strings"
	"time"
)

// Status is how one plugin fares. While a plugin is replaced there are two of the same
// sink. It has many fields because it is all that can be known.
type Status struct {
	Sink    string
	Path    string
	SHA256  string // of the file that runs; "" = it could not be opened yet
	Version string // as the plugin says; "" before it has

	State     State
	Since     time.Time // of State
	PID       int       // 0 = there is no process
	NextStart time.Time // zero unless StateBackoff or StateSuspended
	Outdated  bool      // the file on the disk is another one

	Restarts    uint64 // processes that were ready, but for the first
	Ends        int    // processes that ended, and starts that failed, in the last ten minutes, at most five
	LastError   string // how the last of them ended; "" = none has
	CrashReport string // what it wrote when it did; "" = nothing

	Healthy       bool   // as the plugin says; true while it says nothing
	HealthMessage string // and why not
	Dropped       uint64 // lines of its output that were not logged, because there were too many

	Webhooks []string // that use it, sorted
	Refused  []Refused
}

// Refused is a webhook whose instance the plugin does not take.
type Refused struct {
	Webhook string
	Reason  string
}

// Status says how all plugins fare, sorted by sink; of one sink the newest comes last.
func (h *Host) Status() []Status {
	var out []Status
	for _, b := range h.all() {
		if s := b.status(); s.State != stateStopped {
			out = append(out, s)
		}
	}
	slices.SortStableFunc(out, func(a, b Status) int { return strings.Compare(a.Sink, b.Sink) })
	return out
}

func (b *binary) status() Status {
	outdated := !b.current() // looks at the disk, so without the lock
	b.mu.Lock()
	defer b.mu.Unlock()
	h := &b.history
	s := Status{
		Sink: b.file.Sink, Path: b.file.Path,
		State: b.state, Since: b.since,
		Outdated: outdated, Ends: h.recent(time.Now(), &b.host.times), LastError: h.last, CrashReport: h.crash,
		Restarts: h.started - min(h.started, 1), Healthy: true,
	}
	if b.executable != nil {
		s.SHA256 = b.executable.Identity().SHA256
	}
	if b.about != nil {
		s.Version = b.about.Version
	}
	if s.State == StateBackoff || s.State == StateSuspended {
		s.NextStart = h.next
	}
	if r := b.run; r != nil {
		s.PID, s.Dropped = r.child.PID(), r.child.Dropped()
		s.Healthy, s.HealthMessage = r.healthy, r.feelings
	}
	for _, i := range b.instances {
		s.Webhooks = append(s.Webhooks, i.opts.Webhook)
		if reason := i.refused + i.trouble; reason != "" && i.on != b.run {
			s.Refused = append(s.Refused, Refused{i.opts.Webhook, reason})
		}
	}
	slices.Sort(s.Webhooks)
	s.Webhooks = slices.Compact(s.Webhooks)
	return s
}
