package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// clockLayout is how tables show a moment, in local time.
const clockLayout = "2006-01-02 15:04:05"

// clock is t in local time, "-" when there is none.
func clock(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format(clockLayout)
}

// shortClock is what [clock] made with less room: the time of today, else day
// and minute.
func (a *app) shortClock(text string) string {
	if today, ok := strings.CutPrefix(text, a.Now().Local().Format(time.DateOnly)+" "); ok {
		return today
	}
	if len(text) != len(clockLayout) {
		return text
	}
	return text[len("2006-") : len(text)-len(":05")]
}

// shortEvent leaves out what the three common types have in common.
func shortEvent(text string) string { return strings.TrimPrefix(text, "entry.") }

// relative says how far t is from now: "in 4m12s", "3h5m ago".
func relative(t, now time.Time) string {
	switch d := t.Sub(now); {
	case t.IsZero():
		return "-"
	case d > 0:
		return "in " + span(d)
	case d > -time.Second:
		return "now"
	default:
		return span(-d) + " ago"
	}
}

// span is a duration to two units, days included.
func span(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < time.Second:
		return millis(d)
	case d < time.Minute:
		return strconv.FormatFloat(d.Round(100*time.Millisecond).Seconds(), 'f', -1, 64) + "s"
	case d < time.Hour:
		return two(d, time.Minute, "m", time.Second, "s")
	case d < day:
		return two(d, time.Hour, "h", time.Minute, "m")
	default:
		return two(d, day, "d", time.Hour, "h")
	}
}

func two(d, big time.Duration, bigName string, small time.Duration, smallName string) string {
	text := strconv.FormatInt(int64(d/big), 10) + bigName
	if rest := int64(d % big / small); rest > 0 {
		text += strconv.FormatInt(rest, 10) + smallName
	}
	return text
}

// millis is a short duration, such as that of a phase, to three digits.
func millis(d time.Duration) string {
	ms := float64(d) / float64(time.Millisecond)
	switch {
	case d >= 10*time.Second:
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + " s"
	case ms >= 100:
		return strconv.FormatFloat(ms, 'f', 0, 64) + " ms"
	case ms >= 10:
		return strconv.FormatFloat(ms, 'f', 1, 64) + " ms"
	}
	return strconv.FormatFloat(ms, 'f', 2, 64) + " ms"
}

// byteSize is n in the units of the configuration file.
func byteSize(n int64) string {
	const step = 1024
	if n < step {
		return strconv.FormatInt(n, 10) + " B"
	}
	value, unit := float64(n), 0
	for value >= step && unit < 4 {
		value /= step
		unit++
	}
	return strconv.FormatFloat(value, 'f', 1, 64) + " " + []string{"B", "KiB", "MiB", "GiB", "TiB"}[unit] // #nosec G602 -- the loop ends at the last unit
}

// plural counts things.
func plural[T ~int | ~int64 | ~uint64](n T, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return grouped(int64(n)) + " " + many
}

// dash stands for a text that is not there.
func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// when reads a moment as an operator types it: RFC 3339, a local date with or
// without a time of day, a time of today, or how long ago ("2h", "7d").
func when(text string, now time.Time) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	now = now.Local()
	for _, layout := range []string{"2006-01-02 15:04:05", "2006-01-02T15:04:05", "2006-01-02 15:04", "2006-01-02T15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return t, nil
		}
	}
	for _, layout := range []string{"15:04", time.TimeOnly} {
		if t, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return time.Date(now.Year(), now.Month(), now.Day(), t.Hour(), t.Minute(), t.Second(), 0, now.Location()), nil
		}
	}
	ago, err := duration(text)
	if err != nil || ago < 0 {
		return time.Time{}, fmt.Errorf("%q is no moment: want a time (2025-01-15T14:32:00Z, 2025-01-15, 14:32) or how long ago (90m, 2h, 7d)", text)
	}
	return now.Add(-ago), nil
}

// duration is time.ParseDuration with days before it: "7d", "1d12h".
func duration(text string) (time.Duration, error) {
	days, rest, found := strings.Cut(text, "d")
	if !found {
		return time.ParseDuration(text)
	}
	n, err := strconv.ParseUint(days, 10, 16)
	if err != nil {
		return 0, fmt.Errorf("%q is no duration", text)
	}
	var more time.Duration
	if rest != "" {
		if more, err = time.ParseDuration(rest); err != nil {
			return 0, err
		}
	}
	return time.Duration(n)*24*time.Hour + more, nil
}

// writeJSON prints a document, indented for people; programs do not mind.
func writeJSON(w io.Writer, document any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(document)
}
