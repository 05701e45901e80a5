package main

import (
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestADeliveryHasOneEffectThroughKills runs the sink under the real daemon and ends both
// with SIGKILL at the worst moments and at any. A trigger in the database counts effects in
// the transactions that make them.
func TestADeliveryHasOneEffectThroughKills(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.send("first")
	w.settled()
	w.exec(`CREATE TABLE effects (n TEXT)`)
	w.exec(`CREATE TRIGGER inserted AFTER INSERT ON expenses BEGIN INSERT INTO effects VALUES (new.data ->> 'n'); END`)
	w.exec(`CREATE TRIGGER updated AFTER UPDATE ON expenses BEGIN INSERT INTO effects VALUES (new.data ->> 'n'); END`)

	w.killPluginBeforeItsCommit("pluginkilled")
	lost := w.killDaemonBeforeItReadsTheAnswer()
	sent := []string{"pluginkilled", lost}
	for round := range 3 {
		sent = append(sent, w.storm(round)...)
	}

	for _, n := range sent {
		if effects := w.effects(n); effects != 1 {
			t.Errorf("the delivery %s had %d effects", n, effects)
		}
	}
	if skipped := w.get("/v1/events/" + lost); !strings.Contains(w.delivery(skipped), "stored before") {
		t.Errorf("the delivery whose answer was lost was not recognised: %s", skipped)
	}
}

// killPluginBeforeItsCommit holds the database, so that a delivery is certainly under way
// in the plugin and certainly not stored.
func (w *world) killPluginBeforeItsCommit(n string) {
	release := w.lock()
	w.send(n)
	w.await("a delivery is under way", func(s status) bool { return s.inFlight() > 0 })
	<-time.After(500 * time.Millisecond) // the call goes out 100 ms later
	w.killPlugin()
	w.await("the plugin runs again", func(s status) bool { return s.pid() != 0 })
	release()
	w.settled()
}

// killDaemonBeforeItReadsTheAnswer stops the daemon while a delivery is under way, lets
// the plugin store it, and kills the daemon: nobody has read the answer. It returns which
// delivery that was.
func (w *world) killDaemonBeforeItReadsTheAnswer() (n string) {
	for try := range 6 {
		n = fmt.Sprint("answerlost-", try)
		release := w.lock()
		w.send(n)
		w.await("a delivery is under way", func(s status) bool { return s.inFlight() > 0 })
		// The call goes out 100 ms later, and SQLite waits for the lock for 5 s.
		<-time.After(500 * time.Millisecond * time.Duration(try+1))
		w.signal(syscall.SIGSTOP)
		release()
		if w.within(10*time.Second, func() bool { return w.effects(n) == 1 }) {
			w.kill()
			w.start()
			w.settled()
			return n
		}
		w.signal(syscall.SIGCONT) // SQLite had lost its patience just before: the daemon tries again
		w.settled()
	}
	w.t.Fatal("nothing was ever stored while the daemon was stopped")
	return n
}

// storm sends events while the plugin is killed twice, and then the daemon. More often
// would make the relay take a delivery for the cause.
func (w *world) storm(round int) (sent []string) {
	for i := range 150 {
		sent = append(sent, fmt.Sprintf("storm-%d-%d", round, i))
	}
	var senders sync.WaitGroup
	senders.Go(func() {
		for _, n := range sent {
			w.send(n)
		}
	})
	for range 2 {
		w.await("the plugin runs and has something to do", func(s status) bool { return s.pid() != 0 && s.pending() > 0 })
		<-time.After(rand.N(30 * time.Millisecond)) // at any moment
		w.killPlugin()
	}
	<-time.After(rand.N(300 * time.Millisecond))
	w.kill()
	w.start()
	senders.Wait()
	w.settled()
	return sent
}

// lock keeps everybody else from writing to the database until release is called.
func (w *world) lock() (release func()) {
	w.t.Helper()
	conn, err := w.db.Conn(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := conn.ExecContext(w.t.Context(), `BEGIN IMMEDIATE`); err != nil {
		w.t.Fatal(err)
	}
	return func() {
		_, err := conn.ExecContext(w.t.Context(), `ROLLBACK`)
		if err := errors.Join(err, conn.Close()); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) exec(query string) {
	w.t.Helper()
	if _, err := w.db.ExecContext(w.t.Context(), query); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) effects(n string) (count int) {
	w.t.Helper()
	err := w.db.QueryRowContext(w.t.Context(), `SELECT count(*) FROM effects WHERE n = ?`, n).Scan(&count)
	if err != nil {
		w.t.Fatal(err)
	}
	return count
}

func openDatabase(t *testing.T, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(30000)")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}
