package cli

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

// printPlugins shows the plugins' processes, and of those that are not well why. last is
// the last reload, nil when there was none.
func (a *app) printPlugins(plugins []rest.Plugin, last *rest.Reload) error {
	if len(plugins) == 0 {
		return nil
	}
	fmt.Fprintln(a.Out)
	st := a.outStyle()
	t := &table{columns: []column{{title: "PLUGIN", least: 12}, {title: "VERSION", least: 8}, {title: "STATE", least: 10, paint: paintState},
		{title: "PID", right: true, drop: 2}, {title: "RESTARTS", right: true, drop: 1}, {title: "SINCE"}, {title: "NEXT START"}}}
	for _, p := range plugins {
		pid := ""
		if p.PID > 0 {
			pid = fmt.Sprint(p.PID)
		}
		t.add(p.Sink, p.Version, p.State, pid, grouped(int64(p.Restarts)), relative(p.Since.Time, a.Now()), relative(p.NextStartAt.Time, a.Now()))
	}
	if err := t.write(a.Out, a.OutTerm.Width, st); err != nil {
		return err
	}
	for _, p := range plugins {
		a.printTrouble(&p)
		switch {
		case p.Outdated && refusedUpgrade(&p, last):
			fmt.Fprintf(a.Out, "%s plugin %s: its file was replaced and the new one is refused, the former one runs: %s\n", st.bad("!"), p.Sink, oneLine(last.Error))
		case p.Outdated:
			fmt.Fprintf(a.Out, "%s plugin %s: its file was replaced, the former one runs: peanuts-relay reload\n", st.bad("!"), p.Sink)
		}
		if p.Dropped > 0 {
			fmt.Fprintf(a.Out, "%s plugin %s writes too much: %s of its output were not logged\n", st.bad("!"), p.Sink, plural(p.Dropped, "line", "lines"))
		}
		for _, r := range p.Refused {
			fmt.Fprintf(a.Out, "%s plugin %s, webhook %s: %s\n", st.bad("!"), p.Sink, r.Webhook, oneLine(r.Reason))
		}
	}
	return nil
}

// refusedUpgrade reports whether the last reload was refused because of this plugin.
func refusedUpgrade(p *rest.Plugin, last *rest.Reload) bool {
	return last != nil && last.Result == rest.ReloadRejected && strings.Contains(last.Error, "sink plugin "+p.Sink+":")
}

// crashLines is how many lines of a crash report status shows: a Go panic says in
// them what happened and where. All of it is in the JSON.
const crashLines = 12

func (a *app) printTrouble(p *rest.Plugin) {
	st := a.outStyle()
	switch {
	case p.State != rest.PluginReady && p.LastError != "":
		fmt.Fprintf(a.Out, "%s plugin %s: %s\n", st.bad("!"), p.Sink, oneLine(p.LastError))
	case p.State == rest.PluginReady && !p.Healthy:
		fmt.Fprintf(a.Out, "%s plugin %s is not well: %s\n", st.bad("!"), p.Sink, oneLine(cmp.Or(p.Health, "it does not say why")))
	default:
		return
	}
	lines := strings.Split(strings.TrimRight(p.CrashReport, "\n"), "\n")
	if lines[0] == "" {
		return
	}
	for _, line := range lines[:min(len(lines), crashLines)] {
		fmt.Fprintln(a.Out, "    "+oneLine(line))
	}
	if more := len(lines) - crashLines; more > 0 {
		fmt.Fprintf(a.Out, "    ... %s: peanuts-relay status --json\n", plural(more, "more line", "more lines"))
	}
}
