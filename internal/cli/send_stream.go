package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// window bounds how many events are under way without an answer, and with it
// what has to be remembered of them.
const window = 4096

// brokenStream says that a stream ended before every line was answered.
type brokenStream struct {
	err      error
	code     int    // exit status
	name     string // of the input
	answered int64  // the last line with an answer, 0 = none
	unknown  bool   // a line after it may have been accepted all the same
}

func (b *brokenStream) Error() string { return b.err.Error() }

// fault says up to where the input was taken and how to resume, given the rest
// of the command line as the words that it was made of.
func (b *brokenStream) fault(command []string) error {
	for i, word := range command {
		command[i] = shellWord(word)
	}
	resume := strings.Join(command, " ")
	hint := fmt.Sprintf("no line of %s was answered; resume with: %s", b.name, resume)
	if b.answered > 0 {
		hint = fmt.Sprintf("%s was answered up to line %d; resume with: %s --skip %d", b.name, b.answered, resume, b.answered)
	}
	if b.unknown {
		hint += "\n  lines after it may have been accepted without an answer: those with an \"id\" are not accepted twice"
	}
	return WithExit(b.code, fmt.Errorf("the stream of %s broke: %w", b.name, b.err), hint)
}

// stream hands in one event per line over one request and reads the answers
// while it does.
func (s *sender) stream(ctx context.Context, name string, r io.Reader, skip int64, p *progress) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	pr, pw := io.Pipe()
	feed := &lineFeed{out: pw, skip: skip, sent: make(chan int64, window), stopped: ctx.Done()}
	// The feed ends with the input or with the request. It is not waited for: a
	// read of standard input that is under way cannot be ended.
	go feed.run(r)
	defer pr.Close()

	req, err := s.client.request(ctx, "application/x-ndjson", pr)
	if err != nil {
		return err
	}
	resp, err := s.client.http.Do(req)
	if err != nil {
		return feed.broken(name, skip, s.client.unreachable(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		ans, err := readAnswer(resp)
		if err == nil && ans.Error != nil {
			err = ans.fault("the stream")
		} else if err == nil {
			err = fmt.Errorf("unexpected status %d", resp.StatusCode)
		}
		return &brokenStream{err: err, code: exitCode(err), name: name, answered: skip}
	}
	return s.readResults(name, bufio.NewReaderSize(resp.Body, 64<<10), feed, skip, p)
}

// readResults takes the answers, one line each, in the order of the events.
func (s *sender) readResults(name string, results *bufio.Reader, feed *lineFeed, answered int64, p *progress) error {
	for {
		raw, err := readLine(results, maxAnswer)
		if errors.Is(err, io.EOF) && len(raw) == 0 {
			break
		}
		if err != nil {
			return feed.broken(name, answered, fmt.Errorf("read the answers: %w", err))
		}
		if len(bytes.TrimSpace(raw)) == 0 {
			continue
		}
		ans, err := parseAnswer(raw, http.StatusOK, "")
		if err != nil {
			return feed.broken(name, answered, err)
		}
		line, ok := feed.next()
		if !ok {
			// An answer that belongs to no line speaks of the stream.
			if ans.Error != nil {
				return feed.broken(name, answered, ans.fault("the stream"))
			}
			return feed.broken(name, answered, errors.New("more answers than events"))
		}
		answered = line
		s.result(fmt.Sprintf("%s:%d", name, line), ans, p)
	}
	if err := feed.end(); err != nil {
		return feed.broken(name, answered, err)
	}
	return nil
}

// result counts and prints the answer to one line.
func (s *sender) result(where string, ans *answer, p *progress) {
	if s.flags.json {
		fmt.Fprintf(s.Out, "%s\n", ans.raw)
	}
	switch {
	case ans.Error != nil:
		s.tryAgain = ans.tryAgain() && (s.rejected == 0 || s.tryAgain)
		s.rejected++
		p.clear()
		fmt.Fprintf(s.Err, "%s: %s %s\n", where, s.errStyle().bad("rejected:"), ans.reason())
	case ans.Duplicate:
		s.duplicates++
	default:
		s.accepted++
	}
	p.draw(s.accepted+s.duplicates, s.rejected)
}

// lineFeed copies lines into a request and remembers which are under way.
type lineFeed struct {
	out     *io.PipeWriter
	skip    int64
	sent    chan int64 // numbers of the lines under way; closed at the end
	stopped <-chan struct{}

	err error // of the input; to be read when sent is closed
}

func (f *lineFeed) run(r io.Reader) {
	defer close(f.sent)
	f.err = f.copy(bufio.NewReaderSize(r, 64<<10))
	// Only whole lines were written, so the request ends in order even when the
	// input did not: what was sent is answered.
	f.out.Close()
}

func (f *lineFeed) copy(br *bufio.Reader) error {
	for number := int64(1); ; number++ {
		line, err := readLine(br, maxInput)
		if err != nil && (!errors.Is(err, io.EOF) || len(line) == 0) {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("line %d: %w", number, err)
		}
		text := bytes.TrimSpace(line)
		if number <= f.skip || len(text) == 0 {
			continue
		}
		select {
		case f.sent <- number:
		case <-f.stopped:
			return nil
		}
		// One write, so that a line never waits for the next.
		if _, err := f.out.Write(append(text, '\n')); err != nil {
			return nil // the request ended: its own error is told
		}
	}
}

// next is the line that the next answer is about.
func (f *lineFeed) next() (int64, bool) {
	select {
	case line, ok := <-f.sent:
		return line, ok
	default:
		return 0, false
	}
}

// end is called when the answers ended: every line must have had its own.
func (f *lineFeed) end() error {
	select {
	case _, ok := <-f.sent:
		if !ok && f.err != nil {
			return WithExit(ExitFailure, f.err, "")
		}
		if !ok {
			return nil
		}
	case <-f.stopped:
	}
	return errors.New("the daemon ended the stream before every event was answered")
}

// broken wraps err. Without an exit status of its own it is that of a daemon
// that went away.
func (f *lineFeed) broken(name string, answered int64, err error) error {
	code := ExitUnavailable
	if marked, ok := errors.AsType[*fault](err); ok {
		code = marked.code
	}
	return &brokenStream{err: err, code: code, name: name, answered: answered, unknown: len(f.sent) > 0}
}

// readLine reads a line with its end, at most limit bytes of it.
func readLine(br *bufio.Reader, limit int) ([]byte, error) {
	line, err := br.ReadSlice('\n')
	if !errors.Is(err, bufio.ErrBufferFull) {
		return line, err
	}
	long := bytes.Clone(line)
	for errors.Is(err, bufio.ErrBufferFull) && len(long) <= limit {
		line, err = br.ReadSlice('\n')
		long = append(long, line...)
	}
	if len(long) > limit {
		return nil, fmt.Errorf("longer than %s", byteSize(int64(limit)))
	}
	return long, err
}
