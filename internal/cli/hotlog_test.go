package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/config"
)

func TestLoggersThatWereMadeBeforeFollowTheSettings(t *testing.T) {
	var out bytes.Buffer
	a := &app{Streams: Streams{Err: &out, Env: environment()}}
	log := a.newLog(config.Log{Level: "info", Format: "journal"})
	plain := log.Logger()
	derived := plain.With("webhook", "expenses.backend").WithGroup("").WithGroup("group").With("n", 1)
	for _, c := range []struct {
		set  config.Log
		want string
	}{
		{config.Log{Level: "info", Format: "journal"}, "<6>msg=plain\n<6>msg=derived webhook=expenses.backend group.n=1 group.m=2\n"},
		{config.Log{Level: "debug", Format: "journal"}, "<7>msg=small\n<6>msg=plain\n<6>msg=derived webhook=expenses.backend group.n=1 group.m=2\n"},
		{config.Log{Level: "warn", Format: "journal"}, ""},
		{config.Log{Level: "info", Format: "json"}, `{"time":T,"level":"INFO","msg":"plain"}` + "\n" +
			`{"time":T,"level":"INFO","msg":"derived","webhook":"expenses.backend","group":{"n":1,"m":2}}` + "\n"},
		{config.Log{Level: "info", Format: "text"}, "time=T level=INFO msg=plain\ntime=T level=INFO msg=derived webhook=expenses.backend group.n=1 group.m=2\n"},
		{config.Log{Level: "info", Format: "auto"}, "time=T level=INFO msg=plain\ntime=T level=INFO msg=derived webhook=expenses.backend group.n=1 group.m=2\n"},
	} {
		out.Reset()
		log.Set(c.set)
		plain.Debug("small")
		plain.Info("plain")
		derived.Info("derived", "m", 2)
		if got := withoutTimes(out.String()); got != c.want {
			t.Errorf("%+v: %q, want %q", c.set, got, c.want)
		}
	}
}

// withoutTimes has a T for each time.
func withoutTimes(lines string) string {
	var b strings.Builder
	for line := range strings.Lines(lines) {
		for _, begin := range []string{`{"time":`, "time="} {
			if rest, ok := strings.CutPrefix(line, begin); ok {
				line = begin + "T" + rest[strings.IndexAny(rest, ", "):]
			}
		}
		b.WriteString(line)
	}
	return b.String()
}

// chunks is an output that fails the test when two writes overlap, and keeps
// each write.
type chunks struct {
	t      *testing.T
	busy   sync.Mutex
	writes []string
}

func (c *chunks) Write(b []byte) (int, error) {
	if !c.busy.TryLock() {
		c.t.Error("two writes at once")
		return len(b), nil
	}
	defer c.busy.Unlock()
	c.writes = append(c.writes, string(b))
	return len(b), nil
}

func TestNoLineIsLostOrMixedWhileTheFormatChanges(t *testing.T) {
	out := &chunks{t: t}
	a := &app{Streams: Streams{Err: out, Env: environment()}}
	log := a.newLog(config.Log{Level: "info", Format: "text"})
	const writers, lines = 8, 300
	done := make(chan struct{})
	var settings, wg sync.WaitGroup
	for n := range 2 {
		settings.Go(func() {
			for i := n; ; i++ {
				select {
				case <-done:
					return
				default:
					log.Set(config.Log{Level: []string{"debug", "info"}[i%2], Format: []string{"text", "json", "journal"}[i%3]})
				}
			}
		})
	}
	for w := range writers {
		wg.Go(func() {
			l := log.Logger().With("writer", w)
			for i := range lines {
				if i%50 == 0 {
					l = log.Logger().With("writer", w).WithGroup("g")
				}
				l.Warn("line", "n", i, "text", "some words, = and \"quotes\"")
			}
		})
	}
	wg.Wait()
	close(done)
	settings.Wait()
	seen := map[string]int{}
	formats := map[string]bool{}
	for _, line := range out.writes {
		format, key := parseLogLine(t, line)
		formats[format] = true
		seen[key]++
	}
	if len(out.writes) != writers*lines || len(seen) != writers*lines {
		t.Errorf("%d writes, %d different lines, want %d", len(out.writes), len(seen), writers*lines)
	}
	t.Logf("formats %v", formats)
}

// parseLogLine checks that a write is one whole line in one format, and returns
// who wrote it and its number.
func parseLogLine(t *testing.T, line string) (format, key string) {
	t.Helper()
	if strings.Count(line, "\n") != 1 || !strings.HasSuffix(line, "\n") {
		t.Fatalf("not one line: %q", line)
	}
	if strings.HasPrefix(line, "{") {
		var doc struct {
			Level, Msg, Text string
			Writer, N        int
			G                struct{ N int }
		}
		if err := json.Unmarshal([]byte(line), &doc); err != nil || doc.Msg != "line" || doc.Level != slog.LevelWarn.String() {
			t.Fatalf("%v: %q", err, line)
		}
		return "json", fmt.Sprint(doc.Writer, " ", max(doc.N, doc.G.N))
	}
	format, head := "text", "time="
	if strings.HasPrefix(line, "<4>") {
		format, head = "journal", "<4>msg=line"
	}
	var writer, n int
	_, rest, ok := strings.Cut(line, "msg=line writer=")
	if _, err := fmt.Sscanf(strings.Replace(rest, "g.n=", "n=", 1), "%d n=%d ", &writer, &n); err != nil || !ok || !strings.HasPrefix(line, head) {
		t.Fatalf("%v: %q", err, line)
	}
	return format, fmt.Sprint(writer, " ", n)
}
