// Command peanuts-sink-sqlite is a sink of Peanuts Relay that keeps the entries of each
// helper in a table of an SQLite file.
//
// Guarantee: a delivery that was answered as delivered is on the disk, and the same
// delivery again changes nothing.
package main

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"github.com/peanutsapp/peanuts-relay/sinks"
)

func main() { sinks.Serve(plugin()) }

type settings struct {
	Path     string        `json:"path" description:"the SQLite file, absolute; made when it is missing" required:"true" example:"/var/lib/entries/entries.db"`
	Prefix   string        `json:"prefix" description:"put before the name of each table" pattern:"^[A-Za-z0-9_]*$" maxLength:"32"`
	OnDelete string        `json:"on_delete" description:"what becomes of the row of a deleted entry" enum:"remove,mark" default:"remove"`
	Remember time.Duration `json:"remember" description:"how long the id of a delivery is known, so that it has no second effect; longer than the relay keeps deliveries" default:"2160h"`
}

// Validate says what the tags cannot.
func (s settings) Validate(_ context.Context, v *sinks.Validation) {
	if !filepath.IsAbs(s.Path) {
		v.Error("/path", "is not an absolute path", "a sink runs in the directory /")
	}
	if s.Remember < 24*time.Hour {
		v.Error("/remember", "is less than a day", "the relay tries a delivery for longer than that")
	}
}

func plugin() sinks.Plugin[settings] {
	return sinks.Plugin[settings]{
		Name:     "sqlite",
		Version:  "1.0.0",
		Summary:  "keeps entries in an SQLite file, a table for each helper",
		Homepage: "https://github.com/peanutsapp/peanuts-relay/tree/main/docs/examples/sink-sqlite",
		Capabilities: sinks.Capabilities{
			Events:          []string{sinks.Created, sinks.Updated, sinks.Deleted},
			MaxBatch:        200, // one transaction, and one sync, for all of them
			MaxConcurrency:  1,   // SQLite has one writer
			OrderedPerEntry: true,
			Idempotent:      true,
		},
		Open: func(ctx context.Context, env sinks.Env, s settings) (sinks.Sink, error) {
			t, err := open(ctx, s)
			if err != nil {
				return nil, &sinks.SettingError{Path: "/path", Err: err}
			}
			env.Logger().Debug("opened the database")
			return &sink{t}, nil
		},
	}
}

// sink carries deliveries into the tables.
type sink struct{ tables *tables }

// DeliverBatch stores all of the batch or nothing.
func (s *sink) DeliverBatch(ctx context.Context, ds []*sinks.Delivery) ([]sinks.Result, error) {
	results := make([]sinks.Result, len(ds))
	err := s.tables.change(ctx, func(tx *change) error {
		for i, d := range ds {
			results[i].Err = tx.store(ctx, d)
			if fault, ok := errors.AsType[*faultError](results[i].Err); ok {
				return fault.err // of the file, not of this delivery
			}
		}
		return nil
	})
	if err != nil {
		return nil, outcome(err)
	}
	return results, nil
}

// Deliver is a batch of one.
func (s *sink) Deliver(ctx context.Context, d *sinks.Delivery) (sinks.Receipt, error) {
	results, err := s.DeliverBatch(ctx, []*sinks.Delivery{d})
	if err != nil {
		return sinks.Receipt{}, err
	}
	return results[0].Receipt, results[0].Err
}

// Close lets go of the file.
func (s *sink) Close() error { return s.tables.close() }
