package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// soakSays is what the soak of scripts/bench says at its end.
var soakSays = regexp.MustCompile(`(\d+) acknowledged = .* (\d+) lost;`)

// soak runs the soak of scripts/bench. Each minute is a case.
func (l *lab) soak(ctx context.Context, j job, tmp string, log *os.File) (t tally, err error) {
	long := j.part.soak * time.Duration(j.m)
	cmd := exec.Command(filepath.Join(l.work, "bench"), "run", "-binary", filepath.Join(l.work, "relay"), "-dir", tmp, "-soak", long.String())
	cmd.Dir = l.root
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &out, 10*time.Second
	err = l.runGroup(ctx, cmd, j.patience())
	if _, e := log.Write(out.Bytes()); e != nil {
		return t, errors.Join(err, e)
	}
	if m := soakSays.FindSubmatch(out.Bytes()); m != nil {
		t.acked, _ = strconv.ParseInt(string(m[1]), 10, 64) // digits
		t.lost, _ = strconv.ParseInt(string(m[2]), 10, 64)
	} else if err == nil {
		err = errors.New("the soak did not say what became of the events")
	}
	if err != nil {
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		return t, fmt.Errorf("%w: %s", err, lines[len(lines)-1])
	}
	t.cases, t.passed = int64(max(1, long/time.Minute)), 1
	return t, nil
}
