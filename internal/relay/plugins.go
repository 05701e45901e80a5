package relay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/config"
	"github.com/peanutsapp/peanuts-relay/internal/plugincheck"
	"github.com/peanutsapp/peanuts-relay/internal/pluginhost"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
	"github.com/peanutsapp/peanuts-relay/internal/secret"
	"github.com/peanutsapp/peanuts-relay/sinks"
)

// bootPatience is how long the daemon's start waits for plugins, all together. Webhooks
// of those that take longer are held until they are ready.
const bootPatience = 5 * time.Second

// socketDir is where the plugins' sockets are: beside the admin socket, whose lock
// keeps a second daemon away.
func socketDir(cfg *config.Config) string {
	return strings.TrimSuffix(cfg.Listen.Admin, ".sock") + "-sinks"
}

func (r *relay) newHost() *pluginhost.Host {
	return pluginhost.New(pluginhost.Options{Logger: r.log, SocketDir: socketDir(r.boot), Version: r.Version, Changed: func() {
		if d := r.dispatcher.running(); d != nil {
			d.Recheck()
		}
	}})
}

// checkPlugins has the plugins look at the settings of a new configuration.
func (r *relay) checkPlugins(ctx context.Context, cfg *config.Config, report *config.Report) (later bool) {
	return plugincheck.Run(ctx, r.host, cfg, report, false)
}

// openPlugin makes the webhook's instance of its plugin.
func (w *webhook) openPlugin(ctx context.Context, cfg *config.Config, from sources) error {
	instance, diagnostics, err := from.host.Open(ctx, pluginhost.InstanceOptions{
		File:     plugincheck.File(cfg, w.Sink),
		Webhook:  w.ID,
		Settings: []byte(w.SettingsJSON.Reveal()),
		Secrets:  func(schema []byte) []secret.String { return plugincheck.Secrets(&w.Webhook, schema) },
		Signer:   w.signer,
		Helper:   sinks.Helper{ID: w.Helper.ID, Name: w.Helper.Name, Command: w.Helper.Command},
		Patient:  from.patient,
	})
	for _, d := range diagnostics {
		if !d.Warning && instance == nil { // the check has shown the others, the host has logged why it is held
			err = errors.Join(err, fmt.Errorf("sink %s, setting %s: %s", w.Sink, d.Path, d.Summary))
		}
	}
	if err != nil {
		return err
	}
	w.plugin, w.sink = instance, instance
	return nil
}

// takes are the types of events that the webhook gets; nil = all. A plugin may not
// be able to carry all that the file lets through.
func (w *webhook) takes() map[string]bool {
	takes := w.Takes()
	if w.plugin == nil {
		return takes
	}
	can := w.plugin.Capabilities().Events
	if len(can) == 0 {
		return takes
	}
	out := map[string]bool{}
	for _, name := range can {
		if takes == nil || takes[name] {
			out[name] = true
		}
	}
	return out
}

// plugins is how the processes fare, for the status.
func (r *relay) plugins() []rest.Plugin {
	var out []rest.Plugin
	for _, p := range r.host.Status() {
		var refused []rest.PluginRefusal
		for _, x := range p.Refused {
			refused = append(refused, rest.PluginRefusal{Webhook: x.Webhook, Reason: x.Reason})
		}
		out = append(out, rest.Plugin{Sink: p.Sink, Path: p.Path, SHA256: p.SHA256, Outdated: p.Outdated, Version: p.Version, State: string(p.State), PID: p.PID, Since: rest.At(p.Since),
			NextStartAt: rest.At(p.NextStart), Restarts: p.Restarts, Crashes: p.Ends, Dropped: p.Dropped, LastError: p.LastError, CrashReport: p.CrashReport,
			Healthy: p.Healthy, Health: p.HealthMessage, Webhooks: slices.Clone(p.Webhooks), Refused: refused})
	}
	return out
}
