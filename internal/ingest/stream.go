package ingest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"sync"

	"github.com/peanutsapp/peanuts-relay/internal/failpoint"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
)

// A group of lines is handed to the store as soon as the store has taken the
// one before and no more input is at hand; these only end a group early.
const (
	batchEvents = 256
	batchBytes  = 256 << 10
)

// batch is a group of lines that is handed to the store together.
type batch struct {
	items []*item // used[:n] of them; kept for the next batch
	n     int
	bytes int
	evs   []*queue.Event
}

func (b *batch) full() bool { return b.n >= batchEvents || b.bytes >= batchBytes }

func (b *batch) reset() {
	for _, it := range b.items[:b.n] {
		it.reset(0) // lets go of payloads
	}
	clear(b.evs)
	b.n, b.bytes, b.evs = 0, 0, b.evs[:0]
}

// stream is one request of lines. Three goroutines work on it, each at most one
// step ahead of the next:
//
//	read ──open──▶ commit ──out──▶ write
//
// read parses lines into the open batch while commit waits for the store to
// make the batch before durable; write sends the results while both go on, so
// that a client which only sends is not blocked by its own results.
type stream struct {
	s      *Server
	conn   *conn
	w      http.ResponseWriter
	ctx    context.Context
	cancel context.CancelFunc

	mu         sync.Mutex
	changed    [3]sync.Cond // one for each goroutine: forRead, forCommit, forWrite
	open       *batch
	ready      bool // open should be taken: it is full, or no more input is at hand
	ended      bool // read is done
	filling    bool // read waits for input
	backlogged bool // commit waits for the client to take results
	finished   bool // commit is done
	gone       bool // nothing can be written any more
	results    results
}

// results are on their way to the client.
type results struct {
	out        []byte // not yet taken by write
	lines      int64  // that out answers
	held       int    // bytes in out and in write
	unanswered int64  // lines read and not yet answered on the wire
}

const (
	forRead = iota
	forCommit
	forWrite
)

func (s *Server) serveStream(w http.ResponseWriter, r *http.Request, c *conn) {
	s.metrics.streams.Add(1)
	defer s.metrics.streams.Add(-1)
	st := &stream{s: s, conn: c, w: w, open: s.getBatch()}
	// Not r.Context: net/http ends that when the client ends its half of the
	// connection, and lines that came whole are taken nevertheless.
	st.ctx, st.cancel = context.WithCancel(context.WithoutCancel(r.Context()))
	defer st.cancel()
	for i := range st.changed {
		st.changed[i].L = &st.mu
	}
	w.Header()["Content-Type"] = []string{typeNDJSON}
	rc := http.NewResponseController(w)
	rc.EnableFullDuplex()
	if r.Header.Get("Expect") == "" {
		// A client in one thread may want to see an answer begin before it
		// sends. With Expect the first read must come first: it makes net/http
		// say 100 Continue.
		w.WriteHeader(http.StatusOK)
		rc.Flush()
	}
	c.beginBody(hooks{reading: st.owes, writing: st.holdsUp})
	s.addStream(st)
	defer s.removeStream(st)

	var wg sync.WaitGroup
	wg.Go(st.commit)
	wg.Go(st.write)
	last, lastLine := st.read(r.Body)
	st.end(lastLine, last)
	wg.Wait()
	s.results.Add(-int64(st.results.held))
	s.putBatch(st.open)
	c.endBody()
	if last != nil || st.gone {
		c.cutOff()
	}
}

func (s *Server) getBatch() *batch { return s.batches.Get().(*batch) }

func (s *Server) putBatch(b *batch) {
	b.reset()
	s.batches.Put(b)
}

// owes: a client that sends nothing is excused while results are on their way
// to it. If it does not take them, writing runs into its own deadline.
func (st *stream) owes() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.results.unanswered > 0
}

// holdsUp: a client that takes no results is excused while it cannot send
// because we are busy with what it sent, be it the store or parsing.
func (st *stream) holdsUp() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return !st.ended && !st.filling && !st.backlogged
}

// read takes lines until the input ends. The failure says why it ended early,
// line which is the first that was not taken; nil is a proper end.
func (st *stream) read(body io.Reader) (last *failure, line int64) {
	s := st.s
	window := s.windows.Get().(*[]byte)
	defer s.windows.Put(window)
	lines := lineReader{src: body, max: int(s.o.MaxEventBytes), small: *window, buf: *window,
		more: func() *failure { return s.takeBig(st.ctx) }, less: s.giveBig}
	defer lines.close()
	var it item
	var scratch []byte
	for {
		text, state := lines.next()
		it.reset(lines.number)
		switch state {
		case lineNeed:
			st.beforeFill()
			err := lines.fill()
			st.afterFill()
			if err != nil {
				return st.inputFailure(err), lines.number + 1
			}
			continue
		case lineEnd:
			return nil, 0
		case lineTooLong:
			it.failure = tooLarge("the line", s.o.MaxEventBytes)
		case lineRefused:
			it.failure = lines.why
		case lineOK:
			if len(bytes.TrimLeft(text, " \t\r")) == 0 {
				continue
			}
			s.metrics.bytes.Add(int64(len(text)) + 1)
			scratch = s.prepare(&it, text, "", scratch)
			if cap(scratch) > bigBody {
				scratch = nil
			}
		}
		if !st.add(&it, len(text)) {
			return st.inputFailure(io.ErrClosedPipe), lines.number + 1
		}
	}
}

// inputFailure says why reading ended.
func (st *stream) inputFailure(err error) *failure {
	switch {
	case st.s.isStopping():
		return fail(http.StatusServiceUnavailable, CodeShuttingDown,
			"the daemon is stopping; this line and what follows it were not taken; send them again when it is back").after(retryRestart)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fail(http.StatusRequestTimeout, CodeTimeout,
			"no byte came for %s; this line and what follows it were not taken; an empty line now and then keeps a stream open", st.s.o.StallTimeout)
	}
	return fail(http.StatusBadRequest, CodeIncomplete,
		"the stream broke off; this line and what follows it were not taken")
}

// add puts it into the open batch, waiting while that is full. false: the
// client is gone.
func (st *stream) add(it *item, size int) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	for st.open.full() && !st.gone {
		st.changed[forRead].Wait()
	}
	if st.gone {
		return false
	}
	b := st.open
	if b.n == len(b.items) {
		b.items = append(b.items, new(item))
	}
	b.items[b.n].become(it)
	b.n++
	b.bytes += size
	st.results.unanswered++
	if b.full() {
		st.ready = true
		st.changed[forCommit].Signal()
	}
	return true
}

// become copies from into it, each keeping its own backing slices.
func (it *item) become(from *item) {
	it.ev, it.helper, it.line, it.failure = from.ev, from.helper, from.line, from.failure
	it.deliveries = append(it.deliveries[:0], from.deliveries...)
	it.skipped = append(it.skipped[:0], from.skipped...)
	it.ev.Deliveries, it.ev.Skipped = it.deliveries, it.skipped
}

// beforeFill lets commit have the open batch while read waits for input.
func (st *stream) beforeFill() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.filling = true
	if st.open.n > 0 {
		st.ready = true
		st.changed[forCommit].Signal()
	}
}

func (st *stream) afterFill() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.filling = false
}

// end tells commit that no more lines come; last, if any, is its last result.
func (st *stream) end(line int64, last *failure) {
	var it item
	if last != nil {
		it.reset(line)
		it.failure = last
		st.add(&it, 0)
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	st.ended = true
	st.changed[forCommit].Signal()
}

// commit hands batch after batch to the store. One at a time: the store may
// order concurrent calls as it likes, and the events of a stream keep theirs.
func (st *stream) commit() {
	spare, results := st.s.getBatch(), []byte(nil)
	defer func() { st.s.putBatch(spare) }()
	for {
		b := st.next(spare)
		if b == nil {
			return
		}
		st.accept(b)
		results = results[:0]
		for _, it := range b.items[:b.n] {
			st.s.count(it)
			results = st.s.appendResult(results, it)
		}
		n := int64(b.n)
		b.reset()
		spare = b
		st.deliver(results, n)
	}
}

// next exchanges spare for the open batch once that should be taken; nil when
// there is nothing more to do.
func (st *stream) next(spare *batch) *batch {
	st.mu.Lock()
	defer st.mu.Unlock()
	for !st.gone && !st.ended && !st.ready {
		st.changed[forCommit].Wait()
	}
	if st.gone || st.open.n == 0 {
		st.finished = true
		st.changed[forWrite].Signal()
		return nil
	}
	b := st.open
	st.open, st.ready = spare, false
	st.changed[forRead].Signal()
	return b
}

// accept makes the good lines of b durable, or marks them as refused.
func (st *stream) accept(b *batch) {
	for _, it := range b.items[:b.n] {
		if it.failure == nil {
			b.evs = append(b.evs, &it.ev)
		}
	}
	if len(b.evs) == 0 {
		return
	}
	started := st.s.clock()
	err := st.s.o.Gate()
	if err == nil {
		err = st.s.o.Store.Accept(st.ctx, b.evs)
	}
	var all *failure
	if err != nil {
		all = ofQueue(err)
	}
	for _, it := range b.items[:b.n] {
		switch {
		case it.failure != nil:
		case all != nil:
			it.failure = all
		case it.ev.Err != nil:
			it.failure = ofQueue(it.ev.Err)
		}
	}
	failpoint.Here("answer.stream")
	st.conn.moved() // until now it was we who kept the client waiting
	if all == nil {
		st.s.o.Observe(st.s.clock() - started)
	}
}

// deliver hands results to write, waiting while the client has too many
// unread.
func (st *stream) deliver(results []byte, lines int64) {
	st.mu.Lock()
	defer st.mu.Unlock()
	for !st.gone && st.results.held > 0 && st.results.held+len(results) > st.allowance() {
		st.backlogged = true
		st.changed[forCommit].Wait()
	}
	st.backlogged = false
	st.results.out = append(st.results.out, results...)
	st.results.held += len(results)
	st.s.results.Add(int64(len(results)))
	st.results.lines += lines
	st.changed[forWrite].Signal()
}

func (st *stream) allowance() int {
	if st.s.results.Load() > allResults {
		return fewResults
	}
	return streamResults
}

// write sends results as they come.
func (st *stream) write() {
	rc := http.NewResponseController(st.w)
	var chunk []byte
	for {
		var lines int64
		if chunk, lines = st.take(chunk); lines == 0 {
			return
		}
		_, err := st.w.Write(chunk)
		if err == nil {
			err = rc.Flush()
		}
		st.wrote(len(chunk), lines, err)
	}
}

// take exchanges spare for the results at hand, waiting for some; no lines mean
// that none will come.
func (st *stream) take(spare []byte) (results []byte, lines int64) {
	st.mu.Lock()
	defer st.mu.Unlock()
	for !st.gone && !st.finished && st.results.lines == 0 {
		st.changed[forWrite].Wait()
	}
	if st.gone || st.results.lines == 0 {
		return nil, 0
	}
	results, lines = st.results.out, st.results.lines
	if cap(spare) > fewResults {
		spare = nil
	}
	st.results.out, st.results.lines = spare[:0], 0
	return results, lines
}

// wrote books results as written, or ends the stream because they cannot be.
func (st *stream) wrote(size int, lines int64, err error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.results.held -= size
	st.s.results.Add(-int64(size))
	if err == nil {
		st.conn.moved() // the client's time to go on begins now
		st.results.unanswered -= lines
		st.changed[forCommit].Signal()
		return
	}
	// Events that the store took meanwhile stay taken; the client cannot know,
	// and its repeat finds out if it gave ids.
	st.gone = true
	st.cancel()
	st.conn.interrupt()
	for i := range st.changed {
		st.changed[i].Signal()
	}
}
