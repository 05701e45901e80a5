// Package webhookedit is the editor behind the routes that make, change and
// delete webhooks, and behind `enable` and `disable`. It writes one file,
// conf.d/90-api.yaml beside the main file, and no other.
//
// Guarantees:
//
//   - The operator's own files are never written. What one of them decides is not
//     worked around: the edit is refused with the name of the file.
//   - An edit that returns without an error is in the file, durably, and runs. One
//     that returns an error has left the file as it was, unless the error says
//     that it could not be put back.
//   - At every moment, also through a crash, the file is whole: the old one or the
//     new one. It is checked together with all others before it is written.
//   - An edit changes the webhook that it names and nothing else: no other
//     object, no comment, not the order of the keys.
//   - A value that comes through an edit is text, never a reference: a caller
//     cannot make the daemon read a file or its environment.
//
// Edits wait for each other. An edit by hand at the same time is noticed and stays,
// but for the moment between the last look at the file and its replacement.
package webhookedit

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/config"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

// FileName is the drop-in that the editor writes. Its name leaves room before
// and after it for the operator's own.
const FileName = "90-api.yaml"

// secretBytes is how many random bytes a generated secret has; Standard Webhooks
// 1.0 asks for 24 to 64.
const secretBytes = 32

// Refusal is why an edit was not made. Nothing changed.
type Refusal struct {
	Status   int    // as an HTTP status
	Code     string // one of the Code constants of package rest
	Field    string // key of the request that is at fault; "" = none
	Message  string // what was refused, and what to do
	Findings []rest.Finding
}

func (r *Refusal) Error() string { return r.Message }

// Options are what an [Editor] works with. All are required.
type Options struct {
	// MainFile is the main configuration file.
	MainFile string
	// Load is config.Load for MainFile, with files as config.Options.Files; nil
	// stands for those on the disk.
	Load func(files []config.File) (*config.Config, *config.Report)
	// Reload takes the files over as they are now, on behalf of uid, and returns
	// when that is done or they were refused.
	Reload func(ctx context.Context, uid *uint32) (rest.ReloadResult, error)
	// Running is what runs; nil when nothing does yet.
	Running func() *config.Config
}

// Editor edits webhooks. It is safe for concurrent use.
type Editor struct {
	o    Options
	disk disk
	busy chan struct{} // holds one value while an edit is made
}

// New returns an editor. It does not look at the disk yet.
func New(o Options) *Editor {
	return &Editor{o: o, disk: disk{filepath.Join(filepath.Dir(o.MainFile), config.DropInDir), syncNames}, busy: make(chan struct{}, 1)}
}

// begin waits for the edit before, which the end of ctx ends, and reads the
// files. Without an error done lets the next edit begin.
func (e *Editor) begin(ctx context.Context) (s *state, done func(), err error) {
	select {
	case e.busy <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, fmt.Errorf("wait for another edit: %w", context.Cause(ctx))
	}
	done = func() { <-e.busy }
	if s, err = e.read(); err != nil {
		done()
		return nil, nil, err
	}
	return s, done, nil
}

// Create makes a webhook. Without an id it gets one, without a secret too; a
// secret that was made is in the result, and never shown again. uid is who asked,
// nil when that is not known.
func (e *Editor) Create(ctx context.Context, uid *uint32, in rest.WebhookChange) (rest.WebhookChanged, error) {
	var none rest.WebhookChanged
	s, done, err := e.begin(ctx)
	if err != nil {
		return none, err
	}
	defer done()
	path, err := s.newPath(&in)
	if err != nil {
		return none, err
	}
	made := ""
	if in.Secret == nil && (in.Sink == nil || *in.Sink == config.SinkHTTP) {
		made = newSecret()
		in.Secret = &made
	}
	edit := &edit{path: path, leaves: leaves(&in, nil)}
	data, err := edit.render(s)
	if err != nil {
		return none, err
	}
	cfg, err := e.check(s, data, edit)
	if err != nil {
		return none, err
	}
	if err := s.only(cfg, edit.id(), config.OpAdded); err != nil {
		return none, err
	}
	if err := e.apply(ctx, uid, s, data); err != nil {
		return none, err
	}
	out := changed(cfg, edit.id())
	out.Secret, out.CreatedAt, out.File = made, rest.At(time.Now()), s.path
	return out, nil
}

// Change changes keys of the webhook id, "helper.webhook", whoever defines it. A
// key that has then the value that the other files give it anyway is removed
// from the file.
func (e *Editor) Change(ctx context.Context, uid *uint32, id string, in rest.WebhookChange) (rest.WebhookChanged, error) {
	var none rest.WebhookChanged
	s, done, err := e.begin(ctx)
	if err != nil {
		return none, err
	}
	defer done()
	w := webhook(s.cfg, id)
	if w == nil {
		return none, notFound(id)
	}
	if err := sameIdentity(w, &in); err != nil {
		return none, err
	}
	edit := &edit{path: pathOf(id), leaves: leaves(&in, w)}
	data, cfg, err := e.smallest(s, edit)
	if err != nil {
		return none, err
	}
	if len(config.Diff(s.cfg, cfg)) == 0 {
		return changed(cfg, id), e.ensure(ctx, uid, cfg, id)
	}
	if err := s.only(cfg, id, config.OpChanged); err != nil {
		return none, err
	}
	if err := e.apply(ctx, uid, s, data); err != nil {
		return none, err
	}
	out := changed(cfg, id)
	out.File = s.path
	return out, nil
}

// Delete deletes the webhook id, which no other file may mention.
func (e *Editor) Delete(ctx context.Context, uid *uint32, id string) error {
	s, done, err := e.begin(ctx)
	if err != nil {
		return err
	}
	defer done()
	if webhook(s.cfg, id) == nil {
		return notFound(id)
	}
	edit := &edit{path: pathOf(id), whole: true}
	if files := s.others(s.cfg, edit.path); len(files) > 0 {
		return conflict("", "the webhook %s is defined in %s; delete it there", id, strings.Join(files, " and "))
	}
	data, err := edit.render(s)
	if err != nil {
		return err
	}
	cfg, err := e.check(s, data, edit)
	if err != nil {
		return err
	}
	if err := s.only(cfg, id, config.OpRemoved); err != nil {
		return err
	}
	return e.apply(ctx, uid, s, data)
}

// smallest writes the leaves of an edit, less those that are then as they are
// without, and returns the file and the configuration that results.
func (e *Editor) smallest(s *state, edit *edit) ([]byte, *config.Config, error) {
	data, err := edit.render(s)
	if err != nil {
		return nil, nil, err
	}
	cfg, err := e.check(s, data, edit)
	if err != nil {
		return nil, nil, err
	}
	if err := e.overridden(s, data, cfg, edit); err != nil {
		return nil, nil, err
	}
	less := *edit
	less.leaves = slices.Clone(edit.leaves)
	for i, l := range less.leaves {
		path := slices.Concat(edit.path, l.path)
		if l.name() == "enabled" || len(s.others(cfg, path)) > 0 {
			less.leaves[i].node = nil
		}
	}
	without, err := less.render(s)
	if err != nil {
		return nil, nil, err
	}
	bare, err := e.check(s, without, &less)
	if err != nil {
		return data, cfg, nil // it needs them
	}
	differ := fields(config.Diff(cfg, bare), edit.id())
	for i, l := range edit.leaves {
		if l.in(differ) {
			less.leaves[i] = l
		}
	}
	if without, err = less.render(s); err != nil {
		return nil, nil, err
	}
	if bare, err = e.check(s, without, &less); err != nil || len(config.Diff(cfg, bare)) > 0 {
		return data, cfg, nil
	}
	return without, bare, nil
}

// overridden refuses an edit that has no effect because a later file says
// otherwise, and the removal of a key that another file has.
func (e *Editor) overridden(s *state, data []byte, cfg *config.Config, edit *edit) error {
	var last []string // fields that would differ if the file came last
	asked := false
	for _, l := range edit.leaves {
		path := slices.Concat(edit.path, l.path)
		if l.node == nil {
			if files := cfg.DefinedIn(path...); len(files) > 0 {
				return conflict(l.field(), "%s is defined in %s; remove it there", l.name(), strings.Join(files, " and "))
			}
			continue
		}
		later := s.later(cfg, path)
		if len(later) == 0 {
			continue
		}
		if !asked {
			asked = true
			if ours, report := e.o.Load(s.withLast(data)); report.Err() == nil {
				last = fields(config.Diff(cfg, ours), edit.id())
			}
		}
		if l.in(last) {
			return conflict(l.field(), "%s is also in %s, which comes after %s and wins; change it there", l.name(), strings.Join(later, " and "), FileName)
		}
	}
	return nil
}

// check loads the files with data in place of the editor's own.
func (e *Editor) check(s *state, data []byte, edit *edit) (*config.Config, error) {
	cfg, report := e.o.Load(s.with(data))
	if err := report.Err(); err != nil {
		return nil, invalid("the configuration would be invalid", report, edit.path)
	}
	return cfg, nil
}

// ensure makes what the files say run, for an edit that has nothing to write.
func (e *Editor) ensure(ctx context.Context, uid *uint32, cfg *config.Config, id string) error {
	running := e.o.Running()
	if running == nil || !slices.ContainsFunc(config.Diff(running, cfg), func(c config.Change) bool {
		return c.Object == config.ObjectWebhook && c.ID == id
	}) {
		return nil
	}
	result, err := e.o.Reload(context.WithoutCancel(ctx), uid)
	if err != nil {
		return fmt.Errorf("take the configuration over: %w", err)
	}
	if result.Result == rest.ReloadRejected {
		return &Refusal{Status: http.StatusUnprocessableEntity, Code: rest.CodeInvalidConfig, Findings: result.Findings,
			Message: "the files say so already, but they were refused; see the findings"}
	}
	return nil
}

// apply writes the file and has it taken over. A caller who is gone does not
// stop it half way.
func (e *Editor) apply(ctx context.Context, uid *uint32, s *state, data []byte) error {
	now, err := e.disk.read()
	if err != nil {
		return err
	}
	if now.exists != s.former.exists || !bytes.Equal(now.data, s.former.data) {
		return changedMeanwhile()
	}
	if err := e.disk.write(data, s.former, newMode); err != nil {
		// It may be there all the same, if only its name is not durable.
		if _, back := e.putBack(s, data); back != nil {
			return fmt.Errorf("the edit may be in %s (%v), and the file could not be put back: %w", s.path, err, back)
		}
		return refuseIO(err, s.path)
	}
	ctx = context.WithoutCancel(ctx)
	result, err := e.o.Reload(ctx, uid)
	if err == nil && result.Result != rest.ReloadRejected {
		return nil
	}
	put, back := e.putBack(s, data)
	if back != nil {
		return fmt.Errorf("the edit is in %s but does not run (%v), and the file could not be put back: %w", s.path, cmp.Or(err, errRejected), back)
	}
	if err != nil {
		return fmt.Errorf("take the configuration over: %w", err)
	}
	// What was refused is no longer there: without this the daemon would go on
	// saying that it was. The outcome is the daemon's to report.
	_, _ = e.o.Reload(ctx, uid)
	fate := "is again as it was"
	if !put {
		fate = "stays as somebody else has written it meanwhile"
	}
	return &Refusal{Status: http.StatusUnprocessableEntity, Code: rest.CodeInvalidConfig, Findings: result.Findings,
		Message: "the daemon refused the files with the edit; " + FileName + " " + fate + first(result.Findings)}
}

// putBack undoes the edit that wrote data; put says that the file was still as the
// edit left it.
func (e *Editor) putBack(s *state, data []byte) (put bool, err error) {
	now, err := e.disk.read()
	if err != nil || now.exists != (data != nil) || !bytes.Equal(now.data, data) {
		return false, err
	}
	return true, e.disk.write(s.former.data, s.former, s.former.mode)
}

func newSecret() string {
	b := make([]byte, secretBytes)
	rand.Read(b) // never fails
	return "whsec_" + base64.StdEncoding.EncodeToString(b)
}
