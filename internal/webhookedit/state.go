package webhookedit

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"

	"github.com/peanutsapp/peanuts-relay/internal/config"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

var errRejected = errors.New("it was refused")

// state is what an edit begins with: valid files.
type state struct {
	path   string        // of the editor's file
	files  []config.File // as they are, the editor's own left out
	own    int           // where it belongs among them
	former former
	cfg    *config.Config
}

// read loads the files from the disk.
func (e *Editor) read() (*state, error) {
	cfg, report := e.o.Load(nil)
	if report.Err() != nil {
		return nil, invalid("the configuration is invalid as it is; correct it first", report, nil)
	}
	was, err := e.disk.read()
	if err != nil {
		return nil, err
	}
	s := &state{path: filepath.Join(e.disk.dir, FileName), former: was, cfg: cfg, own: -1}
	loaded := false
	for i, f := range report.Sources {
		name := filepath.Base(f.Path)
		if i > 0 && name == FileName {
			loaded = true
			if !bytes.Equal(f.Data, was.data) {
				return nil, changedMeanwhile()
			}
			s.path = f.Path
			continue
		}
		if i > 0 && name > FileName && s.own < 0 {
			s.own = len(s.files)
		}
		s.files = append(s.files, f)
	}
	if loaded != was.exists {
		return nil, changedMeanwhile()
	}
	if s.own < 0 {
		s.own = len(s.files)
	}
	return s, nil
}

// with is the files with data as the editor's own, which is left out when it is
// nil.
func (s *state) with(data []byte) []config.File {
	if data == nil {
		return s.files
	}
	return slices.Insert(slices.Clone(s.files), s.own, s.file(data))
}

// withLast is [state.with], but no other file comes after it.
func (s *state) withLast(data []byte) []config.File {
	if data == nil {
		return s.files
	}
	return append(slices.Clone(s.files), s.file(data))
}

func (s *state) file(data []byte) config.File {
	return config.File{Path: s.path, Data: data, Mode: newMode}
}

// others lists the files besides the editor's own that mention path.
func (s *state) others(cfg *config.Config, path []string) []string {
	return slices.DeleteFunc(cfg.DefinedIn(path...), func(file string) bool { return filepath.Base(file) == FileName && file != cfg.MainFile() })
}

// later lists those of others that come after the editor's own.
func (s *state) later(cfg *config.Config, path []string) []string {
	return slices.DeleteFunc(s.others(cfg, path), func(file string) bool {
		return file == cfg.MainFile() || filepath.Base(file) < FileName
	})
}

// only refuses an edit whose effect is not just op on the webhook id.
func (s *state) only(cfg *config.Config, id, op string) error {
	changes := config.Diff(s.cfg, cfg)
	for _, c := range changes {
		if c.Object != config.ObjectWebhook || c.ID != id || c.Op != op {
			return conflict("", "the edit of %s would change the %s %s as well; edit the files by hand", id, c.Object, c.ID)
		}
	}
	if len(changes) == 0 {
		return conflict("", "the edit of %s would change nothing; edit the files by hand", id)
	}
	return nil
}

// newPath decides on the helper and the id of a new webhook.
func (s *state) newPath(in *rest.WebhookChange) ([]string, error) {
	helper, err := s.helper(in.Helper)
	if err != nil {
		return nil, err
	}
	path := func(id string) []string { return []string{"helpers", helper, "webhooks", id} }
	if in.ID == nil {
		for {
			id := "wh-" + strings.ToLower(rand.Text()[:6])
			if len(s.cfg.DefinedIn(path(id)...)) == 0 {
				return path(id), nil
			}
		}
	}
	if !config.ValidID(*in.ID) {
		return nil, &Refusal{Status: http.StatusUnprocessableEntity, Code: rest.CodeInvalidConfig, Field: "id", Message: "an id has 1 to 64 letters, digits, _ and -"}
	}
	if files := s.cfg.DefinedIn(path(*in.ID)...); len(files) > 0 {
		return nil, conflict("id", "the webhook %s.%s exists: it is defined in %s", helper, *in.ID, strings.Join(files, " and "))
	}
	return path(*in.ID), nil
}

// helper is the helper that a new webhook belongs to.
func (s *state) helper(given *string) (string, error) {
	known := make([]string, len(s.cfg.Helpers))
	for i := range s.cfg.Helpers {
		known[i] = s.cfg.Helpers[i].ID
	}
	refuse := func(message string) (string, error) {
		return "", &Refusal{Status: http.StatusUnprocessableEntity, Code: rest.CodeInvalidConfig, Field: "helper", Message: message}
	}
	switch {
	case len(known) == 0:
		return refuse("there is no helper; a file has to define it first")
	case given == nil && len(known) == 1:
		return known[0], nil
	case given == nil:
		return refuse("helper is required: there are " + strings.Join(shortened(known), ", "))
	case !slices.Contains(known, *given):
		return refuse(fmt.Sprintf("the helper %q does not exist; there are %s", *given, strings.Join(shortened(known), ", ")))
	}
	return *given, nil
}

// shortened bounds a list in a message.
func shortened(names []string) []string {
	const most = 20
	if len(names) <= most {
		return names
	}
	return append(slices.Clone(names[:most]), fmt.Sprintf("%d more", len(names)-most))
}

// pathOf is where the files have a webhook; neither part of its id has a dot.
func pathOf(id string) []string {
	helper, name, _ := strings.Cut(id, ".")
	return []string{"helpers", helper, "webhooks", name}
}

// webhook is nil when there is none with this id.
func webhook(cfg *config.Config, id string) *config.Webhook {
	webhooks := cfg.Webhooks()
	i := slices.IndexFunc(webhooks, func(w config.Webhook) bool { return w.ID == id })
	if i < 0 {
		return nil
	}
	return &webhooks[i]
}

// changed is the answer for the webhook id of cfg.
func changed(cfg *config.Config, id string) rest.WebhookChanged {
	w := webhook(cfg, id)
	events := w.Events
	if events == nil {
		h := w.Helper.ForEvents()
		events = h.Types()
	}
	return rest.WebhookChanged{ID: id, URL: w.ShownURL(), Events: events, Active: w.Enabled}
}

// sameIdentity refuses a change of what a webhook is called.
func sameIdentity(w *config.Webhook, in *rest.WebhookChange) error {
	fixed := func(field string) error {
		return &Refusal{Status: http.StatusUnprocessableEntity, Code: rest.CodeBadRequest, Field: field, Message: field + " cannot be changed; make a new webhook and delete this one"}
	}
	if in.Helper != nil && *in.Helper != w.Helper.ID {
		return fixed("helper")
	}
	if in.ID != nil && *in.ID != pathOf(w.ID)[3] {
		return fixed("id")
	}
	return nil
}

func notFound(id string) error {
	if config.KeyPath(id)[0] == "notify" {
		return conflict("id", "%q is told about the relay itself: what it is, the files say under notify", id)
	}
	return &Refusal{Status: http.StatusNotFound, Code: rest.CodeNotFound, Message: fmt.Sprintf("no file defines the webhook %q", id)}
}

func conflict(field, format string, args ...any) error {
	return &Refusal{Status: http.StatusConflict, Code: rest.CodeConflict, Field: field, Message: fmt.Sprintf(format, args...)}
}

func changedMeanwhile() error {
	return conflict("", "%s was changed by somebody else at this moment; try again", FileName)
}

// invalid refuses files with errors. path is that of the webhook under edit.
func invalid(what string, report *config.Report, path []string) error {
	r := &Refusal{Status: http.StatusUnprocessableEntity, Code: rest.CodeInvalidConfig}
	prefix := "/" + strings.Join(path, "/") + "/"
	for _, f := range report.Findings {
		r.Findings = append(r.Findings, rest.Finding{Severity: f.Severity, Code: f.Code, File: f.File, Line: f.Line, Column: f.Column,
			Path: f.Path, Message: f.Message, Suggestion: f.Suggestion})
		if below, ok := strings.CutPrefix(f.Path, prefix); ok && path != nil && r.Field == "" && f.Severity == config.SeverityError {
			key, _, _ := strings.Cut(below, "/")
			r.Field = fieldOf(key)
		}
	}
	r.Message = what + first(r.Findings)
	return r
}

// first is the first error among findings, for the end of a message.
func first(findings []rest.Finding) string {
	for _, f := range findings {
		if f.Severity == config.SeverityError {
			return ": " + f.Message
		}
	}
	return ""
}

// fields lists the keys of the webhook id among changes.
func fields(changes []config.Change, id string) []string {
	for _, c := range changes {
		if c.Object == config.ObjectWebhook && c.ID == id {
			return c.Fields
		}
	}
	return nil
}
