package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/config"
	"github.com/peanutsapp/peanuts-relay/internal/config/history"
)

// starting is the configuration that the daemon starts with.
type starting struct {
	cfg    *config.Config
	report *config.Report // of cfg

	// What follows is there when cfg is the last known good one.
	rejected *config.Report // of the files as they are now
	entry    history.Entry  // when it ran
	dir      string         // where it was found
}

// startWith loads the configuration, or what ran last when it has errors. The
// findings were printed when it returns.
func (a *app) startWith(path string, strict bool) (*starting, error) {
	options := config.Options{Path: path, LookupEnv: a.Env}
	cfg, report := config.Load(options)
	if err := a.writeFindings(report); err != nil {
		return nil, err
	}
	invalid := report.Err()
	if invalid == nil {
		return &starting{cfg: cfg, report: report}, nil
	}
	if strict {
		return nil, invalidConfig(invalid, path)
	}
	s, err := a.lastKnownGood(options, invalid)
	if err != nil {
		return nil, err
	}
	s.rejected = report
	fmt.Fprintf(a.Err, "%s %s is not valid: %s; starting with the last known good configuration instead:\n", a.errStyle().bad("error:"), path, countErrors(invalid))
	fmt.Fprintf(a.Err, "  generation %d, %s %s, kept in %s\n", s.entry.Generation, s.entry.Result, s.entry.At.Local().Format(time.DateTime), s.dir)
	fmt.Fprintf(a.Err, "  correct %s; the running daemon takes it over. With --strict it does not start\n\n", brokenFile(invalid, path))
	return s, nil
}

// lastKnownGood looks for the configuration that ran last, wherever the broken
// files may say that queue.dir is. The error says where it was looked for.
func (a *app) lastKnownGood(o config.Options, invalid error) (*starting, error) {
	none := func(what string, looked []string) error {
		hint := "correct " + brokenFile(invalid, o.Path)
		if len(looked) > 0 {
			hint += "\n  looked for the last known good configuration in " + strings.Join(looked, "\n  and in ")
		}
		return WithExit(ExitConfig, fmt.Errorf("%s is not valid: %s; %s", o.Path, countErrors(invalid), what), hint)
	}
	var looked []string
	for _, state := range stateDirs(o) {
		dir := history.Dir(state)
		entry, files, err := lastIn(dir, o.Path)
		if err != nil {
			looked = append(looked, dir+": "+whyNone(err))
			continue
		}
		o.Files, o.WithoutPlugins = files, true // it ran: a plugin that is gone costs its own webhooks only
		cfg, report := config.Load(o)
		if report.Err() == nil {
			return &starting{cfg: cfg, report: report, entry: entry, dir: dir}, nil
		}
		fmt.Fprintf(a.Err, "the last known good configuration, generation %d in %s, cannot be used either:\n\n", entry.Generation, dir)
		if err := a.writeFindings(report); err != nil {
			return nil, err
		}
		return nil, none(fmt.Sprintf("the last known good configuration, generation %d, cannot be used either: %s", entry.Generation, countErrors(report.Err())), nil)
	}
	return nil, none("no last known good configuration was found", looked)
}

// stateDirs lists where the state may be: where the files say, then where a
// daemon noted that it is, then the default.
func stateDirs(o config.Options) []string {
	dirs := config.StateDirs(o)
	mainFile, err := filepath.Abs(o.Path)
	if err != nil {
		return dirs
	}
	noted, ok := history.Noted(config.DefaultStateDir(o), mainFile)
	if !ok || slices.Contains(dirs, noted) {
		return dirs
	}
	return slices.Insert(dirs, max(len(dirs)-1, 0), noted)
}

// ranBefore reports whether there is a last known good configuration of a main
// file.
func (a *app) ranBefore(path string) bool {
	return slices.ContainsFunc(stateDirs(config.Options{Path: path, LookupEnv: a.Env}), func(state string) bool {
		_, _, err := lastIn(history.Dir(state), path)
		return err == nil
	})
}

// lastIn reads the last configuration that ran from one history.
func lastIn(dir, mainFile string) (history.Entry, []config.File, error) {
	log, err := history.Peek(dir, mainFile)
	if err != nil {
		return history.Entry{}, nil, err
	}
	entry, files, err := log.Last()
	return entry, files, errors.Join(err, log.Close())
}

// whyNone says it in few words where nothing is wrong.
func whyNone(err error) string {
	if errors.Is(err, fs.ErrNotExist) {
		return "there is none"
	}
	return strings.ReplaceAll(err.Error(), "\n", "; ")
}

// brokenFile is the file that has the first error.
func brokenFile(invalid error, path string) string {
	if e, ok := errors.AsType[*config.InvalidError](invalid); ok && e.First.File != "" {
		return e.First.File
	}
	return path
}

// warn says in the log, in one line, that the files are not what runs.
func (s *starting) warn(log *slog.Logger, path string) {
	if s.rejected == nil {
		return
	}
	invalid := s.rejected.Err()
	log.Error("configuration is not valid: the last known good one runs instead", "config", path, "file", brokenFile(invalid, path), "err", invalid,
		"generation", s.entry.Generation, "ran_since", s.entry.At, "remedy", "correct the file: it is taken over while the daemon runs")
}
