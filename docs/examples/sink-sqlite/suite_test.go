package main

import (
	"database/sql"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/peanutsapp/peanuts-relay/sinks"
	"github.com/peanutsapp/peanuts-relay/sinks/sinktest"
)

// options tell the suite how to call this sink, and where to see what it did.
func options(t *testing.T) sinktest.Options {
	path := filepath.Join(t.TempDir(), "entries.db")
	return sinktest.Options{
		Settings: func(string) any { return map[string]any{"path": path} },
		Offline:  "it writes to a file",
		Bad: []sinktest.BadSettings{
			{Name: "a relative path", Path: "/path", Settings: func(string) any { return map[string]any{"path": "entries.db"} }},
		},
		Effects: func(d *sinks.Delivery) (rows int, err error) {
			db, err := sql.Open("sqlite", path)
			if err != nil {
				return 0, err
			}
			defer db.Close()
			err = db.QueryRowContext(t.Context(), `SELECT count(*) FROM `+quote(d.Helper.ID)+` WHERE entry_id = ?`, d.Entry.ID).Scan(&rows)
			return rows, err
		},
	}
}

func TestTheSinkPassesTheSuite(t *testing.T) {
	sinktest.Run(t, plugin().Server, options(t))
}

func TestTheBinaryPassesTheSuite(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "peanuts-sink-sqlite")
	if out, err := exec.Command("go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	sinktest.RunBinary(t, binary, options(t))
}
