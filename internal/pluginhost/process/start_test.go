package process_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/pluginhost/process"
	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
	"github.com/peanutsapp/peanuts-relay/internal/zoo"
)

// TestAFailingStartSaysWhyAndLeavesNothing also shows that none of it takes longer than
// it has to: the limits here are far apart.
func TestAFailingStartSaysWhyAndLeavesNothing(t *testing.T) {
	const slow = time.Second // the limit of those that never get anywhere
	for _, row := range []struct {
		behaviour string
		want      string // a regular expression for the whole error
		slow      bool
	}{
		{"crash-start", `it closed its standard output before a handshake; it exited with status 3; its last words: I cannot find my shoes`, false},
		{"panic-start", `it closed its standard output before a handshake; it exited with status 2; its last words: panic: I cannot find my shoes`, false},
		{"exit-0", `it closed its standard output before a handshake; it exited with status 0`, false},
		{"crash-children", `it closed its standard output before a handshake; it exited with status 3`, false},
		{"crash-handshake", `(it does not answer on its socket|its socket: .*no such file.*|Unrecognized.*|plugin exited before we could connect); it exited with status 3`, false},
		{"hang-start", `it was not ready within 1s`, true},
		{"stop-start", `it was not ready within 1s`, true},
		{"mute", `it was not ready within 1s`, true},
		{"deaf", `it was not ready within 1s`, true},
		{"garbage", `the first line on its standard output is no handshake: "good morning"`, false},
		{"flood-lines", `the first line on its standard output is no handshake: "good morning"`, false},
		{"flood-stdout", `it wrote more than 4096 bytes to its standard output before a handshake: "x{200}"…`, false},
		{"core", `its handshake has version "2" of go-plugin, which is not supported; only 1 is`, false},
		{"protocol", `it speaks version "2" of the sink protocol; this relay speaks 1`, false},
		{"netrpc", `it speaks "netrpc"; only grpc is supported`, false},
		{"network", `it listens on the network "tcp"; only unix is allowed`, false},
		{"certificate", `its handshake has a certificate, which was not asked for`, false},
		{"socket-outside", `its socket ".*/zoo" is not in the directory that it was given, .*`, false},
		{"socket-missing", `its socket: lstat .*/zoo-not: no such file or directory`, false},
		{"socket-link", `its socket .*/link is no socket`, false},
		{"socket-file", `its socket .*/file is no socket`, false},
		{"cookie", `it closed its standard output before a handshake; it exited with status 1; its last words: load any plugins automatically`, false},
	} {
		t.Run(row.behaviour, func(t *testing.T) {
			t.Parallel()
			k := keep(t)
			o := k.options(row.behaviour, func(o *process.Options) {
				if row.slow {
					o.Limits.Start = slow
				}
			})
			p, err := process.Start(t.Context(), o)
			if err == nil {
				p.Stop(t.Context())
				t.Fatal("it was started")
			}
			want := "^start sink plugin zoo-" + row.behaviour + ": " + row.want + "$"
			if !regexp.MustCompile(want).MatchString(err.Error()) {
				t.Errorf("the error is\n%s\nwant\n%s", err, want)
			}
			if left, _ := filepath.Glob(k.sockets + "/*"); len(left) > 0 {
				t.Errorf("sockets were left: %v", left)
			}
			if left := marked(k.sockets); len(left) > 0 {
				t.Errorf("processes were left: %v", left)
			}
		})
	}
}

func TestAPluginThatRecoversStartsInTheEnd(t *testing.T) {
	k := keep(t)
	o := k.options("crash-start-2")
	for range 2 {
		if _, err := process.Start(t.Context(), o); err == nil {
			t.Fatal("it was started too early")
		}
	}
	p, err := process.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	p.Stop(t.Context())
}

func TestAnotherNameIsForTheHostToSee(t *testing.T) {
	p := keep(t).start("name")
	d, err := p.Client().Describe(t.Context(), &sinkpb.DescribeRequest{})
	if err != nil || d.GetName() != "somebody-else" {
		t.Errorf("described itself as %v, %v", d, err)
	}
}

func TestWhatCannotBeExecutedIsExplained(t *testing.T) {
	k := keep(t)
	script := func(text string) string {
		path := filepath.Join(t.TempDir(), "peanuts-sink-script")
		if err := errors.Join(os.Chmod(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o755), os.Chmod(path, 0o755)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, row := range []struct{ text, want string }{
		{"not a program", "the file is no program for this machine, or a script without a first line #!"},
		{"#!/nowhere/to/be/found\n", "the interpreter or loader that the file names does not exist"},
	} {
		o := k.options("healthy")
		o.Path = script(row.text)
		if p, err := process.Start(t.Context(), o); err == nil {
			p.Stop(t.Context())
			t.Errorf("%q was started", row.text)
		} else if !strings.Contains(err.Error(), row.want) {
			t.Errorf("%q: %v", row.text, err)
		}
	}
	// A script is executed through its descriptor as well: the interpreter can open it.
	o := k.options("healthy")
	plugin := o.Path
	o.Path = script("#!/bin/sh\n# a plugin in another language\nexec " + filepath.Join(filepath.Dir(plugin), "peanuts-sink-zoo-healthy") + "\n")
	p, err := process.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Client().Health(t.Context(), &sinkpb.HealthRequest{}); err != nil {
		t.Error(err)
	}
	p.Stop(t.Context())
}

func TestWhatRunsIsWhatWasOpened(t *testing.T) {
	k := keep(t)
	dir := t.TempDir()
	path := filepath.Join(dir, "peanuts-sink-acme")
	zoo.InstallAs(t, path, "healthy", "1.0.0")
	f, err := process.Open(path, "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.Changed() {
		t.Error("the file has changed by itself")
	}
	o := k.options("healthy")
	o.File = f
	version := func() string {
		p, err := process.Start(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Stop(context.Background())
		d, err := p.Client().Describe(t.Context(), &sinkpb.DescribeRequest{})
		if err != nil || d.GetName() != "acme" {
			t.Fatalf("described itself as %v, %v", d, err)
		}
		return d.GetVersion()
	}
	zoo.InstallAs(t, path, "healthy", "2.0.0")
	if !f.Changed() {
		t.Error("the replaced file is not noticed")
	}
	if v := version(); v != "1.0.0" {
		t.Errorf("version %s runs, 1.0.0 was opened", v)
	}
	fresh, err := process.Open(path, "")
	if err != nil {
		t.Fatal(err)
	}
	defer fresh.Close()
	if fresh.Identity() == f.Identity() || fresh.Identity().SHA256 == f.Identity().SHA256 {
		t.Error("two files have one identity")
	}
	o.File = fresh
	if v := version(); v != "2.0.0" {
		t.Errorf("version %s runs, 2.0.0 was opened", v)
	}
	if err := os.Remove(path); err != nil || !fresh.Changed() {
		t.Errorf("the removed file is not noticed, %v", err)
	}
}

func TestTheSocketDirectoryIsChecked(t *testing.T) {
	k := keep(t)
	long := filepath.Join(k.sockets, strings.Repeat("x", 90))
	open := filepath.Join(t.TempDir(), "open")
	file := filepath.Join(t.TempDir(), "file")
	if err := errors.Join(os.Mkdir(open, 0o755), os.WriteFile(file, nil, 0o700)); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ dir, want string }{
		{"relative", "not absolute"},
		{long, "at most 69 are possible: the path of a socket in it would have"},
		{"/nowhere", "no such file"},
		{file, "not a directory"},
		{open, "with mode 0700"},
	} {
		if len(row.dir) > 69 != (row.dir == long) {
			t.Skipf("the directory for temporary files is too long: %s", row.dir)
		}
		_, err := process.Start(t.Context(), k.options("healthy", func(o *process.Options) { o.SocketDir = row.dir }))
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, want %s", row.dir, err, row.want)
		}
	}
}
