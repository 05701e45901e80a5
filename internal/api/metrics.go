package api

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/peanutsapp/peanuts-relay/internal/id"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

// collector makes the metrics of a scrape from counters in memory; of the
// store's rows it reads the oldest one of every lane that has any, by one seek.
// Names follow https://prometheus.io/docs/practices/naming/. The labels' values
// are what is configured (helpers, webhooks, sinks), and words of fixed lists; every
// series is there from the first scrape on, but for those that are there only while a
// key needs a restart. A webhook has few series: there may be thousands of webhooks.
type collector struct{ api *API }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("peanuts_relay_"+name, help, labels, nil)
}

// Describe sends nothing: the collector is unchecked, its descriptions are made
// where the values are.
func (c *collector) Describe(chan<- *prometheus.Desc) {}

// sample writes metrics to one scrape.
type sample struct{ ch chan<- prometheus.Metric }

func (s sample) counter(d *prometheus.Desc, v float64, labels ...string) {
	s.ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
}

func (s sample) gauge(d *prometheus.Desc, v float64, labels ...string) {
	s.ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

// Collect implements [prometheus.Collector].
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	s := sample{ch}
	status := c.api.Status()
	s.gauge(desc("build_info", "Always 1; the labels say which build runs.", "version", "commit", "go_version"), 1,
		status.Version, status.Commit, status.GoVersion)
	s.gauge(desc("start_time_seconds", "Unix time of the daemon's start."), float64(status.StartedAt.UnixMilli())/1000)
	c.config(s, &status.Config)
	c.ingest(s)
	c.store(s, status.Queue.MaxBytes)
	lanes := c.api.lanes()
	sinks := map[string]bool{}
	for i := range lanes {
		if sink := lanes[i].Shown.Sink; sink != "" { // nobody knows that of a removed one
			sinks[sink] = true
		}
	}
	c.api.Timings.collect(s, sinks)
	c.webhooks(s, lanes)
	c.plugins(s, status.Plugins)
	s.gauge(desc("stream_readers", "Readers of the stream of changes."), float64(c.api.Feed.readers()))
}

func (c *collector) config(s sample, config *rest.Config) {
	s.gauge(desc("config_generation", "Counts the applied configurations, over restarts."), float64(config.Generation))
	s.gauge(desc("config_last_reload_successful", "1 when what runs is what the files say; 0 when the files were refused."),
		truth(config.State == rest.ConfigCurrent))
	loaded := 0.0
	if !config.LoadedAt.IsZero() {
		loaded = float64(config.LoadedAt.UnixMilli()) / 1000
	}
	s.gauge(desc("config_last_reload_success_timestamp_seconds", "Unix time at which the running configuration was loaded; 0 = none runs yet."), loaded)
	restart := desc("config_restart_required", "1 for each key whose value in the files takes effect at the next start.", "key")
	for _, key := range config.RestartRequired {
		s.gauge(restart, 1, key)
	}
	reloads := desc("config_reloads_total", "Reloads since the start, by what asked for them and how they ended.", "trigger", "result")
	for _, trigger := range rest.ReloadTriggers() {
		for _, result := range rest.ReloadResults() {
			var n uint64
			for _, r := range config.Reloads {
				if r.Trigger == trigger && r.Result == result {
					n += r.Count
				}
			}
			s.counter(reloads, float64(n), trigger, result)
		}
	}
}

func (c *collector) ingest(s sample) {
	in := c.api.Ingest()
	accepted := desc("events_accepted_total", "Events written to disk and acknowledged.", "helper")
	for helper, n := range c.api.AcceptedBy() {
		s.counter(accepted, float64(n), helper)
	}
	s.counter(desc("events_duplicate_total", "Events answered with the first answer to the same id or key."), float64(in.Duplicates))
	s.counter(desc("unstable_json_total", "Accepted events with a number that JavaScript does not keep."), float64(in.Unstable))
	rejected := desc("events_rejected_total", "Events refused, by reason.", "reason")
	for _, r := range in.Rejected {
		s.counter(rejected, float64(r.Count), r.Reason)
	}
}

func (c *collector) store(s sample, maxBytes int64) {
	stats := c.api.Store.Stats()
	s.gauge(desc("ready", "1 while events are taken, as /readyz answers."), truth(c.api.unready() == nil))
	s.gauge(desc("queue_live_bytes", "Bytes that pending deliveries count for."), float64(stats.LiveBytes))
	s.gauge(desc("queue_max_bytes", "Bytes that pending deliveries may count for, queue.max_bytes."), float64(maxBytes))
	s.counter(desc("queue_groups_total", "Commits of the queue, each one fsync."), float64(stats.Groups))
	s.gauge(desc("queue_quarantined_records", "Damaged records set aside."), float64(stats.Quarantined))
	s.gauge(desc("disk_free_bytes", "Free space of the queue's file system."), float64(stats.DiskFree))
	s.gauge(desc("disk_min_free_bytes", "Free space below which events are refused, queue.min_free; 0 = the store is not open yet."), float64(stats.AcceptMark))
	state := desc("store_state", "1 for the state that the store is in.", "state")
	for _, name := range []string{queue.StateStarting, queue.StateOK, queue.StateNoSpace, queue.StateStopped} {
		s.gauge(state, truth(stats.State == name), name)
	}
	active := 0
	for _, job := range c.api.Dispatcher.Replays() {
		if !job.Done {
			active++
		}
	}
	s.gauge(desc("replays_active", "Replays under way."), float64(active))
}

// plugins writes one series for each sink, whichever of its processes runs.
func (c *collector) plugins(s sample, plugins []rest.Plugin) {
	state := desc("plugin_state", "Processes of a sink plugin by state; more than one while it is replaced.", "sink", "state")
	up := desc("plugin_up", "1 while a process of the sink plugin takes deliveries.", "sink")
	restarts := desc("plugin_restarts_total", "How often a sink plugin that ended was started again since the daemon's start.", "sink")
	bySink := map[string][]rest.Plugin{}
	for _, p := range plugins {
		bySink[p.Sink] = append(bySink[p.Sink], p)
	}
	for sink, of := range bySink {
		in, again := map[string]int{}, uint64(0)
		for _, p := range of {
			in[p.State]++
			again = max(again, p.Restarts)
		}
		for _, name := range rest.PluginStates() {
			s.gauge(state, float64(in[name]), sink, name)
		}
		s.gauge(up, truth(in[rest.PluginReady] > 0), sink)
		s.counter(restarts, float64(again), sink)
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// storeName is the store's number as the ids of its events and deliveries spell
// it.
func storeName(store uint64) string {
	event := id.Event(store, 0)
	const prefix, length = len("evt_"), 8
	return event[prefix : prefix+length]
}
