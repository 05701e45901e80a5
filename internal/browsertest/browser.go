// Package browsertest drives a headless Chromium in tests: pages are opened, clicked and
// typed into as a person does, and asked what they are.
//
// Guarantee: nothing is reached but this machine, whatever a page asks for; nothing of the
// browser outlives the test; every wait ends. A machine without Chromium is one that
// package testhost speaks of.
package browsertest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/testhost"
)

// patience is how long anything may take.
const patience = time.Minute

// Browser is a running Chromium. It is safe for concurrent use.
type Browser struct {
	t    testing.TB
	cmd  *exec.Cmd
	in   *os.File
	said bytes.Buffer // what it wrote; read after its end

	mu    sync.Mutex // guards the following
	last  int
	calls map[int]chan message
	pages map[string]*Page // by session
	gone  bool
}

// message is one of the protocol, in either direction.
type message struct {
	ID      int             `json:"id,omitempty"`
	Session string          `json:"sessionId,omitempty"`
	Method  string          `json:"method,omitempty"`
	Params  json.RawMessage `json:"params,omitempty"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   *struct {
		Message string `json:"message"`
	} `json:"error,omitempty"`
}

// Start starts a browser for the time of a test. Every name but those of hosts is
// unknown to it; hosts are names that stand for 127.0.0.1.
func Start(t testing.TB, hosts ...string) *Browser {
	t.Helper()
	path := testhost.Program(t, "chromium")
	dir, err := os.MkdirTemp("", "browser")
	if err != nil {
		t.Fatal(err)
	}
	var rules strings.Builder
	for _, host := range hosts {
		rules.WriteString("MAP " + host + " 127.0.0.1, ")
	}
	b := &Browser{t: t, calls: map[int]chan message{}, pages: map[string]*Page{}}
	b.cmd = exec.Command(path, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
		"--disable-component-update", "--disable-default-apps", "--disable-extensions", "--disable-sync", "--no-first-run", "--no-default-browser-check",
		"--metrics-recording-only", "--mute-audio", "--hide-scrollbars", "--force-color-profile=srgb", "--force-device-scale-factor=1", "--password-store=basic",
		"--host-resolver-rules="+rules.String()+"MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost", "--user-data-dir="+dir, "--remote-debugging-pipe", "about:blank")
	b.cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_CONFIG_HOME="+dir, "XDG_CACHE_HOME="+dir, "DBUS_SESSION_BUS_ADDRESS=disabled:")
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	b.cmd.Stdout, b.cmd.Stderr = &b.said, &b.said
	theirIn, ourIn, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	ourOut, theirOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	b.cmd.ExtraFiles, b.in = []*os.File{theirIn, theirOut}, ourIn
	err = b.cmd.Start()
	_, _ = theirIn.Close(), theirOut.Close() // they are the browser's
	if err != nil {
		t.Fatal(err)
	}
	var reader sync.WaitGroup
	reader.Go(func() { b.read(ourOut) })
	t.Cleanup(func() {
		// The group: a browser is many processes.
		_ = syscall.Kill(-b.cmd.Process.Pid, syscall.SIGKILL)
		_ = b.cmd.Wait()
		_, _ = ourIn.Close(), ourOut.Close()
		reader.Wait()
		if err := removeAll(dir); err != nil {
			t.Error(err)
		}
	})
	return b
}

// removeAll tries for a while: what was killed may still be on its way out.
func removeAll(dir string) (err error) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); time.Now().Before(end); <-tick.C {
		if err = os.RemoveAll(dir); err == nil {
			return nil
		}
	}
	return err
}

// read passes on what the browser says until it ends.
func (b *Browser) read(from io.Reader) {
	lines := bufio.NewReaderSize(from, 1<<20)
	for {
		raw, err := lines.ReadBytes(0)
		if err != nil {
			break
		}
		var m message
		if json.Unmarshal(raw[:len(raw)-1], &m) != nil {
			continue
		}
		b.mu.Lock()
		answer, page := b.calls[m.ID], b.pages[m.Session]
		delete(b.calls, m.ID)
		b.mu.Unlock()
		switch {
		case answer != nil:
			answer <- m
		case page != nil && m.Method != "":
			page.event(m.Method, m.Params)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.gone = true
	for _, answer := range b.calls {
		close(answer)
	}
}

// send writes a message whose answer will come to the channel.
func (b *Browser) send(session, method string, params any) (<-chan message, error) {
	encoded, err := json.Marshal(params)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.gone {
		return nil, errors.New("the browser has ended")
	}
	b.last++
	raw, err := json.Marshal(message{ID: b.last, Session: session, Method: method, Params: encoded})
	if err != nil {
		return nil, err
	}
	answer := make(chan message, 1)
	b.calls[b.last] = answer
	_, err = b.in.Write(append(raw, 0))
	return answer, err
}

// call does one thing and fills in out, unless that is nil.
func (b *Browser) call(session, method string, params, out any) error {
	answer, err := b.send(session, method, params)
	if err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	select {
	case m, ok := <-answer:
		switch {
		case !ok:
			return fmt.Errorf("%s: the browser has ended", method)
		case m.Error != nil:
			return fmt.Errorf("%s: %s", method, m.Error.Message)
		case out != nil:
			return json.Unmarshal(m.Result, out)
		}
		return nil
	case <-time.After(patience):
		return fmt.Errorf("%s: no answer in %v", method, patience)
	}
}
