package web

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

// functions are what the templates call. None of them makes markup: whatever they return
// is escaped like any other text.
func functions() map[string]any {
	return map[string]any{
		"ago":     func(t rest.Time) string { return ago(t, time.Now()) },
		"clock":   clock,
		"count":   count,
		"join":    strings.Join,
		"shortly": shortly,
		"size":    size,
		"tone":    tone,
		"word":    word,
		"config":  func(state string) string { return configWords()[state] },
		"percent": percent,
		"plural":  plural,
	}
}

// word is how a status, a state or an outcome is called.
func word(status string) string {
	switch status {
	case rest.StatusSuccess:
		return "delivered"
	case "":
		return "none"
	}
	return strings.ReplaceAll(status, "_", " ")
}

// tone is the class of a status: how it looks, beside its word.
func tone(status string) string {
	switch status {
	case rest.StatusSuccess, "delivered", "skipped", rest.WebhookActive, rest.PluginReady, rest.ReloadApplied, rest.ConfigCurrent, rest.StateOK:
		return "good"
	case rest.StatusFailed, "rejected", "misconfigured", "crashed", rest.PluginSuspended, rest.ConfigLastKnownGood, rest.StateDegraded, "error":
		return "bad"
	case rest.StatusHeld:
		return "held"
	case rest.StatusInFlight, rest.PluginStarting:
		return "flying"
	case rest.StatusPending, "retry", "rate_limited", rest.PluginBackoff, "warning":
		return "late"
	}
	return "plain"
}

// configWords say what Config.State means.
func configWords() map[string]string {
	return map[string]string{
		rest.ConfigCurrent:       "What runs is what the files say.",
		rest.ConfigRejected:      "The configuration files were refused. What ran before goes on.",
		rest.ConfigLastKnownGood: "The configuration files were refused at the start. The last configuration that was applied runs.",
	}
}

// clock is a moment in UTC; the page says that it is.
func clock(t rest.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04:05")
}

// ago is how long before now a moment was, or how long after.
func ago(t rest.Time, now time.Time) string {
	if t.IsZero() {
		return "never"
	}
	d := now.Sub(t.Time)
	if d < 0 {
		return "in " + long(-d)
	}
	if d < time.Second {
		return "just now"
	}
	return long(d) + " ago"
}

func long(d time.Duration) string {
	switch {
	case d < time.Minute:
		return strconv.Itoa(int(d/time.Second)) + " s"
	case d < time.Hour:
		return strconv.Itoa(int(d/time.Minute)) + " min"
	case d < 48*time.Hour:
		return strconv.Itoa(int(d/time.Hour)) + " h"
	}
	return strconv.Itoa(int(d/(24*time.Hour))) + " d"
}

// shortly is a duration in three digits or so.
func shortly(m rest.Millis) string {
	d := m.Duration()
	switch {
	case d <= 0:
		return "0 ms"
	case d < 10*time.Millisecond:
		return strconv.FormatFloat(float64(d)/1e6, 'f', 1, 64) + " ms"
	case d < time.Second:
		return strconv.Itoa(int(d/time.Millisecond)) + " ms"
	case d < 100*time.Second:
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + " s"
	}
	return long(d)
}

// count is a number with its thousands apart.
func count(n any) string {
	digits := fmt.Sprint(n)
	for at := len(digits) - 3; at > 0 && digits[at-1] != '-'; at -= 3 {
		digits = digits[:at] + "\u202f" + digits[at:]
	}
	return digits
}

func size(n int64) string {
	f, units := float64(n), []string{"B", "KiB", "MiB", "GiB", "TiB"}
	for len(units) > 1 && f >= 1024 {
		f, units = f/1024, units[1:]
	}
	digits := 1
	if f >= 100 || f == float64(int64(f)) {
		digits = 0
	}
	return strconv.FormatFloat(f, 'f', digits, 64) + "\u00a0" + units[0]
}

func percent(part, whole int64) int64 {
	if whole <= 0 {
		return 0
	}
	return min(100, part*100/whole)
}

func plural(n any, noun string) string {
	if fmt.Sprint(n) == "1" {
		return noun
	}
	if before, ok := strings.CutSuffix(noun, "y"); ok {
		return before + "ies"
	}
	return noun + "s"
}
