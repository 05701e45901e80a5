package api

import (
	"cmp"
	"net/http"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

func (a *API) getStatus(_ http.ResponseWriter, r *http.Request) (any, error) {
	if _, err := params(r); err != nil {
		return nil, err
	}
	s := a.Status()
	s.Uptime = rest.Millis(a.Now().Sub(s.StartedAt.Time).Truncate(time.Millisecond))
	s.Config.Files, s.Config.Warnings = list(s.Config.Files), list(s.Config.Warnings)
	s.Config.RestartRequired = list(s.Config.RestartRequired)
	s.Config.Reloads = list(s.Config.Reloads)
	s.Ingest = a.Ingest()
	s.Ingest.Rejected = list(s.Ingest.Rejected)
	s.Plugins = list(s.Plugins)
	s.Webhooks = []rest.Lane{}
	stats, lanes := a.Store.Stats(), a.lanes()
	for _, l := range lanes {
		s.Webhooks = append(s.Webhooks, l.short())
		if t := a.oldest(&l); !t.IsZero() && (s.Queue.OldestPendingAt.IsZero() || t.Before(s.Queue.OldestPendingAt.Time)) {
			s.Queue.OldestPendingAt = rest.At(t)
		}
	}
	a.queueStatus(&s, &stats)
	for _, job := range a.Dispatcher.Replays() {
		if !job.Done {
			s.Replays++
		}
	}
	s.Reasons = append(list(s.Reasons), reasons(&stats, lanes)...)
	if s.State == "" {
		s.State = rest.StateOK
		if len(s.Reasons) > 0 {
			s.State = rest.StateDegraded
		}
	}
	return s, nil
}

// queueStatus fills in the counters of s.Queue from the store's and from
// s.Webhooks.
func (a *API) queueStatus(s *rest.Status, stats *queue.Stats) {
	q := &s.Queue
	q.State, q.Accepted, q.DiskFree, q.MinFree = stats.State, stats.Deliveries, stats.DiskFree, stats.AcceptMark
	q.Groups, q.Quarantined = stats.Groups, stats.Quarantined
	q.ClockAhead = rest.Millis(stats.ClockAhead)
	q.StoreID = storeName(a.Store.StoreID())
	q.Counts = rest.Counts{Pending: stats.Pending, Success: stats.Success, Failed: stats.Failed, LiveBytes: stats.LiveBytes}
	for _, l := range s.Webhooks {
		q.Counts.InFlight += l.Counts.InFlight
		q.Counts.Held += l.Counts.Held
	}
}

// reasons are why the daemon does less than it should.
func reasons(stats *queue.Stats, lanes []fullLane) (reasons []string) {
	switch stats.State {
	case queue.StateOK:
	case queue.StateStarting:
		reasons = append(reasons, "the store is not open yet")
	case queue.StateNoSpace:
		reasons = append(reasons, "there is too little "+cmp.Or(stats.Short, "disk space")+": events are refused until there is more")
	case queue.StateStopped:
		reasons = append(reasons, "the store has stopped: the daemon is ending or must be restarted")
	default:
		reasons = append(reasons, "the store is "+stats.State)
	}
	if stats.PauseDispatch {
		reasons = append(reasons, "there is nearly no "+cmp.Or(stats.Short, "disk space")+" left: deliveries are paused until there is more")
	}
	for _, l := range lanes {
		switch l.Hold {
		case delivery.HoldMisconfigured, delivery.HoldPluginDown:
			reasons = append(reasons, "webhook "+l.Shown.ID+" is held: "+heldText(l.LaneState))
		}
	}
	return reasons
}

// getLive answers 200 as long as the process can answer and its store has not
// stopped: a supervisor restarts what is not live.
func (a *API) getLive(_ http.ResponseWriter, r *http.Request) (any, error) {
	if _, err := params(r); err != nil {
		return nil, err
	}
	if a.Store.Stats().State == queue.StateStopped {
		return unhealthy("the store has stopped")
	}
	return rest.Health{OK: true, Reasons: []string{}}, nil
}

// getReady answers 200 while events are accepted.
func (a *API) getReady(_ http.ResponseWriter, r *http.Request) (any, error) {
	if _, err := params(r); err != nil {
		return nil, err
	}
	if why := a.unready(); why != nil {
		return unhealthy(why...)
	}
	return rest.Health{OK: true, Reasons: []string{}}, nil
}

// unready says why events are not taken; nil = they are.
func (a *API) unready() (why []string) {
	if a.Ready != nil {
		if err := a.Ready(); err != nil {
			return []string{err.Error()}
		}
	}
	if stats := a.Store.Stats(); stats.State != queue.StateOK {
		return reasons(&stats, nil)
	}
	return nil
}

func unhealthy(reasons ...string) (any, error) {
	return withStatus{http.StatusServiceUnavailable, rest.Health{Reasons: reasons}}, nil
}
