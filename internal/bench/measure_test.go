package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestPercentilesAreOfTheSortedValues(t *testing.T) {
	v := make([]int64, 100)
	for i := range v {
		v[i] = int64(100 - i)
	}
	if got, want := summarise(v), (summary{100, 51, 91, 100, 100}); got != want {
		t.Errorf("summary %+v, want %+v", got, want)
	}
	if got := summarise(nil); got != (summary{}) {
		t.Errorf("summary of nothing: %+v", got)
	}
}

func TestSharesAreRelativeToTheirMeanAndCountWhoGotNothing(t *testing.T) {
	for _, row := range []struct {
		shares              []int64
		streams             int
		least, median, most float64
	}{
		{[]int64{5, 5, 5}, 3, 1, 1, 1},
		{[]int64{30, 10, 20}, 3, .5, 1, 1.5},
		{[]int64{8}, 2, 0, 2, 2},
		{nil, 3, 0, 0, 0},
		{nil, 0, 0, 0, 0},
	} {
		least, median, most := spreadOf(row.shares, row.streams)
		if least != row.least || median != row.median || most != row.most {
			t.Errorf("spread of %v in %d: %v %v %v", row.shares, row.streams, least, median, most)
		}
	}
}

func TestASpreadSenderTakesItsHelpersInTurns(t *testing.T) {
	l := &loader{helper: "fair", spread: 3}
	if got := l.target(4); got != "fair-0001" {
		t.Errorf("target %q", got)
	}
	l.spread = 0
	if got := l.target(4); got != "fair" {
		t.Errorf("target %q", got)
	}
}

// texts is the words of an SVG, which has to be well-formed.
func texts(t *testing.T, svg []byte) (words []string, circles int) {
	t.Helper()
	for d := xml.NewDecoder(bytes.NewReader(svg)); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return words, circles
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, svg)
		}
		switch v := token.(type) {
		case xml.StartElement:
			if v.Name.Local == "circle" {
				circles++
			}
		case xml.CharData:
			words = append(words, strings.Fields(string(v))...)
		}
	}
}

func TestThePlotShowsEveryRecordedBacklog(t *testing.T) {
	dir := t.TempDir()
	var args []string
	for name, p := range map[string]*backlogPoint{
		"one":  {Pending: 1e6, Webhooks: 1, Rate: .93, Lowest: .8, Anonymous: 161 << 20},
		"ten":  {Pending: 1e7, Webhooks: 1000, Rate: .88, Anonymous: 190 << 20},
		"none": nil,
	} {
		b, err := json.Marshal(recorded{Backlog: p})
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name+".json")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, path)
	}
	out := filepath.Join(dir, "plot.svg")
	if err := runPlot(append([]string{"-o", out}, args...)); err != nil {
		t.Fatal(err)
	}
	svg, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	words, circles := texts(t, svg)
	if circles != 4+2 { // two points in two panels, and the legend
		t.Errorf("%d circles", circles)
	}
	all := strings.Join(words, " ")
	for _, want := range []string{"1 M", "10 M", "the goal with 10 M, 0.90", "the goal with 10 M, 160", "10000000 pending, 1000 webhooks: 190", "1000000 pending, 1 webhooks: 0.93"} {
		if !strings.Contains(all, want) {
			t.Errorf("no %q in %s", want, all)
		}
	}
	for _, want := range []string{"prefers-color-scheme: dark", `class="dot-many"`, `<line class="one"`} {
		if !bytes.Contains(svg, []byte(want)) {
			t.Errorf("no %q", want)
		}
	}
	if bytes.Contains(svg, []byte("NaN")) || bytes.Contains(svg, []byte("Inf")) {
		t.Error("a coordinate is no number")
	}
}

func TestAPlotOfNothingIsAnError(t *testing.T) {
	if err := runPlot([]string{"-o", filepath.Join(t.TempDir(), "x.svg")}); err == nil {
		t.Error("no error")
	}
}

func TestTheAxisEndsAtARoundNumberThatFits(t *testing.T) {
	for v, want := range map[float64]float64{0: 1, 0.9: 1, 1: 1, 1.1: 1.2, 161: 200, 905: 1000, 60: 60} {
		if got := ceiling(v); got < want*0.999 || got > want*1.001 {
			t.Errorf("ceiling(%v) = %v, want %v", v, got, want)
		}
	}
}

func TestAReportIsRecordedAsItIsPrinted(t *testing.T) {
	r := &report{backlog: &backlogPoint{Pending: 5, Webhooks: 2, Rate: .5, First: 2}}
	r.heading("group")
	r.add("what", "%.1f; %.1f", least("", .5, .75), .6, .2)
	path := filepath.Join(t.TempDir(), "r.json")
	if err := r.record(path); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got recorded
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if got.Backlog == nil || *got.Backlog != (backlogPoint{Pending: 5, Webhooks: 2, Rate: .5, First: 2}) {
		t.Errorf("backlog %+v", got.Backlog)
	}
	want := []recordedRow{{What: "**group**"}, {"what", "0.6; 0.2", []float64{.6, .2}, "first"}}
	if !reflect.DeepEqual(got.Rows, want) {
		t.Errorf("rows %+v", got.Rows)
	}
}

func TestWrongFlagsAreRefusedBeforeAnythingRuns(t *testing.T) {
	for _, args := range [][]string{{"-lanes", "0"}, {"-lanes", "10001"}, {"-backlog", "-1"}, {"-soak", "-1s"}, {"-only", "flod"}} {
		if err := runAll(append(args, "-dir", filepath.Join(t.TempDir(), "missing"))); err == nil || errors.Is(err, os.ErrNotExist) {
			t.Errorf("%v: %v", args, err)
		}
	}
}

func TestThePortOfTheRefusingWebhookRefuses(t *testing.T) {
	addr, release, err := refusingPort()
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	c, err := net.DialTimeout("tcp", addr, 30*time.Second)
	if err == nil {
		c.Close()
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial: %v", err)
	}
}

// post sends an event to a path of a receiver and returns the status; 0 is no answer.
func post(t *testing.T, addr, path string, seq int) int {
	t.Helper()
	hc := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := hc.Post("http://"+addr+path, "application/json", bytes.NewReader(appendEvent(nil, "bench", 1, seq, time.Now())))
	if err != nil {
		return 0
	}
	resp.Body.Close()
	return resp.StatusCode
}

func TestAReceiverThatGoesAwayComesBackAtItsAddressAndHasCounted(t *testing.T) {
	s := &receiver{streams: map[string]*stream{}, held: make(chan struct{})}
	down, err := newTakedown(s)
	if err != nil {
		t.Fatal(err)
	}
	s.down = down
	if got := post(t, down.addr, "/ok/x", 1); got != 200 {
		t.Fatalf("status %d", got)
	}
	if got := post(t, down.addr, "/reset/0/x", 1); got != 0 {
		t.Errorf("status %d from a connection that is reset", got)
	}
	open, err := net.Dial("tcp", down.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	if got := post(t, down.addr, "/ok/x", 2); got != 200 { // so that open is accepted
		t.Fatalf("status %d", got)
	}
	s.control(&rawMessage{Path: []byte("/_down?20ms")})
	if err := open.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := open.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection is open after the receiver went away: %v", err)
	}
	end := time.Now().Add(30 * time.Second)
	for post(t, down.addr, "/ok/x", 3) != 200 {
		if time.Now().After(end) {
			t.Fatal("the receiver does not come back")
		}
	}
	g := s.group("/ok/", true)
	if g.Unique != 3 || len(g.Shares) != 1 || g.E2E.N != 3 {
		t.Errorf("group %+v", g)
	}
	if w := s.stream("/ok/x").window(); w.N != 3 {
		t.Errorf("window %+v", w)
	}
	if w := s.stream("/ok/x").window(); w.N != 0 {
		t.Errorf("second window %+v", w)
	}
	s.down.mu.Lock()
	defer s.down.mu.Unlock()
	_ = s.down.l.Close()
}

func TestAHeldDeliveryIsAnsweredWhenTheReceiverOpens(t *testing.T) {
	s := &receiver{streams: map[string]*stream{}, held: make(chan struct{})}
	answered := make(chan int, 1)
	go func() {
		answered <- s.deliver(&rawMessage{Path: []byte("/hold/0/stuck"), Body: appendEvent(nil, "bench", 1, 1, time.Now())})
	}()
	for end := time.Now().Add(30 * time.Second); s.stream("/hold/0/stuck").stats(false).Requests == 0; {
		if time.Now().After(end) {
			t.Fatal("nothing arrives")
		}
	}
	select {
	case <-answered:
		t.Fatal("answered before it opens")
	default:
	}
	s.control(&rawMessage{Path: []byte("/_open")})
	s.control(&rawMessage{Path: []byte("/_open")}) // nothing more
	if got := <-answered; got != 200 {
		t.Errorf("status %d", got)
	}
}

func TestTheDiskOfADirectoryIsItsBlocks(t *testing.T) {
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(1 << 30); err != nil {
		t.Fatal(err)
	}
	if got, err := diskUsage(dir); err != nil || got >= 1<<20 {
		t.Errorf("%d bytes, %v", got, err)
	}
}
