package dispatch

import (
	"errors"

	"github.com/peanutsapp/peanuts-relay/internal/planted"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
)

// scanKind is the track that a scan reads.
type scanKind uint8

const (
	scanNone scanKind = iota
	scanReady
	scanWaiting
	scanReturning
)

const (
	// minFill is what one scan may load although the budget is used up.
	minFill = 64 << 10
	// readPause is how long a lane waits after a read that brought nothing.
	readPause = 1000
)

// wantsScan says which track should be read now. The ring is filled again
// before it is empty, so that the others go on during the read.
func (l *lane) wantsScan() scanKind {
	if l.scanning {
		return scanNone
	}
	b, w, r := &l.back, &l.waiting, &l.ready
	switch {
	case b.more && b.retries.len() == 0 && b.replays.len() < l.d.ringSize:
		return scanReturning
	case w.more && w.due.len() == 0:
		return scanWaiting
	case r.spilled && r.ring.len() <= l.d.ringSize/4 && r.ring.bytes < minFill:
		return scanReady
	}
	return scanNone
}

// scan reads one track. It is called and returns with the lock held, which it
// gives up for the read. Nothing leaves the owned set meanwhile.
func (l *lane) scan(kind scanKind) {
	l.scanning = true
	var err error
	switch kind {
	case scanReady:
		err = l.scanReady()
	case scanWaiting:
		err = l.scanWaiting()
	case scanReturning:
		err = l.scanReturning()
	}
	l.scanOver()
	l.readFailed(err)
}

// errNoProgress says that a read brought nothing although it said that there is
// more.
var errNoProgress = errors.New("the store returned no rows and said that there are more")

func (l *lane) scanReady() error {
	epoch, after := l.epoch, l.ready.cursor
	// Rows up to here were committed before the read begins, so it sees them.
	last := l.ready.last
	limit := l.d.ringSize - l.ready.ring.len()
	l.mu.Unlock()
	ds, more, err := l.d.store.ReadReady(l.num, after, limit, l.d.room())
	l.mu.Lock()
	if err != nil || epoch != l.epoch {
		return err
	}
	r := &l.ready
	for i := range ds {
		r.cursor = max(r.cursor, ds[i].Seq)
		switch {
		case l.passes(ds[i].Seq) && (i > 0 || !planted.RefillSkipsOne):
			r.ring.push(&ds[i])
		case l.owned.state(ds[i].Seq) == ownAsked:
			l.holdAsked(&ds[i])
		}
	}
	if more {
		return progress(ds)
	}
	r.cursor = max(r.cursor, last)
	if r.last <= r.cursor {
		r.spilled = false // else one was committed after the snapshot: read again
	}
	return nil
}

func (l *lane) scanWaiting() error {
	w := &l.waiting
	epoch, due, seq := l.epoch, w.cursorDue, w.cursorSeq
	w.noted = 0
	now := l.d.store.Now()
	l.mu.Unlock()
	ds, next, err := l.d.store.ReadWaiting(l.num, due, seq, now, l.d.ringSize, l.d.room())
	l.mu.Lock()
	if err != nil || epoch != l.epoch {
		return err
	}
	for i := range ds {
		w.cursorDue, w.cursorSeq = ds[i].Due, ds[i].Seq
		if l.passes(ds[i].Seq) {
			l.list(&w.due, &ds[i])
		}
	}
	w.more = next != 0 && next <= now
	w.next = earlier(next, w.noted)
	if w.noted != 0 && w.noted-dueSlack <= w.cursorDue {
		w.cursorDue, w.cursorSeq, w.more = w.noted-dueSlack, 0, true
	}
	if w.more && next != 0 && next <= now {
		return progress(ds)
	}
	return nil
}

func (l *lane) scanReturning() error {
	b := &l.back
	epoch, after := l.epoch, b.cursor
	b.noted = 0
	limit := l.d.ringSize - b.replays.len()
	l.mu.Unlock()
	ds, more, err := l.d.store.ReadReturning(l.num, after, limit, l.d.room())
	l.mu.Lock()
	if err != nil || epoch != l.epoch {
		return err
	}
	for i := range ds {
		b.cursor = max(b.cursor, ds[i].Seq)
		if !l.passes(ds[i].Seq) {
			continue
		}
		if ds[i].Replay {
			l.list(&b.replays, &ds[i])
		} else {
			l.list(&b.retries, &ds[i])
		}
	}
	b.more = more
	if b.noted != 0 {
		b.cursor, b.more = min(b.cursor, b.noted-1), true
	}
	if more {
		return progress(ds)
	}
	return nil
}

func progress(ds []queue.Delivery) error {
	if len(ds) == 0 {
		return errNoProgress
	}
	return nil
}

// readFailed keeps a lane whose reads fail from spinning. A stopped store ends
// all claiming; the store itself has reported why.
func (l *lane) readFailed(err error) {
	switch {
	case err == nil:
		return
	case errors.Is(err, queue.ErrStopped):
		l.d.dead.Store(true)
		return
	}
	webhook := ""
	if s := l.slot(); s != nil {
		webhook = s.Webhook
	}
	l.d.log.Error("pending deliveries cannot be read", "webhook", webhook, "err", err)
	l.halt.backoff = l.d.store.Now() + readPause
	l.arm()
}
