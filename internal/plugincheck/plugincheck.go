// Package plugincheck has the sink plugins of a configuration look at the settings
// of its webhooks, and puts what they find at the lines of the files.
//
// Guarantee: a plugin is asked once for each webhook that uses it, and nothing is
// delivered, stored or sent to a remote side unless online is wished. Whatever a
// plugin does, the check ends with its context. What is found never contains the
// value of a setting.
package plugincheck

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/peanutsapp/peanuts-relay/internal/config"
	"github.com/peanutsapp/peanuts-relay/internal/pluginhost"
	"github.com/peanutsapp/peanuts-relay/internal/secret"
)

// Codes of findings.
const (
	CodeBadSetting = "bad_setting" // the plugin refuses a setting
	CodeBadPlugin  = "bad_plugin"  // the plugin cannot be asked
	CodeBadEvent   = "unknown_event"
)

// Run asks the plugins of all webhooks of cfg, those of different sinks at the same
// time, and adds what they find to the report that [config.Load] gave out with cfg.
// later says that the same files may be fine later: a plugin could not be asked.
func Run(ctx context.Context, host *pluginhost.Host, cfg *config.Config, report *config.Report, online bool) (later bool) {
	bySink := map[string][]config.Webhook{}
	var order []string
	for _, w := range cfg.Webhooks() {
		if w.Sink == config.SinkHTTP {
			continue
		}
		if bySink[w.Sink] == nil {
			order = append(order, w.Sink)
		}
		bySink[w.Sink] = append(bySink[w.Sink], w)
	}
	found := make([]findings, len(order))
	var wg sync.WaitGroup
	for i, sink := range order {
		wg.Go(func() { found[i].ask(ctx, host, File(cfg, sink), bySink[sink], online) })
	}
	wg.Wait()
	for _, f := range found {
		for _, x := range f.list {
			report.Add(x.Finding, x.path...)
		}
		later = later || f.later
	}
	return later
}

// File is where the plugin of a sink is, for the host.
func File(cfg *config.Config, sink string) pluginhost.File {
	f, _ := cfg.PluginFile(sink)
	return pluginhost.File{Sink: sink, Path: f.Path, SHA256: f.SHA256}
}

// Path is where a setting is in the files: at is a JSON Pointer (RFC 6901) into the
// settings of the webhook.
func Path(w *config.Webhook, at string) []string {
	helper, id, _ := strings.Cut(w.ID, ".")
	path := []string{"helpers", helper, "webhooks", id, "settings"}
	unescape := strings.NewReplacer("~1", "/", "~0", "~")
	for i, token := range strings.Split(at, "/") {
		if i > 0 {
			path = append(path, unescape.Replace(token))
		}
	}
	return path
}

// findings are those of one sink.
type findings struct {
	list  []placed
	later bool
}

type placed struct {
	config.Finding
	path []string
}

func (f *findings) add(path []string, severity, code, suggestion, format string, args ...any) {
	f.list = append(f.list, placed{config.Finding{Severity: severity, Code: code, Message: fmt.Sprintf(format, args...), Suggestion: suggestion}, path})
}

// ask has one plugin look at all webhooks that use it.
func (f *findings) ask(ctx context.Context, host *pluginhost.Host, file pluginhost.File, webhooks []config.Webhook, online bool) {
	path := Path(&webhooks[0], "")
	sinkKey := append(slices.Clone(path[:4]), "sink")
	plugin, err := host.Inspect(ctx, file)
	if err != nil {
		f.unasked(sinkKey, err)
		return
	}
	defer plugin.Release()
	for i := range webhooks {
		w := &webhooks[i]
		f.events(w, plugin.Description().Capabilities.Events)
		diagnostics, err := plugin.Validate(ctx, []byte(w.SettingsJSON.Reveal()), Secrets(w, plugin.Description().Schema), online)
		if err != nil {
			f.unasked(sinkKey, err)
			return
		}
		for _, d := range diagnostics {
			severity := config.SeverityError
			if d.Warning {
				severity = config.SeverityWarning
			}
			f.add(Path(w, d.Path), severity, CodeBadSetting, d.Detail, "%s: %s", subject(w, d.Path), d.Summary)
			f.list[len(f.list)-1].AtKey = d.Summary == pluginhost.NoSuchSetting
		}
	}
}

// subject names the sink, and the setting with the keys that lead to it.
func subject(w *config.Webhook, at string) string {
	if at == "" {
		return w.Sink
	}
	return w.Sink + ", setting " + strings.Join(Path(w, at)[5:], ".")
}

func (f *findings) unasked(path []string, err error) {
	f.later = true
	if errors.Is(err, context.DeadlineExceeded) {
		err = errors.New("it took too long")
	}
	f.add(path, config.SeverityError, CodeBadPlugin, "repair or replace the plugin; `peanuts-relay sinks test` runs one by itself", "the plugin cannot be asked about its settings: %v", err)
}

// events refuses event types that the plugin cannot carry, if the file names them.
func (f *findings) events(w *config.Webhook, can []string) {
	if len(can) == 0 {
		return
	}
	helper, id, _ := strings.Cut(w.ID, ".")
	for _, name := range w.Events {
		if !slices.Contains(can, name) {
			f.add([]string{"helpers", helper, "webhooks", id, "events"}, config.SeverityError, CodeBadEvent, "it takes "+strings.Join(can, ", "),
				"the sink %s cannot carry %s", w.Sink, name)
		}
	}
}

// Secrets are the settings that nobody may see: those that come from references, and
// those that the plugin's schema calls writeOnly.
func Secrets(w *config.Webhook, schema []byte) []secret.String {
	return collect(nil, w.Settings, parse(schema))
}
