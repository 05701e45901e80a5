package cli

import (
	"testing"
	"time"
)

func TestMomentsAreReadAsOperatorsTypeThem(t *testing.T) {
	now := time.Date(2025, 1, 15, 14, 32, 0, 0, time.Local)
	for _, c := range []struct {
		text string
		want time.Time
	}{
		{"2025-01-14T10:00:00Z", time.Date(2025, 1, 14, 10, 0, 0, 0, time.UTC)},
		{"2025-01-14T10:00:00.5+02:00", time.Date(2025, 1, 14, 8, 0, 0, 5e8, time.UTC)},
		{"2025-01-14", time.Date(2025, 1, 14, 0, 0, 0, 0, time.Local)},
		{"2025-01-14 10:30", time.Date(2025, 1, 14, 10, 30, 0, 0, time.Local)},
		{"2025-01-14T10:30:15", time.Date(2025, 1, 14, 10, 30, 15, 0, time.Local)},
		{"09:15", time.Date(2025, 1, 15, 9, 15, 0, 0, time.Local)},
		{"2h", now.Add(-2 * time.Hour)},
		{"7d", now.Add(-7 * 24 * time.Hour)},
		{"1d12h", now.Add(-36 * time.Hour)},
	} {
		got, err := when(c.text, now)
		if err != nil || !got.Equal(c.want) {
			t.Errorf("when(%q) = %v, %v, want %v", c.text, got, err, c.want)
		}
	}
	for _, text := range []string{"", "yesterday", "-2h", "d", "-1d", "99999d", "1dx", "2025-13-01", "25:00"} {
		if got, err := when(text, now); err == nil {
			t.Errorf("when(%q) = %v, want an error", text, got)
		}
	}
}

func TestDurationsAreShownToTwoUnits(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0:                                     "0.00 ms",
		1500 * time.Microsecond:               "1.50 ms",
		45 * time.Millisecond:                 "45.0 ms",
		2500 * time.Millisecond:               "2.5s",
		5 * time.Minute:                       "5m",
		4*time.Minute + 12*time.Second:        "4m12s",
		3*time.Hour + 5*time.Minute:           "3h5m",
		49 * time.Hour:                        "2d1h",
		30 * 24 * time.Hour:                   "30d",
		72*time.Hour + 59*time.Minute:         "3d",
		59*time.Second + 990*time.Millisecond: "60s",
	} {
		if got := span(d); got != want {
			t.Errorf("span(%v) = %q, want %q", d, got, want)
		}
	}
}

func TestNumbersAreShownForPeople(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1000: "-1,000", -999: "-999"} {
		if got := grouped(n); got != want {
			t.Errorf("grouped(%d) = %q, want %q", n, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 10 << 30: "10.0 GiB", 1 << 60: "1048576.0 TiB"} {
		if got := byteSize(n); got != want {
			t.Errorf("byteSize(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestShellWordsSurviveTheShell(t *testing.T) {
	for word, want := range map[string]string{"a.json": "a.json", "": "''", "my file": "'my file'", "it's": `'it'\''s'`, "$x": "'$x'"} {
		if got := shellWord(word); got != want {
			t.Errorf("shellWord(%q) = %s, want %s", word, got, want)
		}
	}
}

func FuzzMoment(f *testing.F) {
	for _, seed := range []string{"2h", "7d", "1d12h", "14:30", "2025-01-15", "2025-01-15T14:32:00Z", "65535d2562047h", "-1h"} {
		f.Add(seed)
	}
	now := time.Date(2025, 1, 15, 14, 32, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, text string) {
		got, err := when(text, now)
		if err != nil {
			return
		}
		// What is sent to the daemon must be what was understood.
		again, err := time.Parse(time.RFC3339Nano, got.UTC().Format(time.RFC3339Nano))
		if err != nil || !again.Equal(got) {
			t.Errorf("when(%q) = %v, sent as %v, %v", text, got, again, err)
		}
	})
}
