package main

import (
	"strings"
	"testing"
)

func steady() []soakLine {
	lines := make([]soakLine, 9)
	for i := range lines {
		lines[i] = soakLine{2000, 5000, 1e6, 80 << 20, 100, int64(i) * (100 << 20), 100 << 20, 100}
	}
	return lines
}

func TestASoakFailsByWhatGrewAndNothingElse(t *testing.T) {
	if err := grown(steady()); err != nil {
		t.Errorf("steady: %v", err)
	}
	if err := grown(steady()[:2]); err != nil {
		t.Errorf("too few lines to tell: %v", err)
	}
	for name, change := range map[string]func(*soakLine){
		"anonymous memory":   func(s *soakLine) { s.anonymous = 117 << 20 },
		"descriptors":        func(s *soakLine) { s.files = 158 },
		"ack p99":            func(s *soakLine) { s.ackP99 = 20_001 },
		"end to end p99":     func(s *soakLine) { s.e2eP99 = 3_000_001 },
		"pending":            func(s *soakLine) { s.pending = 2201 },
		"growth of the disk": func(s *soakLine) { s.grew = 190 << 20 },
	} {
		lines := steady()
		change(&lines[7])
		if err := grown(lines); err != nil {
			t.Errorf("%s, one line: %v", name, err)
		}
		change(&lines[8])
		err := grown(lines)
		if err == nil || !strings.HasPrefix(err.Error(), name+" grew from ") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
