package process

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func FuzzHandshake(f *testing.F) {
	const dir = "/run/peanuts-relay/sinks/plugin-dir1"
	for _, line := range []string{
		"1|1|unix|" + dir + "/plugin2|grpc|", "1|1|unix|" + dir + "/plugin2|grpc", "1|1|unix|" + dir + "/plugin2|grpc||",
		"1|1|unix|" + dir + "/../x|grpc", "1|1|unix|" + dir + "/a/b|grpc", "1|1|unix|" + dir + "/|grpc", "1|1|unix|" + dir + "|grpc", "1|1|unix|/tmp/x|grpc",
		"1|1|unix|relative|grpc", "1|1|tcp|127.0.0.1:1|grpc", "1|1|unix|" + dir + "/p|netrpc", "2|1|unix|" + dir + "/p|grpc", "1|2|unix|" + dir + "/p|grpc",
		"1|1|unix|" + dir + "/p|grpc|QUJD", "", "|", "||||", "\x00", "1|1|unix|" + dir + "/p\n|grpc",
	} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		socket, err := parseHandshake(line, dir)
		if err != nil {
			if socket != "" || !utf8.ValidString(err.Error()) || len(err.Error()) > 2000 {
				t.Errorf("refused with %q, %v", socket, err)
			}
			return
		}
		if filepath.Dir(socket) != dir || filepath.Clean(socket) != socket || socket == dir {
			t.Errorf("%q leads to %q", line, socket)
		}
	})
}

func FuzzRecord(f *testing.F) {
	for _, line := range []string{
		`{"@message":5}`, `{"@level":5,"@message":null,"@timestamp":[]}`, `{"time":"2026-01-01T00:00:00Z","level":"WARN","msg":"m","a":1.50,"b":{"c":["s3cret"]}}`,
		`{"msg":"s3cret","level":"ERROR+400"}`, `{`, `{}`, `{"a"`, `{"a":1}{"b":2}`, `{"a":1} x`, `[1]`, `panic: x`, `{"sink":"other","pid":1}`, `{"s3cret":{"s3cret":"s3cret"}}`,
		`{"n":1e999999}`, `{"a":"\u001b[2J\u202e"}`, strings.Repeat(`{"a":`, 10_001), `{"msg":"a","msg":"b"}`, "\xff{}", `{"m":"` + "\xff" + `"}`, `{"@level":"trace"}`, "[WARN] careful",
	} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		mask := func(s string) string { return strings.ReplaceAll(s, "s3cret", "****") }
		r, ok := parseRecord(line, mask)
		if !ok {
			r = plainRecord(mask(string(line)))
		}
		if r.level < slog.LevelDebug-4 || r.level > slog.LevelError+4 || len(r.attrs) > maxAttrs {
			t.Errorf("%q: level %v, %d attributes", line, r.level, len(r.attrs))
		}
		for _, a := range r.attrs {
			if a.Key == "sink" || a.Key == "pid" || len(a.Key) > maxKey {
				t.Errorf("%q: attribute %q", line, a.Key)
			}
		}
		for _, text := range append([]string{r.message}, strings.Split(r.String(), " ")...) {
			if !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) {
				t.Errorf("%q: %q", line, text)
			}
		}
		var out bytes.Buffer
		r.log(slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug - 4})))
		if !json.Valid(out.Bytes()) || bytes.Count(out.Bytes(), []byte("\n")) != 1 {
			t.Errorf("%q: logged as %q", line, out.Bytes())
		}
		if strings.Contains(out.String(), "s3cret") {
			t.Errorf("%q: logged as %q", line, out.Bytes())
		}
	})
}

func TestRecordsAreReadAsTheyWereMeant(t *testing.T) {
	for _, row := range []struct{ line, want string }{
		{`{"time":"x","level":"WARN","msg":"low","left":3,"ok":true,"what":null}`, "WARN low left=3 ok=true what=<nil>"},
		{`{"@level":"debug","@message":"hclog","@module":"m","@timestamp":"x"}`, "DEBUG hclog @module=m"},
		{`{"level":"trace","msg":"fine"}`, "DEBUG-4 fine"},
		{`{"level":"ERROR+1000","msg":"m"}`, "ERROR+4 m"},
		{`{"level":"nonsense","msg":"m"}`, "INFO m"},
		{`{"@message":5}`, "INFO 5"},
		{`{"a":{"b":[1,"x"]}}`, `INFO (no message) a={"b":[1,"x"]}`},
		{`{"sink":"me","pid":1,"msg":"m"}`, "INFO m plugin.sink=me plugin.pid=1"},
		{`{"msg":"two\nlines"}`, "INFO two lines"},
		{"[ERROR] oh no", "ERROR oh no"},
		{"plain", "INFO plain"},
		{`{"msg":"not closed"`, `INFO {"msg":"not closed"`},
	} {
		mask := func(s string) string { return s }
		r, ok := parseRecord([]byte(row.line), mask)
		if !ok {
			r = plainRecord(row.line)
		}
		if got := fmt.Sprint(r.level, " ", r); got != row.want {
			t.Errorf("%s\nis  %s\nwant %s", row.line, got, row.want)
		}
	}
}

// feed writes text in pieces.
func feed(t *rapid.T, l *lines, text []byte) {
	for len(text) > 0 {
		n := rapid.IntRange(1, len(text)).Draw(t, "n")
		l.write(text[:n])
		text = text[n:]
	}
	l.flush()
}

// TestLinesAreTheSameHoweverTheyCome feeds text in pieces and compares with a split.
func TestLinesAreTheSameHoweverTheyCome(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const most = 8
		text := rapid.SliceOfN(rapid.SampledFrom([]byte("ab\n")), 0, 200).Draw(t, "text")
		var got []string
		l := lines{max: most, line: func(text []byte, cut bool) bool {
			got = append(got, fmt.Sprintf("%s %v", text[:min(len(text), most)], cut))
			return true
		}}
		feed(t, &l, text)
		var want []string
		for line := range strings.Lines(string(text)) {
			line, ended := strings.CutSuffix(line, "\n")
			if line == "" && !ended {
				continue
			}
			want = append(want, fmt.Sprintf("%s %v", line[:min(len(line), most)], len(line) > most))
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("%q\ngave %q\nwant %q", text, got, want)
		}
	})
}

// TestEveryLineIsLoggedOrCounted refuses lines at will: none is given twice or lost.
func TestEveryLineIsLoggedOrCounted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.SliceOfN(rapid.SampledFrom([]byte("ab\n")), 0, 200).Draw(t, "text")
		seen := 0
		l := lines{max: 8}
		l.line = func([]byte, bool) bool {
			seen++
			return rapid.Bool().Draw(t, "wanted")
		}
		l.skip = func(text []byte) int {
			if len(text) == 0 || text[len(text)-1] != '\n' {
				t.Fatalf("asked to skip %q", text)
			}
			first := bytes.IndexByte(text, '\n') + 1
			n := rapid.SampledFrom([]int{0, first, len(text)}).Draw(t, "skipped")
			seen += bytes.Count(text[:n], []byte("\n"))
			return n
		}
		feed(t, &l, text)
		want := bytes.Count(text, []byte("\n"))
		if len(text) > 0 && text[len(text)-1] != '\n' {
			want++
		}
		if seen != want {
			t.Fatalf("%q has %d lines, %d were seen", text, want, seen)
		}
	})
}

func TestALongLineIsKeptOnlyInPart(t *testing.T) {
	kept := 0
	l := lines{max: 100, line: func(text []byte, cut bool) bool {
		kept = len(text)
		return cut
	}}
	for range 1000 {
		l.write(bytes.Repeat([]byte("x"), 1000))
		if cap(l.partial) > 4*(100+overlap) {
			t.Fatalf("%d bytes are held", cap(l.partial))
		}
	}
	l.write([]byte("\n"))
	if kept != 100+overlap {
		t.Errorf("%d bytes were kept", kept)
	}
}

func TestTheBudgetIsTenSecondsWorthAndTheRate(t *testing.T) {
	now := time.Unix(0, 0)
	o := &output{log: slog.New(slog.DiscardHandler), lines: newBudget(5, now), bytes: newBudget(1000, now)}
	count := func(size int) (n int) {
		for o.take(size, now) {
			n++
		}
		return n
	}
	if n := count(1); n != 50 {
		t.Errorf("%d lines at once", n)
	}
	now = now.Add(2 * time.Second)
	if n := count(1); n != 10 {
		t.Errorf("%d lines after 2 s", n)
	}
	now = now.Add(time.Hour)
	if n := count(1000); n != 10 {
		t.Errorf("%d long lines at once", n)
	}
	if now = now.Add(-time.Minute); o.take(1000, now) { // a clock that was set back
		t.Error("a clock that is set back makes room")
	}
}

func TestAReaderIsMadeToWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th, begun := throttle{rate: 1000, last: time.Now()}, time.Now()
		for range 100 {
			th.wait(100, nil)
		}
		if took := time.Since(begun); took < 9*time.Second || took > 11*time.Second {
			t.Errorf("10,000 bytes at 1,000 a second took %s", took)
		}
		stop := make(chan struct{})
		close(stop)
		begun = time.Now()
		th.wait(1_000_000, stop)
		if took := time.Since(begun); took != 0 {
			t.Errorf("after the end it waited %s", took)
		}
	})
}

func TestAStackIsFoundInWhatIsSkipped(t *testing.T) {
	s := stack{starts: stackStarts()}
	for _, row := range []struct {
		text string
		want int
	}{
		{"a\nb\n", 4}, {"panic: x\n", 0}, {"a\npanic: x\nb\n", 2}, {"a panic: x\nfatal error: y\n", 11},
		{"a panic: x\n", 11}, {"x\nTraceback (most recent call last):\nfatal error: \n", 2}, {"", 0},
	} {
		if got := s.find([]byte(row.text)); got != row.want {
			t.Errorf("%q: %d, want %d", row.text, got, row.want)
		}
	}
}

func TestAStackIsBoundedMaskedAndEnds(t *testing.T) {
	var log bytes.Buffer
	mask := func(s string) string { return strings.ReplaceAll(s, "s3cret\nof two lines", "****") }
	o := newOutput(slog.New(slog.NewJSONHandler(&log, nil)), mask, Limits{}.withDefaults())
	s := o.stream(true, 1000)
	write := func(text string) { _, _ = s.Write([]byte(text)) }
	write("before\npanic: s3cret\nof two lines\n\tframe\n{\"msg\":\"a record\"}\n")
	if !s.collecting() {
		t.Fatal("no stack is collected")
	}
	s.idle()
	if s.collecting() || o.crash != "panic: ****\n\tframe" {
		t.Errorf("the stack is %q", o.crash)
	}
	for _, want := range []string{`"msg":"before"`, `"msg":"a record"`, `"stack":"panic: ****\n\tframe"`} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log has no %s: %s", want, log.String())
		}
	}
	write("fatal error: all\n" + strings.Repeat("x\n", 100_000))
	s.close()
	if len(o.crash) > maxStack+10 || !strings.HasSuffix(o.crash, "[cut]") || o.dropped.Load() == 0 {
		t.Errorf("a long stack has %d bytes, %d lines were dropped", len(o.crash), o.dropped.Load())
	}
	write("after\n")
	if strings.Contains(log.String(), "after") {
		t.Error("a closed stream goes on")
	}
}

func TestTheKernelsLogIsRead(t *testing.T) {
	const line = "6,1234,567890123,-;Memory cgroup out of memory: Killed process 42 (peanuts-sink-zo) total-vm:1kB\n"
	if at, ok := killRecord([]byte(line), 42); !ok || at != 567890123*time.Microsecond {
		t.Errorf("read %v, %v", at, ok)
	}
	for _, other := range []string{"", ";", "6,1;Killed process 42 (", "6,1,x,-;Killed process 42 (x)", strings.Replace(line, "42", "421", 1), strings.Replace(line, "42", "4", 1)} {
		if _, ok := killRecord([]byte(other), 42); ok {
			t.Errorf("%q was taken for it", other)
		}
	}
}

func TestAnEndIsSaidInWords(t *testing.T) {
	for _, row := range []struct {
		exit Exit
		want string
	}{
		{Exit{}, "exited with status 0"},
		{Exit{Status: 2}, "exited with status 2"},
		{Exit{Status: -1, Signal: 11}, "killed by signal 11 (SIGSEGV)"},
		{Exit{Status: -1, Signal: 9}, "killed by signal 9 (SIGKILL)"},
		{Exit{Status: -1, Signal: 9, Memory: MemoryProbable}, "killed by signal 9 (SIGKILL), probably by the kernel for lack of memory"},
		{Exit{Status: -1, Signal: 9, Memory: MemoryCertain}, "killed by signal 9 (SIGKILL) by the kernel for lack of memory"},
		{Exit{Status: -1, Signal: 9, Killed: true}, "killed by the relay (signal 9, SIGKILL)"},
		{Exit{Status: -1, Signal: 63}, "killed by signal 63 (unnamed)"},
	} {
		if got := row.exit.String(); got != row.want {
			t.Errorf("%+v: %s, want %s", row.exit, got, row.want)
		}
	}
}
