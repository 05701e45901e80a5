//go:build linux

package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/cli"
	"github.com/peanutsapp/peanuts-relay/internal/config"
	"github.com/peanutsapp/peanuts-relay/internal/docstest"
	"github.com/peanutsapp/peanuts-relay/internal/relay"
	"github.com/peanutsapp/peanuts-relay/internal/testhost"
)

const (
	units       = "systemd/"
	serviceUnit = "peanuts-relay.service"
	socketUnit  = "peanuts-relay.socket"
	installed   = "/usr/bin/peanuts-relay"
)

// unit are the directives of a unit, with all values of each, in their order.
type unit map[string][]string

func readUnit(t *testing.T, name string) unit {
	t.Helper()
	text, err := os.ReadFile(units + name)
	if err != nil {
		t.Fatal(err)
	}
	u := unit{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == '[' {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			t.Fatalf("%s: %q", name, line)
		}
		u[key] = append(u[key], value)
	}
	return u
}

func (u unit) one(t *testing.T, key string) string {
	t.Helper()
	if len(u[key]) != 1 {
		t.Fatalf("%s is there %d times", key, len(u[key]))
	}
	return u[key][0]
}

// rows are the lines of a file for sysusers.d(5) or tmpfiles.d(5), as fields.
func rows(t *testing.T, name string) (out [][]string) {
	t.Helper()
	text, err := os.ReadFile(units + name)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 0 && fields[0] != "#" {
			out = append(out, fields)
		}
	}
	return out
}

// verify has systemd read both units, with this program in the place of the installed
// one, and spoil applied to the service. It returns what it has to say.
func verify(t *testing.T, spoil func(string) string) string {
	t.Helper()
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"verify", "--man=no"}
	for _, name := range []string{serviceUnit, socketUnit} {
		text, err := os.ReadFile(units + name)
		if err != nil {
			t.Fatal(err)
		}
		changed := strings.ReplaceAll(string(text), installed, self)
		if name == serviceUnit {
			changed = spoil(changed)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(changed), 0o644); err != nil {
			t.Fatal(err)
		}
		args = append(args, path)
	}
	out, err := exec.CommandContext(t.Context(), testhost.Program(t, "systemd-analyze"), args...).CombinedOutput()
	if err != nil {
		return string(out) + err.Error()
	}
	return string(out)
}

func TestSystemdHasNothingToSayOfTheUnits(t *testing.T) {
	t.Parallel()
	if said := verify(t, func(s string) string { return s }); said != "" {
		t.Error(said)
	}
	for name, spoil := range map[string]func(string) string{
		"a directive that there is not": func(s string) string { return strings.Replace(s, "KillMode=", "KilMode=", 1) },
		"a program that there is not":   func(s string) string { return strings.Replace(s, "ExecReload=", "ExecReload=/none", 1) },
	} {
		if verify(t, spoil) == "" {
			t.Errorf("%s is not noticed", name)
		}
	}
}

// Each directive has its reason in docs/systemd.md, and each drop-in there is one that
// systemd takes without a word.
func TestTheUnitsAreExplained(t *testing.T) {
	t.Parallel()
	page := docstest.Page(t, "systemd.md")
	for _, name := range []string{serviceUnit, socketUnit} {
		for key := range readUnit(t, name) {
			if key != "Description" && key != "Documentation" && !strings.Contains(page, "`"+key+"=") {
				t.Errorf("docs/systemd.md does not say why %s has %s=", name, key)
			}
		}
	}
	blocks := regexp.MustCompile("(?s)```ini\n(.*?)```").FindAllStringSubmatch(page, -1)
	if len(blocks) < 5 {
		t.Fatalf("%d drop-ins", len(blocks))
	}
	for _, block := range blocks {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(block[1], installed, self)
		if strings.Contains(text, "[Socket]") {
			continue // of the other unit, and of the same simple form
		}
		if said := verify(t, func(s string) string { return s + "\n" + text }); said != "" {
			t.Errorf("%s\n%s", text, said)
		}
	}
}

// exposure is what systemd makes of a service; err says that it is above 1.3.
func exposure(t *testing.T, text string) (last string, err error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), serviceUnit)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), testhost.Program(t, "systemd-analyze"),
		"security", "--offline=true", "--threshold=13", "--no-pager", path).CombinedOutput()
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1], err
}

func TestTheServiceIsHardenedToAnExposureOfAtMost13(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(units + serviceUnit)
	if err != nil {
		t.Fatal(err)
	}
	said, err := exposure(t, string(text))
	if err != nil {
		t.Errorf("%v: %s", err, said)
	}
	t.Log(said)
	// The control: each of these counts.
	for _, line := range []string{"ProtectSystem=strict\n", "NoNewPrivileges=yes\n", "CapabilityBoundingSet=\n", "SystemCallFilter=@system-service\n"} {
		less := strings.Replace(string(text), line, "", 1)
		if less == string(text) {
			t.Errorf("the unit has no %q", line)
		}
		if said, err := exposure(t, less); err == nil {
			t.Errorf("without %q: %s", line, said)
		}
	}
}

// What the units say of the program, its paths and its users is what is so.
func TestTheUnitsFitTheProgram(t *testing.T) {
	service, socket := readUnit(t, serviceUnit), readUnit(t, socketUnit)
	prevented := strings.Fields(service.one(t, "RestartPreventExitStatus"))
	if want := []string{strconv.Itoa(cli.ExitStoreFormat), strconv.Itoa(cli.ExitConfig)}; !slices.Equal(prevented, want) {
		t.Errorf("no restart follows %v; want %v, which an operator has to mend", prevented, want)
	}
	if got := socket.one(t, "FileDescriptorName"); got != relay.EventsSocketName {
		t.Errorf("the socket is handed over as %q, the daemon looks for %q", got, relay.EventsSocketName)
	}

	// Where the daemon looks under this unit, when the file does not say.
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte("log: {level: info}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"RUNTIME_DIRECTORY": "/run/" + service.one(t, "RuntimeDirectory"), "STATE_DIRECTORY": "/var/lib/" + service.one(t, "StateDirectory")}
	cfg, report := config.Load(config.Options{Path: path, LookupEnv: func(name string) (string, bool) { v, ok := env[name]; return v, ok }})
	if cfg == nil {
		t.Fatal(report.Err())
	}
	if got := socket.one(t, "ListenStream"); got != cfg.Listen.Events {
		t.Errorf("the socket unit listens on %s, the daemon's default is %s", got, cfg.Listen.Events)
	}
	if cfg.Queue.Dir != env["STATE_DIRECTORY"] {
		t.Errorf("the queue is in %s", cfg.Queue.Dir)
	}
	etc := filepath.Dir(config.DefaultPath)
	if got, want := service.one(t, "ReadWritePaths"), "-"+filepath.Join(etc, "conf.d"); got != want {
		t.Errorf("it may write %s, want %s alone", got, want)
	}

	users := rows(t, "peanuts-relay.sysusers")
	has := func(kind, name string) bool {
		return slices.ContainsFunc(users, func(row []string) bool { return row[0] == kind && row[1] == name })
	}
	if user := service.one(t, "User"); !has("u", user) || service.one(t, "Group") != user || socket.one(t, "SocketUser") != user {
		t.Errorf("the user %s is not the one of sysusers.d", user)
	}
	if group := socket.one(t, "SocketGroup"); !has("g", group) || group == service.one(t, "Group") {
		t.Errorf("who may send is the group %s: not there, or one that reads files of the relay", group)
	}
	dirs := map[string][]string{}
	for _, row := range rows(t, "peanuts-relay.tmpfiles") {
		dirs[row[1]] = row[2:5]
	}
	for dir, want := range map[string][]string{
		env["RUNTIME_DIRECTORY"]:     {"0755", service.one(t, "User"), service.one(t, "Group")},
		etc:                          {"0755", "root", "root"},
		filepath.Join(etc, "conf.d"): {"1775", "root", service.one(t, "Group")},
	} {
		if !slices.Equal(dirs[dir], want) {
			t.Errorf("%s is made as %v, want %v", dir, dirs[dir], want)
		}
	}
	// The service manager makes it, too, and gives everything in it away if it is not so.
	if got := service.one(t, "RuntimeDirectoryMode"); got != dirs[env["RUNTIME_DIRECTORY"]][0] {
		t.Errorf("the service makes %s as %s", env["RUNTIME_DIRECTORY"], got)
	}
}

// ExecStart= and ExecReload= as they are written: what systemd sees of a reload is its
// exit status, and the service goes on whatever that is.
func TestTheUnitsCommandsWork(t *testing.T) {
	t.Parallel()
	service := readUnit(t, serviceUnit)
	args := func(directive string) []string {
		fields := strings.Fields(service.one(t, directive))
		if fields[0] != installed {
			t.Fatalf("%s runs %s", directive, fields[0])
		}
		return fields[1:]
	}
	s := newSite(t, "", "      ok: {url: 'http://127.0.0.1:9/'}\n")
	env := "PEANUTS_RELAY_CONFIG=" + s.config()
	s.prepare = func(c *exec.Cmd) {
		c.Args = append(c.Args[:1], args("ExecStart")...)
		c.Env = append(c.Env, env)
	}
	p := s.up()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	reload := func() (string, int) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		cmd := exec.CommandContext(ctx, self)
		cmd.Args = append([]string{"peanuts-relay"}, args("ExecReload")...)
		cmd.Env = append(os.Environ(), env)
		out, err := cmd.CombinedOutput()
		if _, failed := errors.AsType[*exec.ExitError](err); err != nil && !failed {
			t.Fatal(err)
		}
		return string(out), cmd.ProcessState.ExitCode()
	}
	good, err := os.ReadFile(s.config())
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		text string
		want int
	}{
		{string(good), cli.ExitOK},
		{string(good) + "nonsense: 1\n", cli.ExitConfig},
		{strings.Replace(string(good), "name: Crash", "name: Other", 1), cli.ExitOK},
	} {
		if err := os.WriteFile(s.config(), []byte(step.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, code := reload(); code != step.want {
			t.Errorf("exit status %d, want %d:\n%s", code, step.want, out)
		}
		if st := s.status(); st.PID != p.cmd.Process.Pid {
			t.Errorf("another process runs: %d", st.PID)
		}
	}
	p.stop()
}

// seconds reads a time span such as 90s.
func seconds(t *testing.T, text string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// The times fit each other and those of the daemon.
func TestTheTimesOfTheUnitFit(t *testing.T) {
	service := readUnit(t, serviceUnit)
	if stop := seconds(t, service.one(t, "TimeoutStopSec")); stop <= relay.StopLimit {
		t.Errorf("a stop may take %v, systemd waits for %v", relay.StopLimit, stop)
	}
	if start := seconds(t, service.one(t, "TimeoutStartSec")); start <= cli.ReloadWait {
		t.Errorf("a reload may take %v, systemd waits for %v", cli.ReloadWait, start)
	}
	if again := seconds(t, service.one(t, "RestartSec")); again >= 500*time.Millisecond {
		t.Errorf("the daemon is away for %v after a hang", again)
	}
}
