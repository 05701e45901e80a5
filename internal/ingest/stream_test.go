package ingest

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/event"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
)

// streamClient writes lines and reads results on one connection.
type streamClient struct {
	t    testing.TB
	conn net.Conn
	body io.WriteCloser // chunked
	resp *http.Response
	in   *bufio.Reader
}

func (s *served) stream(t testing.TB) *streamClient {
	t.Helper()
	c := &streamClient{t: t, conn: s.dial(t)}
	io.WriteString(c.conn, "POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n")
	c.body = httputil.NewChunkedWriter(c.conn)
	resp, err := http.ReadResponse(bufio.NewReader(c.conn), nil)
	if err != nil {
		t.Fatalf("the answer does not begin before the lines come: %v", err)
	}
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != typeNDJSON {
		t.Fatalf("%d %v", resp.StatusCode, resp.Header)
	}
	c.resp, c.in = resp, bufio.NewReader(resp.Body)
	return c
}

func (c *streamClient) send(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c.body, text); err != nil {
		c.t.Fatalf("send: %v", err)
	}
}

// finish ends the body properly.
func (c *streamClient) finish() {
	c.body.Close()
	io.WriteString(c.conn, "\r\n")
}

func (c *streamClient) result() answer {
	c.t.Helper()
	line, err := c.in.ReadString('\n')
	if err != nil {
		c.t.Fatalf("no result: %v", err)
	}
	return c.decode(line)
}

func (c *streamClient) decode(line string) answer {
	c.t.Helper()
	var a answer
	if err := json.Unmarshal([]byte(line), &a); err != nil {
		c.t.Fatalf("result %q: %v", line, err)
	}
	if a.Error != nil {
		decodeError(c.t, `{"error":`+string(*a.Error)+`}`)
	} else if a.ID == "" || a.Deliveries == nil || a.Skipped == nil {
		c.t.Fatalf("result %q lacks a member", line)
	}
	return a
}

// rest reads to the end of the answer.
func (c *streamClient) rest() []answer {
	c.t.Helper()
	all, err := io.ReadAll(c.in)
	if err != nil {
		c.t.Fatalf("the answer breaks off: %v", err)
	}
	var out []answer
	for line := range strings.Lines(string(all)) {
		out = append(out, c.decode(line))
	}
	return out
}

func outcome(as []answer) string {
	var out []string
	for _, a := range as {
		out = append(out, fmt.Sprintf("%d:%d", a.Line, a.Status))
	}
	return strings.Join(out, " ")
}

// oneWebhook has helper "h" with one webhook.
func oneWebhook() *Catalog {
	return &Catalog{Helpers: map[string]*Helper{"h": {
		Helper:   event.Helper{ID: "h", Name: "H"},
		Webhooks: []Webhook{{Name: "h.w", Lane: 1, Enabled: true}},
	}}}
}

func entry(n int) string {
	return fmt.Sprintf(`{"event":"entry.created","helper":"h","entry":{"id":"e%d"}}`+"\n", n)
}

func TestBadLineCostsOnlyItself(t *testing.T) {
	s := serve(t, Options{MaxEventBytes: 100 << 10})
	long := `{"event":"entry.created","helper":"silent","entry":{"id":"e","data":{"a":"` + strings.Repeat("x", 90<<10) + `"}}}`
	lines := []struct {
		text   string
		status int // 0: no result
	}{
		{created("a"), 202},
		{"nonsense", 400},
		{"", 0},
		{" \t\r", 0},
		{created("b") + "\r", 202},
		{`{"event":"entry.created","helper":"nobody","entry":{"id":"e"}}`, 422},
		{strings.Repeat("x", 300<<10), 413},
		{long, 202},
		{strings.Repeat(" ", 100<<10+1), 413},
		{created("c") + created("d"), 400},
		{long, 202},
		{`{"event":"entry.created","helper":"expenses","entry":{"id":"e","data":{"amount":"x"}}}`, 422},
		{created("last, without a line feed"), 202},
	}
	var body, want []string
	for i, l := range lines {
		body = append(body, l.text)
		if l.status != 0 {
			want = append(want, fmt.Sprintf("%d:%d", i+1, l.status))
		}
	}
	text := strings.Join(body, "\n")
	for _, piece := range []int{len(text), 70 << 10, 1000} {
		t.Run(fmt.Sprintf("pieces of %d", piece), func(t *testing.T) {
			c := s.stream(t)
			for part := range slices.Chunk([]byte(text), piece) {
				c.send(string(part))
			}
			c.finish()
			if got := outcome(c.rest()); got != strings.Join(want, " ") {
				t.Errorf("got  %s\nwant %s", got, strings.Join(want, " "))
			}
		})
	}
	if got := s.Metrics().Rejected; got[CodeTooLarge] != 6 {
		t.Errorf("counted %v", got)
	}
}

func TestConnectionGoesOnAfterAStream(t *testing.T) {
	s := serve(t, Options{})
	c := s.dial(t)
	r := bufio.NewReader(c)
	for range 2 {
		io.WriteString(c, postAs(typeNDJSON, created("a")+"\n"+created("b")))
		resp, body := readResponse(t, r)
		if resp.StatusCode != 200 || strings.Count(body, `"status":202`) != 2 || resp.Close {
			t.Fatalf("%d %s", resp.StatusCode, body)
		}
		io.WriteString(c, post(created("c")))
		if resp, body := readResponse(t, r); resp.StatusCode != 202 {
			t.Fatalf("%d %s", resp.StatusCode, body)
		}
	}
	io.WriteString(c, postAs(typeNDJSON, ""))
	if resp, body := readResponse(t, r); resp.StatusCode != 200 || body != "" {
		t.Fatalf("no lines: %d %q", resp.StatusCode, body)
	}
}

func TestStreamWithExpectContinue(t *testing.T) {
	s := serve(t, Options{})
	c := s.dial(t)
	body := created("e") + "\n"
	fmt.Fprintf(c, "POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n", len(body))
	r := bufio.NewReader(c)
	if line, err := r.ReadString('\n'); err != nil || line != "HTTP/1.1 100 Continue\r\n" {
		t.Fatalf("%q %v", line, err)
	}
	r.ReadString('\n')
	io.WriteString(c, body)
	if resp, b := readResponse(t, r); resp.StatusCode != 200 || !strings.Contains(b, `"status":202`) {
		t.Errorf("%d %s", resp.StatusCode, b)
	}
}

// Nothing waits for a group to fill: a client that sends one line and waits is
// answered.
func TestLockStep(t *testing.T) {
	s := serve(t, Options{})
	c := s.stream(t)
	for i := range 50 {
		c.send(created("e") + "\n")
		if a := c.result(); a.Line != int64(i+1) || a.Status != 202 {
			t.Fatalf("%+v", a)
		}
	}
	c.finish()
	if more := c.rest(); len(more) != 0 {
		t.Errorf("more results: %v", more)
	}
}

func TestResultOnlyAfterItsOwnCommit(t *testing.T) {
	g := newGate(t)
	s := serve(t, Options{Store: &fakeStore{before: g.pass}})
	c := s.stream(t)
	c.send(created("a") + "\n")
	if n := g.entered(t); n != 1 {
		t.Fatalf("first group has %d", n)
	}
	results := make(chan []answer, 1)
	go func() { results <- append([]answer{c.result()}, c.rest()...) }()
	// What comes during the commit waits and goes as groups of at most 256.
	go func() {
		io.WriteString(c.body, strings.Repeat(created("b")+"\n", 600))
		c.finish()
	}()
	select {
	case <-results:
		t.Fatal("a result before the commit")
	case <-time.After(30 * time.Millisecond):
	}
	g.release(t)
	for total := 0; total < 600; {
		n := g.entered(t)
		total += n
		if n > batchEvents || total > 600 {
			t.Fatalf("group of %d, %d in all", n, total)
		}
		if got := s.Metrics().Accepted; got != int64(1+total-n) {
			t.Errorf("%d counted before the commit of the next %d", got, n)
		}
		g.release(t)
	}
	got := <-results
	for i, a := range got {
		if a.Line != int64(i+1) || a.Status != 202 {
			t.Fatalf("result %d is %+v", i, a)
		}
	}
	if len(got) != 601 || s.store.most != 1 {
		t.Errorf("%d results; %d groups of one stream at once", len(got), s.store.most)
	}
}

func TestClientThatWritesEverythingBeforeItReads(t *testing.T) {
	t.Parallel()
	const lines = 50_000
	catalog := oneWebhook()
	s := serve(t, Options{Catalog: func() *Catalog { return catalog }})
	var b strings.Builder
	for i := range lines {
		b.WriteString(entry(i))
	}
	c := s.dial(t)
	c.SetDeadline(time.Now().Add(5 * patience)) // it is a lot
	if _, err := io.WriteString(c, postAs(typeNDJSON, b.String())); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	in, n := bufio.NewReader(resp.Body), 0
	for ; ; n++ {
		line, err := in.ReadString('\n')
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(line, fmt.Sprintf(`{"line":%d,"status":202,"id":"evt_`, n+1)) {
			t.Fatalf("result %d is %s", n+1, line)
		}
	}
	evs := s.store.all()
	if n != lines || len(evs) != lines {
		t.Fatalf("%d results, %d stored, want %d", n, len(evs), lines)
	}
	for i, ev := range evs {
		if ev.EntryID != fmt.Sprintf("e%d", i) {
			t.Fatalf("event %d is %s: order lost", i, ev.EntryID)
		}
	}
	t.Logf("%d groups", s.store.calls)
}

func TestStreamOutlivesAFullDisk(t *testing.T) {
	var full atomic.Bool
	space := &queue.SpaceError{What: "disk space"}
	s := serve(t, Options{Gate: func() error {
		if full.Load() {
			return space
		}
		return nil
	}})
	c := s.stream(t)
	var statuses []int
	for i := range 3 {
		full.Store(i == 1)
		c.send(created("a") + "\nbad\n")
		statuses = append(statuses, c.result().Status, c.result().Status)
	}
	c.finish()
	c.rest()
	if want := []int{202, 400, 507, 400, 202, 400}; !slices.Equal(statuses, want) {
		t.Errorf("%v, want %v", statuses, want)
	}
}

func TestOneRefusedEventOfAGroup(t *testing.T) {
	s := serve(t, Options{Store: &fakeStore{each: func(ev *queue.Event) error {
		if ev.EntryID == "b" {
			return &queue.QuotaError{Live: 2, Max: 1}
		}
		return nil
	}}})
	c := s.stream(t)
	c.send(created("a") + "\n" + created("b") + "\n" + created("c") + "\n")
	c.finish()
	if got := outcome(c.rest()); got != "1:202 2:429 3:202" {
		t.Error(got)
	}
}

func TestLineWithoutMemoryIsRefusedAlone(t *testing.T) {
	t.Parallel()
	s := serve(t, Options{StallTimeout: 3 * time.Second})
	for range cap(s.big) {
		s.big <- struct{}{}
	}
	c := s.stream(t)
	c.send(created("a") + "\n" + `"` + strings.Repeat("x", 100<<10))
	got := []answer{c.result(), c.result()}
	c.send("x\"\n" + created("b") + "\n")
	c.finish()
	if got := outcome(append(got, c.rest()...)); got != "1:202 2:503 3:202" {
		t.Error(got)
	}
	large := post(`"` + strings.Repeat("x", 100<<10) + `"`)
	resp, body := s.raw(t, large)
	if e := decodeError(t, body).Error; resp.StatusCode != 503 || e.Code != CodeBusy || resp.Header.Get("Retry-After") != "1" {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	for range cap(s.big) {
		<-s.big
	}
	if resp, body := s.raw(t, large); resp.StatusCode != 422 {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}

func TestStoppedStoreAnswersEveryLine(t *testing.T) {
	s := serve(t, Options{Store: &fakeStore{before: func([]*queue.Event) error {
		return errors.Join(errors.New("accept"), queue.ErrStopped)
	}}})
	c := s.stream(t)
	c.send(strings.Repeat(created("a")+"\n", 3))
	c.finish()
	if got := outcome(c.rest()); got != "1:503 2:503 3:503" {
		t.Error(got)
	}
}
