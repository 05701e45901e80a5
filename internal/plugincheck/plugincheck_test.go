package plugincheck

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/peanutsapp/peanuts-relay/internal/config"
	"github.com/peanutsapp/peanuts-relay/internal/pluginhost"
	"github.com/peanutsapp/peanuts-relay/internal/zoo"
)

func TestMain(m *testing.M) {
	zoo.Main()
	goleak.VerifyTestMain(m)
}

const planted = "planted-Zw3f8Qk1"

// check has the plugins in dir look at a configuration with these webhooks.
func check(t *testing.T, dir, webhooks string) (report *config.Report, later bool) {
	t.Helper()
	path := filepath.Join(dir, "config.yaml")
	text := "queue: {dir: /q}\nlisten: {events: /r/e.sock, admin: /r/a.sock}\nplugins: {dir: " + dir + "}\nhelpers:\n  h:\n    webhooks:\n" + webhooks
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, report := config.Load(config.Options{Path: path, LookupEnv: func(string) (string, bool) { return "", false }})
	if err := report.Err(); err != nil {
		t.Fatal(report.Text())
	}
	host := pluginhost.New(pluginhost.Options{SocketDir: filepath.Join(dir, "s")})
	defer func() {
		if err := host.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	later = Run(t.Context(), host, cfg, report, false)
	return report, later
}

// sinksDir is a directory with a short path, for sockets, and plugins that behave so.
func sinksDir(t *testing.T, behaviours ...string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "check")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for _, b := range behaviours {
		zoo.Install(t, dir, b)
	}
	return dir
}

func TestEachMistakeIsShownAtItsLineWithItsNameAndWithoutItsValue(t *testing.T) {
	dir := sinksDir(t, "healthy")
	report, later := check(t, dir, `      good: {sink: zoo-healthy, settings: {token: `+planted+`}}
      typo:
        sink: zoo-healthy
        settings:
          tokn: `+planted+`
      range:
        sink: zoo-healthy
        settings: {delay_ms: -4711}
      type:
        sink: zoo-healthy
        settings: {token: 4711, delay_ms: "4711"}
`)
	if later || report.Err() == nil {
		t.Fatalf("later %t:\n%s", later, report.Text())
	}
	text := strings.ReplaceAll(report.Text(), dir, "DIR") // whose name can have any digits
	for _, want := range []string{
		":11:11\n", `error: zoo-healthy, setting tokn: there is no such setting`, `did you mean "token"?`,
		":14:30\n", "error: zoo-healthy, setting delay_ms: it is too small: at least 0",
		":17:27\n", "error: zoo-healthy, setting token: it is a number; it must be a string",
		":17:43\n", "error: zoo-healthy, setting delay_ms: it is a string; it must be an integer",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing", want)
		}
	}
	if len(report.Findings) != 4 || strings.Contains(text, planted) || strings.Contains(text, "4711") || t.Failed() {
		t.Errorf("%d findings:\n%s", len(report.Findings), text)
	}
}

func TestAPluginThatCannotBeAskedIsShownAtTheSinkOfTheFirstWebhookThatNamesIt(t *testing.T) {
	dir := sinksDir(t, "healthy", "crash-start")
	report, later := check(t, dir, `      good: {sink: zoo-healthy, settings: {}}
      one: {sink: zoo-crash-start, settings: {token: `+planted+`}}
      two: {sink: zoo-crash-start}
`)
	if !later || len(report.Findings) != 1 {
		t.Fatalf("later %t:\n%s", later, report.Text())
	}
	f := report.Findings[0]
	if f.Code != CodeBadPlugin || f.Line != 8 || f.Column != 19 || f.Suggestion == "" ||
		!strings.Contains(f.Message, "the plugin cannot be asked about its settings: sink plugin zoo-crash-start: ") || strings.Contains(report.Text(), planted) {
		t.Errorf("%+v\n%s", f, report.Text())
	}
}

func TestTheCheckEndsWithItsContext(t *testing.T) {
	dir := sinksDir(t, "healthy")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	path := filepath.Join(dir, "config.yaml")
	text := "queue: {dir: /q}\nlisten: {events: /r/e.sock, admin: /r/a.sock}\nplugins: {dir: " + dir + "}\nhelpers: {h: {webhooks: {w: {sink: zoo-healthy}}}}\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, report := config.Load(config.Options{Path: path, LookupEnv: func(string) (string, bool) { return "", false }})
	host := pluginhost.New(pluginhost.Options{SocketDir: filepath.Join(dir, "s")})
	defer func() { _ = host.Stop(context.Background()) }()
	if later := Run(ctx, host, cfg, report, false); !later || report.Err() == nil {
		t.Errorf("later %t:\n%s", later, report.Text())
	}
}
