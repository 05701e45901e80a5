package sinks_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/peanutsapp/peanuts-relay/sinks"
)

// journal appends payloads to a file, one line each. One sync for a batch is what makes
// it fast.
type journal struct{ file *os.File }

func (j journal) DeliverBatch(_ context.Context, ds []*sinks.Delivery) ([]sinks.Result, error) {
	var lines []byte
	for _, d := range ds {
		lines = append(append(lines, d.Payload...), '\n')
	}
	if _, err := j.file.Write(lines); err != nil {
		return nil, err // of all of them, which are tried again
	}
	if err := j.file.Sync(); err != nil {
		return nil, err
	}
	return make([]sinks.Result, len(ds)), nil // no error: delivered
}

func (j journal) Deliver(ctx context.Context, d *sinks.Delivery) (sinks.Receipt, error) {
	_, err := j.DeliverBatch(ctx, []*sinks.Delivery{d})
	return sinks.Receipt{}, err
}

func (j journal) Close() error { return j.file.Close() }

type journalConfig struct {
	Path string `json:"path" description:"file that is appended to" required:"true"`
}

// A sink that takes up to 500 deliveries at once, and one call at a time.
func ExampleBatchSink() {
	plugin := sinks.Plugin[journalConfig]{
		Name: "journal", Version: "1.0.0", Summary: "appends payloads to a file",
		Capabilities: sinks.Capabilities{MaxBatch: 500, MaxConcurrency: 1},
		Open: func(_ context.Context, _ sinks.Env, c journalConfig) (sinks.Sink, error) {
			file, err := os.OpenFile(c.Path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
			if err != nil {
				return nil, &sinks.SettingError{Path: "/path", Err: err}
			}
			return journal{file}, nil
		},
	}

	dir, _ := os.MkdirTemp("", "journal")
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "entries")
	s, _ := plugin.Open(context.Background(), sinks.Env{}, journalConfig{path})
	results, err := s.(sinks.BatchSink).DeliverBatch(context.Background(), []*sinks.Delivery{{Payload: []byte("{}")}, {Payload: []byte(`{"a":1}`)}})
	text, _ := os.ReadFile(path)
	fmt.Printf("%d %v\n%s", len(results), err, text)
	// Output:
	// 2 <nil>
	// {}
	// {"a":1}
}
