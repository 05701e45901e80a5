package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"google.golang.org/api/sheets/v4"

	"github.com/peanutsapp/peanuts-relay/sinks"
)

// sink keeps one tab. Its methods may be called concurrently; they take turns at the
// spreadsheet.
type sink struct {
	settings Settings
	name     string // of the tab
	client   *client
	writes   quota
	book     *book
	leave    func()
	record   recorder
	reader   *reader // guarded by book.turn
}

func open(_ context.Context, web *http.Client, all *shared, s Settings) (*sink, error) {
	c, err := newClient(web, s)
	if err != nil {
		return nil, &sinks.SettingError{Path: "/credentials", Err: err}
	}
	a, b, leave := all.join(c.email, c.address)
	name := strings.TrimSpace(s.Tab)
	perMinute := cmp.Or(s.CallsPerMinute, perMinute)
	return &sink{
		settings: s, name: name, client: c, writes: quota{&a.writes, perMinute}, book: b, leave: leave,
		record: newRecorder(s.Columns),
		reader: &reader{client: c, quota: quota{&a.reads, perMinute}, name: name},
	}, nil
}

// Close gives back the webhook's place at the account and the spreadsheet.
func (s *sink) Close() error {
	s.leave()
	return nil
}

func (s *sink) Deliver(ctx context.Context, d *sinks.Delivery) (sinks.Receipt, error) {
	out, err := s.DeliverBatch(ctx, []*sinks.Delivery{d})
	if err != nil {
		return sinks.Receipt{}, err
	}
	return out[0].Receipt, out[0].Err
}

// DeliverBatch reads the keys of the tab, works out what the batch changes, and writes
// that as one request.
func (s *sink) DeliverBatch(ctx context.Context, ds []*sinks.Delivery) ([]sinks.Result, error) {
	if err := s.book.lock(ctx); err != nil {
		return nil, sinks.Retry(codeTimeout, 0, errors.New("another webhook was writing to the spreadsheet for too long"))
	}
	defer s.book.unlock()
	out := make([]sinks.Result, len(ds))
	_ = s.deliver(ctx, ds, out) // it is in out
	return out, nil
}

// deliver fills out. What Google refuses for reasons that one delivery may be to blame
// for is tried again in halves, so that it fails alone. The error is the one that
// stopped the batch: later deliveries were not tried, for they must not overtake.
func (s *sink) deliver(ctx context.Context, ds []*sinks.Delivery, out []sinks.Result) error {
	err := s.attempt(ctx, ds, out)
	refused, ok := errors.AsType[*divisible](err)
	if !ok {
		return err
	}
	if len(ds) == 1 {
		out[0] = sinks.Result{Err: refused.last}
		return nil
	}
	half := len(ds) / 2
	if err := s.deliver(ctx, ds[:half], out[:half]); err != nil {
		for i := range out[half:] {
			out[half+i] = sinks.Result{Err: err}
		}
		return err
	}
	return s.deliver(ctx, ds[half:], out[half:])
}

// attempt tries once, and once more when the tab turned out to be another than it was.
func (s *sink) attempt(ctx context.Context, ds []*sinks.Delivery, out []sinks.Result) error {
	err := s.write(ctx, ds, out)
	if _, ok := errors.AsType[*outdated](err); ok {
		err = s.write(ctx, ds, out)
		if e, ok := errors.AsType[*outdated](err); ok {
			err = e.last
		}
	}
	return err
}

// write is one read and one write. Either out is complete or the error says why not;
// then out has what holds without the write.
func (s *sink) write(ctx context.Context, ds []*sinks.Delivery, out []sinks.Result) error {
	for i := range out {
		out[i] = sinks.Result{}
	}
	fail := func(err error) error {
		s.reader.forget()
		for i := range out {
			if out[i].Err == nil {
				out[i] = sinks.Result{Err: err}
			}
		}
		return err
	}
	if wait := s.writes.full(s.writes.perMinute); wait > shortWait {
		return fail(s.client.usedUp(wait)) // no need to read
	}
	t, err := s.reader.read(ctx)
	if err != nil {
		return fail(err)
	}
	p := newPlan(s.settings, s.record, t)
	steps := make([]step, len(ds))
	for i, d := range ds {
		steps[i] = p.decide(d)
		switch st := steps[i]; {
		case st.err != nil:
			out[i].Err = st.err
		case st.skip && !st.wrote:
			out[i].Err = sinks.Skip(st.message)
		}
	}
	if requests := p.requests(s.name); len(requests) > 0 {
		_, err := call(ctx, s.writes, s.client, func() (*sheets.Request, error) { return nil, s.client.update(ctx, requests) })
		if err != nil {
			return fail(err)
		}
		if t.missing || !t.noted || p.header.firstAdded() < len(p.header.columns) {
			s.reader.forget() // the columns are others now
		}
	}
	link := fmt.Sprintf("https://docs.google.com/spreadsheets/d/%s/edit#gid=%d", s.client.id, t.tab)
	for i, st := range steps {
		switch {
		case out[i].Err != nil:
		case st.skip:
			out[i].Err = sinks.Skip(st.message)
		default:
			out[i].Receipt = sinks.Receipt{Status: http.StatusOK, Message: st.message, RemoteURL: link}
		}
	}
	return nil
}
