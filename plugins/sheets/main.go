// Command peanuts-sink-sheets keeps a tab of a Google spreadsheet in step with the
// entries of a helper: one row for each entry.
//
// Guarantees:
//
//   - What a batch changes is one atomic request: all of it is in the sheet or nothing.
//   - The same delivery again changes nothing: the event that a row is from is in the
//     row itself, so that neither a restart nor a lost answer makes a second row.
//   - Rows are found by the id of their entry, wherever an operator moved them; cells of
//     columns that the relay does not know, and columns themselves, stay as they are.
//   - What a sender wrote arrives as what it is: no text becomes a formula, a number or
//     a date.
//   - All webhooks of the process together stay within Google's quota of a service
//     account, 60 reads and 60 writes a minute, and only one of them writes to a
//     spreadsheet at a time.
package main

import (
	"cmp"
	"context"
	"net/http"

	"github.com/peanutsapp/peanuts-relay/sinks"
)

// version is set by the linker in released builds (scripts/build).
var version string

func main() { sinks.Serve(New()) }

// The largest batch. Google recommends at most 2 MB for a request
// (https://developers.google.com/workspace/sheets/api/limits); cells cost more in a
// request than in an entry.
const (
	maxBatch      = 500
	maxBatchBytes = 1_500_000
)

// New is the sink. Webhooks that it opens share the quota of their service account, and
// take turns at their spreadsheet.
func New() sinks.Plugin[Settings] {
	return newPlugin(func(env sinks.Env) *http.Client { return env.HTTP() })
}

// newPlugin takes where the clients for requests come from, so that tests can put the
// service into the same process.
func newPlugin(client func(sinks.Env) *http.Client) sinks.Plugin[Settings] {
	shared := &shared{}
	return sinks.Plugin[Settings]{
		Name:     "sheets",
		Version:  cmp.Or(version, "unknown"),
		Summary:  "keeps a row of a Google spreadsheet for each entry",
		Homepage: "https://github.com/peanutsapp/peanuts-relay/blob/main/docs/sinks/sheets.md",
		Capabilities: sinks.Capabilities{
			MaxBatch:        maxBatch,
			MaxBatchBytes:   maxBatchBytes,
			MaxConcurrency:  1,
			OrderedPerEntry: true,
			Idempotent:      true,
			// Below one a second batches fill up instead of the quota: 0.9 a second and
			// five at once is at most 59 in a minute.
			MaxPerSecond: 0.9,
			Burst:        5,
		},
		Open: func(ctx context.Context, env sinks.Env, settings Settings) (sinks.Sink, error) {
			return open(ctx, client(env), shared, settings)
		},
	}
}
