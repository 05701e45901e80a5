package reload

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"

	"github.com/peanutsapp/peanuts-relay/internal/config"
	"github.com/peanutsapp/peanuts-relay/internal/config/history"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

// Running is the configuration that runs, keys that wait for a restart as they
// were at the start.
func (r *Reloader) Running() *config.Config {
	r.mu.Lock()
	cfg := r.state.cfg
	r.mu.Unlock()
	return cfg.KeepRestartKeys(r.Boot)
}

// Status says which configuration runs, and whether that is what the files say.
func (r *Reloader) Status() rest.Config {
	r.mu.Lock()
	s := r.state
	r.mu.Unlock()
	counts := r.Counts()
	out := rest.Config{Path: r.Path, Files: s.report.Files, Generation: s.generation, Digest: s.report.Digest,
		LoadedAt: rest.At(s.loaded), Warnings: lines(s.report), State: rest.ConfigCurrent, FileDigest: s.seen.Digest,
		LastReload: s.last, RestartRequired: config.RestartKeys(r.Boot, s.cfg), Watching: r.Watcher.Mode()}
	for _, trigger := range rest.ReloadTriggers() {
		for _, result := range []string{rest.ReloadApplied, rest.ReloadUnchanged, rest.ReloadRejected} {
			if n := counts[Count{trigger, result}]; n > 0 {
				out.Reloads = append(out.Reloads, rest.ReloadCount{Trigger: trigger, Result: result, Count: n})
			}
		}
	}
	switch {
	case s.lastGood:
		out.State = rest.ConfigLastKnownGood
	case s.last != nil && s.last.Result == rest.ReloadRejected:
		out.State = rest.ConfigRejected
	}
	return out
}

// Degraded says, for people, why what runs is not what the files say; "" when it
// is.
func (r *Reloader) Degraded() string {
	c := r.Status()
	switch c.State {
	case rest.ConfigLastKnownGood:
		return fmt.Sprintf("the configuration files are not valid, so the last known good configuration runs: %s", c.LastReload.Error)
	case rest.ConfigRejected:
		return fmt.Sprintf("the configuration files were changed and are not valid, so the former configuration runs: %s", c.LastReload.Error)
	}
	return ""
}

// Counts are the reloads since the start by trigger and result.
func (r *Reloader) Counts() map[Count]uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.state.counts)
}

// Entries lists the history for people, newest first.
func (r *Reloader) Entries() rest.ConfigHistory {
	r.mu.Lock()
	digest, generation := r.state.report.Digest, r.state.generation
	r.mu.Unlock()
	out := rest.ConfigHistory{Entries: []rest.ConfigEntry{}}
	running := false
	for _, e := range r.History.Entries() {
		shown := rest.ConfigEntry{Generation: e.Generation, At: rest.At(e.At), Trigger: e.Trigger, UID: e.UID, Result: e.Result,
			Digest: e.Digest, Changes: shownChanges(former(e.Changes)), Errors: e.Errors, Error: e.Error, Files: []string{}}
		if e.Result == rest.ReloadApplied {
			shown.Running = !running && e.Generation == generation && e.Digest == digest
			running = running || shown.Running
		}
		for _, f := range e.Files {
			shown.Files = append(shown.Files, f.Path)
		}
		out.Entries = append(out.Entries, shown)
	}
	return out
}

// Former are the files of a configuration that ran, references unexpanded,
// compared with those that are there now.
func (r *Reloader) Former(generation uint64) (rest.ConfigFiles, error) {
	files, err := r.History.Files(generation)
	if err != nil {
		return rest.ConfigFiles{}, err
	}
	out := rest.ConfigFiles{Generation: generation, Files: []rest.ConfigFile{}, Extra: []string{}}
	for _, e := range r.History.Entries() {
		if e.Generation == generation && e.Result == rest.ReloadApplied {
			out.At, out.Digest = rest.At(e.At), e.Digest
		}
	}
	_, report := r.Load(nil)
	now := map[string][]byte{}
	for _, f := range report.Sources {
		now[f.Path] = f.Data
	}
	for _, f := range files {
		shown := rest.ConfigFile{Path: f.Path, Content: string(f.Data), Now: rest.FileMissing}
		if data, ok := now[f.Path]; ok {
			shown.Now = rest.FileDiffers
			if bytes.Equal(data, f.Data) {
				shown.Now = rest.FileSame
			}
			delete(now, f.Path)
		}
		out.Files = append(out.Files, shown)
	}
	out.Extra = slices.AppendSeq(out.Extra, maps.Keys(now))
	slices.Sort(out.Extra)
	return out, nil
}

// kept and former convert changes to those of the history and back.
func kept(changes []config.Change) []history.Change {
	out := make([]history.Change, 0, len(changes))
	for _, c := range changes {
		out = append(out, history.Change(c))
	}
	return out
}

func former(changes []history.Change) []config.Change {
	out := make([]config.Change, 0, len(changes))
	for _, c := range changes {
		out = append(out, config.Change(c))
	}
	return out
}

func shownChanges(changes []config.Change) []rest.ConfigChange {
	out := make([]rest.ConfigChange, 0, len(changes))
	for _, c := range changes {
		out = append(out, rest.ConfigChange{Object: c.Object, ID: c.ID, Change: c.Op, Fields: list(c.Fields), Restart: c.Restart})
	}
	return out
}

func shownFindings(report *config.Report) []rest.Finding {
	out := make([]rest.Finding, 0, len(report.Findings))
	for _, f := range report.Findings {
		out = append(out, rest.Finding{Severity: f.Severity, Code: f.Code, File: f.File, Line: f.Line, Column: f.Column,
			Path: f.Path, Message: f.Message, Suggestion: f.Suggestion})
	}
	return out
}

// countErrors is how many errors a report has, and the first.
func countErrors(report *config.Report) (n int, first string) {
	for i := range report.Findings {
		if report.Findings[i].Severity != config.SeverityError {
			continue
		}
		if n == 0 {
			first = line(&report.Findings[i])
		}
		n++
	}
	return n, first
}

// maxLines bounds what one log record repeats of a report.
const maxLines = 20

// lines are the findings, one line each.
func lines(report *config.Report) []string {
	out := []string{}
	for i := range report.Findings {
		if len(out) == maxLines {
			return append(out, fmt.Sprintf("and %d more", len(report.Findings)-maxLines))
		}
		out = append(out, line(&report.Findings[i]))
	}
	return out
}

// line is a finding in one line. It goes to terminals and, as a state of many
// lines, to the service manager: the name of a file must not add one.
func line(f *config.Finding) string {
	text := f.Message
	if f.Suggestion != "" {
		text += " (" + f.Suggestion + ")"
	}
	switch {
	case f.File == "":
	case f.Line == 0:
		text = f.File + ": " + text
	default:
		text = fmt.Sprintf("%s:%d:%d: %s", f.File, f.Line, f.Column, text)
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, text)
}

func list[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// short is enough of a digest to tell it from others.
func short(digest string) string { return digest[:min(len(digest), 12)] }
