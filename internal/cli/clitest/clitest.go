// Package clitest adds to testscript what sessions on a command line need:
// exit statuses, waiting for something that a background command does, and free
// ports.
//
// Guarantee: every wait ends within [Patience], and says what it waited for.
package clitest

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// Patience is how long a session waits for anything.
const Patience = time.Minute

const pollEvery = 20 * time.Millisecond

// Params are the parameters of a run of the sessions in dir, which call
// commands with exec only. Further commands are added to Cmds.
//
//	exits CODE PROGRAM [ARG...]          runs it and checks its exit status
//	eventually REGEXP PROGRAM [ARG...]   runs it again and again until its standard output matches
//	waitfor FILE REGEXP [NAME]           until a line matches; NAME is set to the first group
//	waitfor FILE                         until it exists
//	waitfor unix:PATH                    until something listens on the socket
//	waitfor URL                          until it answers 200
//	fill FILE...                         replaces @NAME@ by the variable of that name
//	freeport NAME                        sets NAME to 127.0.0.1:PORT
//	post URL FILE [NAME:VALUE...]        posts the file with these headers; the answer's body is in the file post.out
//	[!] status CODE                      the last post was answered so
func Params(dir string) testscript.Params {
	return testscript.Params{
		Dir:                 dir,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("TZ", "UTC")
			env.Setenv("XDG_RUNTIME_DIR", env.WorkDir)
			env.Setenv("STATE_DIRECTORY", env.WorkDir)
			// A process built with the race detector waits a second at its end
			// unless told otherwise, and a session runs dozens.
			env.Setenv("GORACE", "atexit_sleep_ms=0")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":      exits,
			"eventually": eventually,
			"waitfor":    waitfor,
			"fill":       fill,
			"freeport":   freeport,
			"post":       post,
			"status":     status,
		},
	}
}

func usage(ts *testscript.TestScript, wrong bool, text string) {
	if wrong {
		ts.Fatalf("usage: %s", text)
	}
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg || len(args) < 2, "exits CODE PROGRAM [ARG...]")
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%s: %v", args[1], err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("%s exited with %d, want %d", strings.Join(args[1:], " "), got, want)
	}
}

func eventually(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg || len(args) < 2, "eventually REGEXP PROGRAM [ARG...]")
	pattern, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	poll(ts, strings.Join(args[1:], " ")+" to print "+args[0], func() bool {
		return ts.Exec(args[1], args[2:]...) == nil && pattern.MatchString(ts.ReadFile("stdout"))
	})
}

func waitfor(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg || len(args) < 1 || len(args) > 3, "waitfor FILE [REGEXP [NAME]] | waitfor unix:PATH | waitfor URL")
	path, isSocket := strings.CutPrefix(args[0], "unix:")
	switch {
	case isSocket:
		poll(ts, "a listener on "+path, func() bool { return dials(ts.MkAbs(path)) })
	case strings.HasPrefix(args[0], "http://"):
		poll(ts, "200 from "+args[0], func() bool { return answersOK(args[0]) })
	case len(args) == 1:
		poll(ts, "file "+args[0], func() bool {
			_, err := os.Stat(ts.MkAbs(args[0]))
			return err == nil
		})
	default:
		waitforLine(ts, args)
	}
}

func waitforLine(ts *testscript.TestScript, args []string) {
	pattern, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	poll(ts, args[1]+" in "+args[0], func() bool {
		content, err := os.ReadFile(ts.MkAbs(args[0]))
		if err != nil {
			return false
		}
		// A line that is being written must not match in part.
		whole := content[:bytes.LastIndexByte(content, '\n')+1]
		match := pattern.FindSubmatch(whole)
		if match != nil && len(args) == 3 {
			ts.Setenv(args[2], string(match[len(match)-1]))
		}
		return match != nil
	})
}

func dials(path string) bool {
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		_ = conn.Close()
	}
	return err == nil
}

func answersOK(url string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// poll waits until done, which is called on the script's goroutine.
func poll(ts *testscript.TestScript, what string, done func() bool) {
	deadline := time.NewTimer(Patience)
	defer deadline.Stop()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for !done() {
		select {
		case <-deadline.C:
			ts.Fatalf("waited %v for %s", Patience, what)
		case <-tick.C:
		}
	}
}

// fill leaves ${…} alone, which means something in a configuration file.
func fill(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg || len(args) == 0, "fill FILE...")
	placeholder := regexp.MustCompile(`@[A-Z_]+@`)
	for _, name := range args {
		text := placeholder.ReplaceAllStringFunc(ts.ReadFile(name), func(p string) string { return ts.Getenv(strings.Trim(p, "@")) })
		ts.Check(os.WriteFile(ts.MkAbs(name), []byte(text), 0o600))
	}
}

func freeport(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg || len(args) != 1, "freeport NAME")
	// Not one of those that the kernel hands out: the next to ask would get it.
	const first, ports = 20000, 10000
	for range 100 {
		l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(first+rand.IntN(ports)))
		if err != nil {
			continue
		}
		ts.Setenv(args[0], l.Addr().String())
		ts.Check(l.Close())
		return
	}
	ts.Fatalf("freeport: every port is taken")
}

func post(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg || len(args) < 2, "post URL FILE [NAME:VALUE...]")
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, args[0], strings.NewReader(ts.ReadFile(args[1])))
	ts.Check(err)
	for _, header := range args[2:] {
		name, value, _ := strings.Cut(header, ":")
		req.Header.Set(name, strings.TrimSpace(value))
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	ts.Check(err)
	defer resp.Body.Close()
	var body bytes.Buffer
	_, err = body.ReadFrom(resp.Body)
	ts.Check(err)
	ts.Check(os.WriteFile(filepath.Clean(ts.MkAbs("post.out")), body.Bytes(), 0o600))
	ts.Setenv("POST_STATUS", strconv.Itoa(resp.StatusCode))
}

func status(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, len(args) != 1, "status CODE")
	if got := ts.Getenv("POST_STATUS"); (got == args[0]) == neg {
		ts.Fatalf("answered %s", got)
	}
}
