package watch

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
)

const (
	// replanAfter is how soon after a change of the directories themselves they
	// are looked at again. Much below the debounce, so that what is written
	// into a new directory still puts off the signal.
	replanAfter = 50 * time.Millisecond
	// firstBackoff doubles up to maxBackoff while watching fails again and again.
	firstBackoff = time.Second
	maxBackoff   = time.Minute
	// calm is how long watching must have gone well for the next failure to count
	// as the first.
	calm = time.Minute
)

var errSourceEnded = errors.New("the file events have ended")

// loop is the state of the watcher's goroutine, which alone uses it. A zero time
// is a thing that is not to be done.
type loop struct {
	w     *Watcher
	paths Paths
	src   source // nil: no events
	tree  *tree  // what src watches; nil without src
	stamp uint64 // of the files at the last signal

	first, due time.Time // of the change that settles: its first event, its signal
	suspect    uint64    // the stamp of a change that was noticed without events; 0 when there were

	replanAt time.Time // look whether the same directories are to be watched
	rebuild  bool      // with that, in any case watch anew
	retryAt  time.Time // watch anew because it failed
	recheck  time.Time
	poll     time.Time

	backoff time.Duration // of the last failure; 0 when it is long ago
	good    time.Time     // since when watching has worked in full
}

func (w *Watcher) run(ctx context.Context) {
	defer close(w.done)
	l := loop{w: w}
	defer l.drop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	var armed time.Time
	for {
		if next := l.next(); next != armed {
			armed = next
			if next.IsZero() {
				timer.Stop()
			} else {
				timer.Reset(time.Until(next))
			}
		}
		var events <-chan fsnotify.Event
		var failures <-chan error
		if l.src != nil {
			events, failures = l.src.Events(), l.src.Errors()
		}
		select {
		case <-ctx.Done():
			return
		case <-w.poke:
			l.set()
		case e, ok := <-events:
			if !ok {
				l.fail(errSourceEnded)
				continue
			}
			l.event(e)
		case err, ok := <-failures:
			if !ok {
				err = errSourceEnded
			}
			l.fail(err)
		case <-timer.C:
			armed = time.Time{}
			l.alarm(time.Now())
		}
	}
}

// next is the earliest time at which something is to be done.
func (l *loop) next() time.Time {
	var next time.Time
	for _, t := range []time.Time{l.due, l.replanAt, l.retryAt, l.recheck, l.poll} {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	return next
}

// reached reports whether t is to be done by now.
func reached(t, now time.Time) bool { return !t.IsZero() && !t.After(now) }

func (l *loop) alarm(now time.Time) {
	if reached(l.replanAt, now) {
		l.replan(now)
	}
	if reached(l.retryAt, now) && l.build(now) {
		l.touch(now)
	}
	if reached(l.due, now) {
		l.settle(now)
	}
	if reached(l.poll, now) {
		l.compare(now)
		l.poll = now.Add(l.w.opts.PollEvery)
	}
	if reached(l.recheck, now) {
		l.recheck = now.Add(l.w.opts.Recheck)
		if l.src != nil {
			l.replan(now)
		}
		if l.compare(now); l.due.IsZero() {
			l.signal(now, l.stamp)
		}
	}
}

// set takes over what Set has left.
func (l *loop) set() {
	now := time.Now()
	l.w.mu.Lock()
	l.paths = l.w.paths
	l.w.mu.Unlock()
	l.recheck = now.Add(l.w.opts.Recheck)
	if l.src == nil {
		l.build(now)
	} else {
		l.replan(now)
	}
	l.touch(now)
}

// event takes one event of the kernel. In a busy directory nearly all of them
// are about other files: they end here, before any timer moves.
func (l *loop) event(e fsnotify.Event) {
	slash := strings.LastIndexByte(e.Name, '/')
	if slash < 0 {
		return
	}
	d, ok := l.tree.dirs[e.Name[:max(slash, 1)]]
	if !ok {
		return
	}
	name := e.Name[slash+1:]
	onTheWay, named := d.names[name]
	if !named && !(d.dropIns && DropIn(name)) {
		return
	}
	now := time.Now()
	replaced := e.Op&(fsnotify.Create|fsnotify.Remove|fsnotify.Rename) != 0
	if replaced || onTheWay {
		if l.replanAt.IsZero() {
			l.replanAt = now.Add(replanAfter)
		}
		// A new directory may have the inode number of the old one, and one that
		// could not be watched may have become readable: looking alone would
		// show neither.
		l.rebuild = l.rebuild || onTheWay
	}
	l.touch(now)
	l.suspect = 0
}

// touch notes that something happened: the signal comes when it has settled.
func (l *loop) touch(now time.Time) {
	if l.due.IsZero() {
		l.first, l.suspect = now, 0
	}
	l.due = now.Add(l.w.opts.Debounce)
	if last := l.first.Add(l.w.opts.MaxWait); last.Before(l.due) {
		l.due = last
	}
}

// compare finds a change that made no event.
func (l *loop) compare(now time.Time) {
	if !l.due.IsZero() {
		return
	}
	if s := l.w.opts.stamp(l.paths); s != l.stamp {
		l.touch(now)
		l.suspect = s
	}
}

// settle signals, unless the directories turn out to be others or files without events
// still change: then the change has not settled.
func (l *loop) settle(now time.Time) {
	if !l.replanAt.IsZero() {
		if l.replan(now); l.due.After(now) {
			return
		}
	}
	s := l.w.opts.stamp(l.paths)
	if l.suspect != 0 && s != l.suspect {
		l.touch(now)
		if l.suspect = s; l.due.After(now) {
			return
		}
	}
	l.signal(now, s)
}

// signal tells the receiver to compare. If it has not taken the last signal yet,
// that one stands for this one too: it has not compared since.
func (l *loop) signal(now time.Time, stamp uint64) {
	l.first, l.due, l.suspect = time.Time{}, time.Time{}, 0
	l.stamp = stamp
	l.recheck = now.Add(l.w.opts.Recheck)
	select {
	case l.w.changed <- struct{}{}:
	default:
	}
}

// replan looks whether the directories to watch are still the same ones, and
// watches anew if not.
func (l *loop) replan(now time.Time) {
	anew := l.rebuild
	l.replanAt, l.rebuild = time.Time{}, false
	if l.src == nil {
		return // the next try looks
	}
	if !anew {
		t := plant(l.paths, nil)
		if t.sameWatches(l.tree) && l.src.Watched() >= l.tree.watched() {
			t.adopt(l.tree)
			l.tree = t
			return
		}
	}
	l.build(now)
	l.touch(now)
}

// build begins to watch, anew if it did already, and reports whether there
// are events now. Between the old and the new watches events get lost: the caller
// touches. The old ones go first: the kernel may not have room for both.
func (l *loop) build(now time.Time) bool {
	l.drop()
	l.replanAt, l.rebuild, l.retryAt = time.Time{}, false, time.Time{}
	src, err := l.w.opts.open()
	if err != nil {
		l.blind(now, err)
		return false
	}
	// The events of the new watches wait in the kernel until the tree is there
	// to judge them by.
	l.src = src
	l.tree = plant(l.paths, src.Add)
	if err := l.tree.blind(); err != nil {
		l.blind(now, err)
		return true
	}
	if l.good.IsZero() {
		l.good = now
	}
	l.poll = time.Time{}
	if l.w.polling.Swap(false) {
		l.w.opts.Logger.Info("configuration is watched by file events again")
	}
	return true
}

// fail deals with an error of the source. One that lost events or ended is
// replaced: at once, or after a while when it happens repeatedly.
func (l *loop) fail(err error) {
	now := time.Now()
	l.touch(now)
	if err == error(unix.EINVAL) {
		// A directory was renamed and removed before fsnotify took its watch
		// away. An error of reading is a fs.PathError and not this.
		l.replanAt, l.rebuild = now.Add(replanAfter), true
		return
	}
	l.w.opts.Logger.Warn("file events were lost; the configuration is compared", "err", err)
	if l.forget(now); l.backoff > 0 {
		l.drop()
		l.blind(now, err)
		return
	}
	l.backoff = firstBackoff
	l.build(now)
}

// blind begins to poll and plans the next try to watch.
func (l *loop) blind(now time.Time, err error) {
	l.forget(now)
	l.backoff = min(max(2*l.backoff, firstBackoff), maxBackoff)
	l.retryAt = now.Add(l.backoff)
	if l.poll.IsZero() {
		l.poll = now.Add(l.w.opts.PollEvery)
	}
	if !l.w.polling.Swap(true) {
		l.w.opts.Logger.Warn("file events are not available; the configuration is polled",
			"err", err, "every", l.w.opts.PollEvery,
			"remedy", "if a limit is reached, raise fs.inotify.max_user_instances and fs.inotify.max_user_watches")
	}
}

// forget ends a time in which watching worked. After a calm one the failures before
// it no longer count.
func (l *loop) forget(now time.Time) {
	if !l.good.IsZero() && now.Sub(l.good) >= calm {
		l.backoff = 0
	}
	l.good = time.Time{}
}

// drop ends the source.
func (l *loop) drop() {
	if l.src == nil {
		return
	}
	if err := l.src.Close(); err != nil {
		l.w.opts.Logger.Warn("file events did not end well", "err", err)
	}
	l.src, l.tree = nil, nil
}
