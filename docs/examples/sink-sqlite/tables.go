package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/url"
	"os"
	"strings"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/peanutsapp/peanuts-relay/sinks"
)

// What the sink remembers besides the entries. A row of deliveries is why a delivery has
// one effect: it is written in the transaction of that effect. entries keeps the sequence
// of the newest delivery of an entry, also after the entry was deleted.
const schema = `
CREATE TABLE IF NOT EXISTS _peanuts_deliveries (id TEXT PRIMARY KEY, stored_at INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS _peanuts_deliveries_by_age ON _peanuts_deliveries (stored_at);
CREATE TABLE IF NOT EXISTS _peanuts_entries (name TEXT, entry_id TEXT, sequence INTEGER NOT NULL, PRIMARY KEY (name, entry_id)) WITHOUT ROWID;
`

// tables are the tables of one file.
type tables struct {
	db       *sql.DB
	settings settings
}

func open(ctx context.Context, s settings) (*tables, error) {
	// SQLite would let everybody read it.
	f, err := os.OpenFile(s.Path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	// With synchronous(full) a commit is on the disk when it returns. Another webhook may
	// write to the same file: immediate transactions wait for each other.
	file := url.URL{Scheme: "file", Path: s.Path, RawQuery: url.Values{
		"_pragma": {"busy_timeout(5000)", "journal_mode(wal)", "synchronous(full)"},
		"_txlock": {"immediate"},
	}.Encode()}
	db, err := sql.Open("sqlite", file.String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	if _, err := db.ExecContext(ctx, schema); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &tables{db, s}, nil
}

func (t *tables) close() error { return t.db.Close() }

// change runs f in one transaction. When it returns an error nothing was changed, or it is
// not known whether the last step, the commit, worked: the same deliveries again put it
// right.
func (t *tables) change(ctx context.Context, f func(*change) error) error {
	tx, err := t.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	c := &change{tx: tx, settings: t.settings, now: time.Now(), made: map[string]bool{}}
	if err := f(c); err != nil {
		return err
	}
	if err := c.exec(ctx, `DELETE FROM _peanuts_deliveries WHERE stored_at < ?`, c.now.Add(-t.settings.Remember).Unix()); err != nil {
		return err
	}
	return tx.Commit()
}

// change is a transaction under way.
type change struct {
	tx       *sql.Tx
	settings settings
	now      time.Time
	made     map[string]bool // tables that were made sure of
}

// faultError is an error of the database: nothing of the transaction can be kept.
type faultError struct{ err error }

func (e *faultError) Error() string { return e.err.Error() }
func (e *faultError) Unwrap() error { return e.err }

// store makes what the delivery says, once.
func (c *change) store(ctx context.Context, d *sinks.Delivery) error {
	switch {
	case d.Event != sinks.Created && d.Event != sinks.Updated && d.Event != sinks.Deleted:
		return sinks.Skip("not about an entry: " + d.Event)
	case !usable(c.settings.Prefix + d.Helper.ID):
		return sinks.Reject("bad_helper", errors.New("the id of the helper makes no name of a table; the setting prefix changes it"))
	case d.Event != sinks.Deleted && !json.Valid(d.Entry.Data):
		return sinks.Reject("bad_data", errors.New("the data of the entry is not JSON"))
	}
	name := c.settings.Prefix + d.Helper.ID
	table := quote(name)
	if !c.made[name] {
		if err := c.exec(ctx, `CREATE TABLE IF NOT EXISTS `+table+` (entry_id TEXT PRIMARY KEY, data TEXT NOT NULL, user_id TEXT, created_at TEXT, changed_at TEXT NOT NULL, deleted_at TEXT)`); err != nil {
			return err
		}
		c.made[name] = true
	}
	fresh, err := c.changes(ctx, `INSERT INTO _peanuts_deliveries VALUES (?, ?) ON CONFLICT DO NOTHING`, d.ID, c.now.Unix())
	if err != nil {
		return err
	}
	if !fresh {
		return sinks.Skip("stored before")
	}
	// Deliveries of an entry come in order, but an old one may be replayed.
	newest, err := c.changes(ctx, `INSERT INTO _peanuts_entries VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET sequence = excluded.sequence WHERE excluded.sequence >= sequence`,
		name, d.Entry.ID, int64(min(d.Sequence, math.MaxInt64)))
	if err != nil {
		return err
	}
	if !newest {
		return sinks.Skip("something newer is stored")
	}
	return c.apply(ctx, table, d)
}

func (c *change) apply(ctx context.Context, table string, d *sinks.Delivery) error {
	switch {
	case d.Event != sinks.Deleted:
		var user *string
		if d.User != nil {
			user = &d.User.ID
		}
		return c.exec(ctx, `INSERT INTO `+table+` VALUES (?, ?, ?, ?, ?, NULL)
			ON CONFLICT DO UPDATE SET data = excluded.data, user_id = excluded.user_id, changed_at = excluded.changed_at, deleted_at = NULL`,
			d.Entry.ID, string(d.Entry.Data), user, stamp(d.Entry.CreatedAt), stamp(d.Timestamp))
	case c.settings.OnDelete == "mark":
		return c.exec(ctx, `UPDATE `+table+` SET deleted_at = ? WHERE entry_id = ?`, stamp(d.Timestamp), d.Entry.ID)
	}
	return c.exec(ctx, `DELETE FROM `+table+` WHERE entry_id = ?`, d.Entry.ID)
}

func (c *change) exec(ctx context.Context, query string, args ...any) error {
	_, err := c.changes(ctx, query, args...)
	return err
}

// changes reports whether the statement changed a row.
func (c *change) changes(ctx context.Context, query string, args ...any) (bool, error) {
	result, err := c.tx.ExecContext(ctx, query, args...)
	if err != nil {
		return false, &faultError{err}
	}
	n, err := result.RowsAffected()
	if err != nil {
		return false, &faultError{err}
	}
	return n > 0, nil
}

// usable reports whether a table can have that name: some belong to SQLite, and some to
// this sink.
func usable(table string) bool {
	lower := strings.ToLower(table)
	return table != "" && !strings.ContainsRune(table, 0) && !strings.HasPrefix(lower, "sqlite_") && !strings.HasPrefix(lower, "_peanuts_")
}

// quote makes a name of whatever a helper is called.
func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// stamp is a time as SQLite's own functions read it.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.000") }

// outcome says what an error of the database means. A full disk, a busy file and all that
// is not listed may pass.
func outcome(err error) error {
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return err
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM:
		return sinks.Misconfigured("no_access", fmt.Errorf("the file of the setting path cannot be written: %w", err))
	case sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT:
		return sinks.Misconfigured("damaged", fmt.Errorf("the file of the setting path is not an SQLite database, or damaged: %w", err))
	case sqlite3.SQLITE_TOOBIG:
		return sinks.Reject("too_big", err)
	}
	return err
}
