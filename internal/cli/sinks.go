package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/peanutsapp/peanuts-relay/internal/config"
	"github.com/peanutsapp/peanuts-relay/internal/pluginhost/process"
	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
)

func (a *app) sinksCommand() *cobra.Command {
	c := a.command(&cobra.Command{
		Use:   "sinks",
		Short: "lists the sinks, tests one, or begins a new one",
		Example: `peanuts-relay sinks list
peanuts-relay sinks test ./peanuts-sink-acme --settings settings.yaml`,
		Args: noSuchCommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usagef(seeHelp(cmd), "%s needs a command: list, test or new", cmd.CommandPath())
		},
	})
	c.AddCommand(a.sinksListCommand(), a.sinksTestCommand(), a.sinksNewCommand())
	return c
}

func (a *app) sinksListCommand() *cobra.Command {
	var asJSON bool
	c := a.command(&cobra.Command{
		Use:   "list",
		Short: "lists the sinks that the configuration can use, and what is wrong with any",
		Long: `lists the sinks that the configuration can use: the built-in one, the plugins in
plugins.dir and those under sinks. Each plugin is started and asked what it is; with
--json its settings and capabilities are there too. It changes nothing and asks no daemon: status shows what runs. Exit status 1 when one that a
webhook names cannot be used`,
		Example: `peanuts-relay sinks list
peanuts-relay sinks list --json --config ./config.yaml`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.sinksList(cmd.Context(), asJSON) },
	})
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return c
}

// listedSink is one sink as `sinks list --json` shows it.
type listedSink struct {
	Name     string   `json:"name"`
	Version  string   `json:"version"`
	Summary  string   `json:"summary"`
	Homepage string   `json:"homepage"`
	Path     string   `json:"path"` // "" for the built-in one
	Usable   bool     `json:"usable"`
	Problem  string   `json:"problem"` // why it is not usable
	Webhooks []string `json:"webhooks"`

	Settings     json.RawMessage   `json:"settings_schema"` // JSON Schema; null = not known
	Capabilities *sinkCapabilities `json:"capabilities"`    // null = not known
}

// sinkCapabilities are what a plugin says of how it wants to be called. 0 = it does not
// say.
type sinkCapabilities struct {
	Events          []string `json:"events"` // empty = all
	MaxBatch        uint32   `json:"max_batch"`
	MaxBatchBytes   uint32   `json:"max_batch_bytes"`
	MaxConcurrency  uint32   `json:"max_concurrency"`
	MaxPerSecond    float64  `json:"max_per_second"`
	Burst           uint32   `json:"burst"`
	OrderedPerEntry bool     `json:"ordered_per_entry"`
	Idempotent      bool     `json:"idempotent"`
	UsesState       bool     `json:"uses_state"`
}

func (a *app) sinksList(ctx context.Context, asJSON bool) error {
	path, err := a.configFile()
	if err != nil {
		return err
	}
	installed, err := config.InstalledSinks(path)
	if err != nil {
		return WithExit(ExitConfig, fmt.Errorf("find the sinks: %w", err), "peanuts-relay check says where")
	}
	list, err := a.describeAll(ctx, installed)
	if err != nil {
		return err
	}
	if asJSON {
		err = writeJSON(a.Out, map[string]any{"sinks": list})
	} else {
		err = a.printSinks(list)
	}
	if err != nil {
		return err
	}
	if slices.ContainsFunc(list, func(s listedSink) bool { return !s.Usable && len(s.Webhooks) > 0 }) {
		return exitQuietly(ExitFailure)
	}
	return nil
}

// describeAll asks every plugin at the same time.
func (a *app) describeAll(ctx context.Context, installed config.Installed) ([]listedSink, error) {
	sockets, err := os.MkdirTemp("/tmp", "peanuts-relay-") // the path of a socket has to be short
	if err != nil {
		return nil, fmt.Errorf("make a directory for sockets: %w", err)
	}
	defer os.RemoveAll(sockets)
	list := []listedSink{{Name: config.SinkHTTP, Version: a.deps.Version, Summary: "posts the payload to an HTTP endpoint", Usable: true}}
	for _, f := range installed.Files {
		list = append(list, listedSink{Name: f.ID, Path: f.Path})
	}
	var wg sync.WaitGroup
	atATime := make(chan struct{}, 4)
	for n, f := range installed.Files {
		wg.Go(func() {
			atATime <- struct{}{}
			defer func() { <-atATime }()
			list[n+1].describe(ctx, f, sockets)
		})
	}
	wg.Wait()
	for sink := range installed.Uses {
		if !slices.ContainsFunc(list, func(s listedSink) bool { return s.Name == sink }) {
			list = append(list, listedSink{Name: sink, Problem: "it is neither under sinks nor in " + installed.Dir})
		}
	}
	for n := range list {
		list[n].Webhooks = append([]string{}, installed.Uses[list[n].Name]...)
	}
	slices.SortFunc(list[1:], func(x, y listedSink) int { return strings.Compare(x.Name, y.Name) })
	return list, nil
}

// describe starts the plugin and asks what it is.
func (s *listedSink) describe(ctx context.Context, f config.SinkFile, sockets string) {
	started, err := process.Start(ctx, process.Options{Sink: f.ID, Path: f.Path, SHA256: f.SHA256, SocketDir: sockets})
	if err != nil {
		s.Problem = err.Error()
		return
	}
	defer started.Stop(ctx)
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	d, err := started.Client().Describe(ctx, &sinkpb.DescribeRequest{})
	if err != nil {
		s.Problem = "it does not answer when it is asked what it is; peanuts-relay sinks test shows more"
		return
	}
	s.Version, s.Summary, s.Homepage = d.GetVersion(), d.GetSummary(), d.GetHomepage()
	if schema := d.GetSettingsSchema(); json.Valid(schema) {
		s.Settings = schema
	}
	c := d.GetCapabilities()
	s.Capabilities = &sinkCapabilities{Events: append([]string{}, c.GetEvents()...), MaxBatch: c.GetMaxBatch(), MaxBatchBytes: c.GetMaxBatchBytes(),
		MaxConcurrency: c.GetMaxConcurrency(), MaxPerSecond: c.GetMaxPerSecond(), Burst: c.GetBurst(),
		OrderedPerEntry: c.GetOrderedPerEntry(), Idempotent: c.GetIdempotent(), UsesState: c.GetUsesState()}
	if s.Usable = d.GetName() == f.ID; !s.Usable {
		s.Problem = fmt.Sprintf("the plugin says that it is %q", d.GetName())
	}
}

func (a *app) printSinks(list []listedSink) error {
	t := &table{columns: []column{{title: "SINK"}, {title: "VERSION", least: 8}, {title: "STATE", paint: paintUsable},
		{title: "WEBHOOKS", least: 12}, {title: "SUMMARY", least: 16, drop: 2}, {title: "PATH", least: 16, drop: 1}}}
	for _, s := range list {
		state, path := "usable", dash(s.Path)
		if !s.Usable {
			state = "unusable"
		}
		t.add(s.Name, dash(s.Version), state, dash(strings.Join(s.Webhooks, " ")), dash(s.Summary), path)
	}
	st := a.outStyle()
	if err := t.write(a.Out, a.OutTerm.Width, st); err != nil {
		return err
	}
	for _, s := range list {
		if !s.Usable {
			fmt.Fprintf(a.Out, "%s %s: %s\n", st.bad("!"), s.Name, oneLine(s.Problem))
		}
	}
	return nil
}

func paintUsable(st style, word string) string {
	if word == "usable" {
		return st.good(word)
	}
	return st.bad(word)
}
