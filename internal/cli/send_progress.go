package cli

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// progressEvery is how often the bar is drawn anew.
const progressEvery = 100 * time.Millisecond

// progress is the bar that a stream of events shows on a terminal. Only read is
// used by more than one goroutine.
type progress struct {
	w     io.Writer // nil = no terminal
	width int
	now   func() time.Time

	start, drawn time.Time
	shown        bool
	total        int64 // bytes of the input, 0 = not known
	read         atomic.Int64
}

func (s *sender) newProgress() *progress {
	p := &progress{now: s.Now, start: s.Now()}
	if s.ErrTerm.Width == 0 {
		return p
	}
	p.w, p.width = s.Err, s.ErrTerm.Width
	for _, name := range s.flags.files {
		info, err := os.Stat(name)
		if err != nil || !info.Mode().IsRegular() {
			p.total = 0
			return p
		}
		p.total += info.Size()
	}
	return p
}

// count follows how much of the input was read.
func (p *progress) count(r io.Reader) io.Reader { return countingReader{r, &p.read} }

type countingReader struct {
	io.Reader
	n *atomic.Int64
}

func (r countingReader) Read(b []byte) (int, error) {
	n, err := r.Reader.Read(b)
	r.n.Add(int64(n))
	return n, err
}

func (p *progress) rate(events int64) string {
	elapsed := p.now().Sub(p.start).Seconds()
	if elapsed <= 0 {
		elapsed = 0.001
	}
	return grouped(int64(float64(events)/elapsed)) + "/s"
}

func (p *progress) draw(accepted, rejected int64) {
	if p.w == nil {
		return
	}
	if p.now().Sub(p.drawn) < progressEvery {
		return
	}
	p.drawText(fmt.Sprintf("%s accepted  %s rejected  %s", grouped(accepted), grouped(rejected), p.rate(accepted+rejected)))
}

// drawText draws the bar with a text behind it.
func (p *progress) drawText(text string) {
	if p.w == nil {
		return
	}
	p.drawn = p.now()
	if bar := p.bar(p.width - textWidth(text) - 3); bar != "" {
		text = bar + "  " + text
	}
	fmt.Fprintf(p.w, "\r\x1b[K%s", cutMiddle(text, p.width-1))
	p.shown = true
}

// bar is the share of the input that was read, at most width columns wide.
func (p *progress) bar(width int) string {
	const widest, percent = 30, 5 // " 100%"
	if p.total <= 0 || width < 10 {
		return ""
	}
	share := min(1, float64(p.read.Load())/float64(p.total))
	width = min(width, widest) - percent
	full := int(share * float64(width))
	return strings.Repeat("█", full) + strings.Repeat("░", width-full) + fmt.Sprintf("%4.0f%%", share*100)
}

// clear removes the bar, so that something else can be printed.
func (p *progress) clear() {
	if p.shown {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.shown = false
	}
}

// summary ends a stream: on standard output, unless that has the answers.
func (s *sender) summary(p *progress) {
	answered := s.accepted + s.duplicates + s.rejected
	if !s.streamed || answered == 0 {
		return
	}
	w := s.Out
	if s.flags.json {
		w = s.Err
	}
	text := fmt.Sprintf("%s accepted, %s rejected", grouped(s.accepted), grouped(s.rejected))
	if s.duplicates > 0 {
		text += fmt.Sprintf(", %s accepted before", grouped(s.duplicates))
	}
	took := p.now().Sub(p.start)
	fmt.Fprintf(w, "%s in %s (%s)\n", text, span(took), p.rate(answered))
}

// grouped writes thousands apart.
func grouped(n int64) string {
	text := strconv.FormatInt(n, 10)
	for i := len(text) - 3; i > 0 && text[i-1] != '-'; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
