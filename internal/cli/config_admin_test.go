package cli

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/adminclient"
	"github.com/peanutsapp/peanuts-relay/internal/config"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

// differs is a change of each kind.
func differs() []rest.ConfigChange {
	return []rest.ConfigChange{
		{Object: rest.ObjectSetting, ID: "retry.schedule", Change: rest.ChangeChanged},
		{Object: rest.ObjectSetting, ID: "listen.events", Change: rest.ChangeChanged, Restart: true},
		{Object: rest.ObjectWebhook, ID: "crm.orders", Change: rest.ChangeAdded},
		{Object: rest.ObjectWebhook, ID: "expenses.backend", Change: rest.ChangeChanged, Fields: []string{"url", "headers.X-Env"}},
		{Object: rest.ObjectWebhook, ID: "expenses.old", Change: rest.ChangeRemoved},
	}
}

// oneError is what a refused configuration comes with.
func oneError() ([]rest.Finding, string) {
	return []rest.Finding{{Severity: "error", Code: "unknown_key", File: "/etc/p/config.yaml", Line: 14, Column: 7, Message: `unknown key "secrt"`, Suggestion: `did you mean "secret"?`},
			{Severity: "warning", Code: "plain_http", File: "/etc/p/config.yaml", Line: 3, Message: "plain http"}},
		"error: unknown key \"secrt\"\n  --> /etc/p/config.yaml:14:7\n"
}

func TestAReloadSaysWhatChanged(t *testing.T) {
	stub := &adminStub{answers: map[string]any{"POST /v1/reload": rest.ReloadResult{Result: rest.ReloadApplied, Generation: 42, Changes: differs(),
		RestartRequired: []string{"listen.events", "queue.dir"}, Report: "warning: plain http\n  --> /etc/p/config.yaml:3:9\n"}}}
	stdout, stderr := ask(t, stub, 0, 0, "reload")
	expect(t, "stdout", stdout, `~ setting retry.schedule
+ webhook crm.orders
~ webhook expenses.backend  url, headers.X-Env
- webhook expenses.old
! listen.events             takes effect at the next start
! queue.dir                 takes effect at the next start
applied: generation 42: 1 added, 2 changed, 1 removed, 2 at the next start
`)
	expect(t, "stderr", stderr, "warning: plain http\n  --> /etc/p/config.yaml:3:9\n")

	stub.answers["POST /v1/reload"] = rest.ReloadResult{Result: rest.ReloadUnchanged, Generation: 41}
	stdout, stderr = ask(t, stub, 0, 0, "reload", "--wait")
	expect(t, "unchanged", stdout+stderr, "unchanged: generation 41 is what the files say\n")
	stub.answers["POST /v1/reload"] = rest.ReloadResult{Result: rest.ReloadApplied, Generation: 43}
	stdout, _ = ask(t, stub, 0, 0, "reload", "--wait=5m")
	expect(t, "a comment changed", stdout, "applied: generation 43\n")
	stub.answers["POST /v1/reload"] = rest.ReloadResult{Result: rest.ReloadApplied, Generation: 44, RestartRequired: []string{},
		Changes: []rest.ConfigChange{{Object: rest.ObjectSetting, ID: "listen.events", Change: rest.ChangeChanged, Restart: true}}}
	stdout, _ = ask(t, stub, 0, 0, "reload")
	expect(t, "changed back before the restart", stdout, "~ listen.events  is what runs again\napplied: generation 44: 1 changed\n")
	stub.answers["POST /v1/reload"] = rest.ReloadResult{Result: rest.ReloadApplied, Generation: 43}
	stdout, _ = ask(t, stub, 0, 0, "reload", "--json")
	if !json.Valid([]byte(stdout)) || !strings.Contains(stdout, `"generation": 43`) {
		t.Errorf("--json: %s", stdout)
	}
}

func TestARejectedReloadShowsTheFindings(t *testing.T) {
	findings, report := oneError()
	rejected := rest.ReloadResult{Result: rest.ReloadRejected, Generation: 41, Findings: findings, Report: report}
	stub := &adminStub{answers: map[string]any{"POST /v1/reload": rejectedReload(rejected)}}
	stdout, stderr := ask(t, stub, 0, ExitConfig, "reload")
	expect(t, "stdout", stdout, "")
	expect(t, "stderr", stderr, report+"error: the configuration files are invalid: 1 error; generation 41 goes on running\n"+
		"  correct the files and save them: they are read at once; peanuts-relay check checks them without the daemon\n")
	stdout, stderr = ask(t, stub, 0, ExitConfig, "reload", "--json")
	var got rest.ReloadResult
	if err := json.Unmarshal([]byte(stdout), &got); err != nil || got.Result != rest.ReloadRejected || stderr != "" {
		t.Errorf("--json: %v: %s%s", err, stdout, stderr)
	}
}

func TestAReloadIsNotWaitedForForever(t *testing.T) {
	release := make(chan struct{})
	stub := &adminStub{answers: map[string]any{"POST /v1/reload": func() any {
		<-release
		return rest.ReloadResult{}
	}}}
	t.Cleanup(func() { close(release) })
	_, stderr := ask(t, stub, 0, ExitTryAgain, "reload", "--wait=50ms")
	expect(t, "stderr", stderr, "error: the reload is not done after 50ms; it goes on\n  peanuts-relay status says how it ends\n")
	for _, wait := range []string{"0s", "-1s", "soon", ""} {
		ask(t, stub, 0, ExitUsage, "reload", "--wait="+wait)
	}
}

func planned() rest.PlanResult {
	return rest.PlanResult{Valid: true, Changes: differs(), RestartRequired: []string{"listen.events"}, Webhooks: []rest.PlanWebhook{
		{Webhook: "expenses.backend", Pending: 1234, Queued: "the next attempt uses the new values"},
		{Webhook: "expenses.old", Pending: 1, NewEvents: "make no delivery for it", Queued: "held (removed) for 7 days, in case it returns with the same sink and host; then they fail with the code webhook_removed"},
		{Webhook: "crm.main", NewEvents: "only entry.created", Queued: "sent as they are"}}}
}

func TestAPlanSaysWhatItMeans(t *testing.T) {
	stub := &adminStub{answers: map[string]any{"POST /v1/plan": planned()}}
	stdout, stderr := ask(t, stub, 80, ExitChanges, "plan")
	expect(t, "stderr", stderr, "")
	expect(t, "stdout", stdout, `~ setting retry.schedule
+ webhook crm.orders
~ webhook expenses.backend  url, headers.X-Env
- webhook expenses.old
! listen.events             takes effect at the next start

expenses.backend: 1,234 deliveries wait
  these       the next attempt uses the new values

expenses.old: 1 delivery waits
  these       held (removed) for 7 days, in case it returns with the same sink
              and host; then they fail with the code webhook_removed
  new events  make no delivery for it

crm.main: no delivery waits
  new events  only entry.created

plan: 1 to add, 2 to change, 1 to remove, 1 at the next start; nothing was applied
`)
	expect(t, "asked", strings.Join(stub.requests(), "\n"), `POST /v1/plan {"replace":false,"files":null}`)
}

func TestAPlanOfNothingNew(t *testing.T) {
	stub := &adminStub{answers: map[string]any{"POST /v1/plan": rest.PlanResult{Valid: true}}}
	stdout, _ := ask(t, stub, 0, 0, "plan")
	expect(t, "stdout", stdout, "no change: the daemon's files: this is what runs\n")
	findings, report := oneError()
	stub.answers["POST /v1/plan"] = rest.PlanResult{Findings: findings, Report: report}
	stdout, stderr := ask(t, stub, 0, ExitConfig, "plan")
	expect(t, "invalid", stdout+stderr, report+"\ninvalid: the daemon's files: 1 error\n")
	stdout, _ = ask(t, stub, 0, ExitConfig, "plan", "--json")
	if !strings.Contains(stdout, `"valid": false`) {
		t.Errorf("--json: %s", stdout)
	}
	stub.answers["POST /v1/plan"] = rest.PlanResult{Valid: true, RestartRequired: []string{"queue.dir"}}
	stdout, _ = ask(t, stub, 0, ExitChanges, "plan")
	expect(t, "restart", stdout, "! queue.dir  takes effect at the next start\n\nplan: 1 at the next start; nothing was applied\n")
}

// candidate writes files below a new directory and enters it.
func candidate(t *testing.T, files map[string]string) {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
}

func TestACandidateIsReadOnTheOperatorsSide(t *testing.T) {
	candidate(t, map[string]string{"new/config.yaml": "a\n", "new/conf.d/50-crm.yaml": "b\n", "new/conf.d/10-x.yaml": "c\n", "new/conf.d/.50.yaml.swp": "no",
		"new/conf.d/#x.yaml": "no", "new/conf.d/x.yml": "no", "draft.yaml": "d <é>\n"})
	for _, c := range []struct {
		arg  string
		want rest.PlanRequest
	}{
		{"new", rest.PlanRequest{Replace: true, Files: []rest.PlanFile{{Role: "main", Name: "new/config.yaml", Content: "a\n"},
			{Role: "10-x.yaml", Name: "new/conf.d/10-x.yaml", Content: "c\n"}, {Role: "50-crm.yaml", Name: "new/conf.d/50-crm.yaml", Content: "b\n"}}}},
		{"draft.yaml", rest.PlanRequest{Files: []rest.PlanFile{{Role: "main", Name: "draft.yaml", Content: "d <é>\n"}}}},
		{"new/conf.d/50-crm.yaml", rest.PlanRequest{Files: []rest.PlanFile{{Role: "50-crm.yaml", Name: "new/conf.d/50-crm.yaml", Content: "b\n"}}}},
	} {
		stub := &adminStub{answers: map[string]any{"POST /v1/plan": planned()}}
		ask(t, stub, 0, ExitChanges, "plan", c.arg)
		want, _ := json.Marshal(c.want)
		expect(t, c.arg, stub.requests()[0], "POST /v1/plan "+string(want))
	}
	t.Chdir("new/conf.d")
	stub := &adminStub{answers: map[string]any{"POST /v1/plan": planned()}}
	ask(t, stub, 0, ExitChanges, "plan", "50-crm.yaml")
	if !strings.Contains(stub.requests()[0], `"role":"50-crm.yaml"`) {
		t.Errorf("from within conf.d: %s", stub.requests()[0])
	}
}

func TestACandidateThatCannotBeReadIsNotSent(t *testing.T) {
	candidate(t, map[string]string{"binary.yaml": "a: \xff\n", "conf.d/x.yml": "a: b\n", "empty/x": "", "large.yaml": strings.Repeat("#", config.MaxFileBytes+1)})
	for arg, want := range map[string]struct {
		code int
		says string
	}{
		"none.yaml":    {ExitFailure, "plan: cannot open none.yaml: no such file or directory"},
		"empty":        {ExitFailure, "plan: cannot open empty/config.yaml: no such file or directory"},
		"binary.yaml":  {ExitConfig, "binary.yaml is not UTF-8"},
		"large.yaml":   {ExitConfig, "large.yaml is larger than 10.0 MiB"},
		"conf.d/x.yml": {ExitUsage, "the daemon would not read conf.d/x.yml"},
	} {
		stub := &adminStub{}
		_, stderr := ask(t, stub, 0, want.code, "plan", arg)
		if !strings.HasPrefix(stderr, "error: "+want.says) || len(stub.requests()) > 0 {
			t.Errorf("%s: %s, asked %q", arg, stderr, stub.requests())
		}
	}
}

func historyOf3() rest.ConfigHistory {
	return rest.ConfigHistory{Entries: []rest.ConfigEntry{
		{Generation: 42, At: moment(60), Trigger: rest.TriggerWebhooks, UID: new(uint32(4294967290)), Result: rest.ReloadApplied, Digest: "sha256:0123456789abcdef", Running: true,
			Changes: []rest.ConfigChange{{Object: rest.ObjectWebhook, ID: "expenses.alerts", Change: rest.ChangeChanged, Fields: []string{"enabled"}}}},
		{Generation: 41, At: moment(30), Trigger: rest.TriggerWatch, Result: rest.ReloadRejected, Digest: "ff", Errors: 3, Error: `/etc/p/config.yaml:14:7: unknown key "secrt"`},
		{Generation: 41, At: moment(0), Trigger: rest.TriggerStart, Result: rest.ReloadRestored, Digest: "sha256:aa", Files: []string{"/etc/p/config.yaml"}}}}
}

func TestTheHistoryOfTheConfiguration(t *testing.T) {
	stub := &adminStub{answers: map[string]any{"GET /v1/config/history": historyOf3()}}
	stdout, _ := ask(t, stub, 0, 0, "config", "history")
	expect(t, "history", stdout, ""+
		"GENERATION  TIME                 TRIGGER   BY          RESULT    DIGEST        WHAT\n"+
		"42 running  2025-01-15 14:31:00  webhooks  4294967290  applied   0123456789ab  ~ webhook expenses.alerts\n"+
		"-           2025-01-15 14:30:30  watch     -           rejected  ff            /etc/p/config.yaml:14:7: unknown key \"secrt\" (and 2 more)\n"+
		"41          2025-01-15 14:30:00  start     -           restored  aa            -\n")
	stdout, _ = ask(t, stub, 80, 0, "config", "history")
	for line := range strings.Lines(stdout) {
		if w := textWidth(strings.TrimSuffix(line, "\n")); w > 80 {
			t.Errorf("%d columns: %s", w, line)
		}
	}
	stdout, _ = ask(t, stub, 0, 0, "config", "history", "--json")
	if !strings.Contains(stdout, `"uid": 4294967290`) {
		t.Errorf("--json: %s", stdout)
	}
	stub.answers["GET /v1/config/history"] = rest.ConfigHistory{}
	stdout, stderr := ask(t, stub, 0, 0, "config", "history")
	expect(t, "empty", stdout+stderr, "no history\n")
}

func TestRollbackPrintsTheFormerFile(t *testing.T) {
	main := rest.ConfigFile{Path: "/etc/p/config.yaml", Content: "secret: ${file:/x}\n", Now: rest.FileDiffers}
	crm := rest.ConfigFile{Path: "/etc/p/conf.d/50-crm.yaml", Content: "helpers: {}", Now: rest.FileSame}
	files := rest.ConfigFiles{Generation: 41, Files: []rest.ConfigFile{main, crm}, Extra: []string{"/etc/p/conf.d/90-api.yaml"}}
	answer := func(f rest.ConfigFiles) *adminStub {
		return &adminStub{answers: map[string]any{"GET /v1/config/history/41": f}}
	}
	stdout, stderr := ask(t, answer(files), 0, 0, "config", "rollback", "41")
	expect(t, "stdout", stdout, main.Content)
	expect(t, "stderr", stderr, "this is /etc/p/config.yaml of generation 41, differs from now\nalso remove /etc/p/conf.d/90-api.yaml: generation 41 did not have it\n")
	stdout, stderr = ask(t, answer(files), 0, 0, "config", "rollback", "41", "--file", "50-crm.yaml")
	expect(t, "stdout", stdout, crm.Content)
	expect(t, "stderr", stderr, "also /etc/p/config.yaml differs from now\nthis is /etc/p/conf.d/50-crm.yaml of generation 41, as it is now\nalso remove /etc/p/conf.d/90-api.yaml: generation 41 did not have it\n")

	same := rest.ConfigFiles{Generation: 41, Files: []rest.ConfigFile{{Path: main.Path, Content: main.Content, Now: rest.FileSame}, crm}}
	stdout, stderr = ask(t, answer(same), 0, 0, "config", "rollback", "41")
	expect(t, "nothing differs", stdout+stderr, main.Content+"this is /etc/p/config.yaml of generation 41, as it is now\n")

	several := files
	several.Files = []rest.ConfigFile{main, {Path: crm.Path, Content: "x", Now: rest.FileMissing}}
	stdout, stderr = ask(t, answer(several), 0, ExitUsage, "config", "rollback", "41")
	expect(t, "several", stdout+stderr, "error: 2 files are not as in generation 41; print them one by one:\n"+
		"  peanuts-relay config rollback 41 --file /etc/p/config.yaml\n  peanuts-relay config rollback 41 --file /etc/p/conf.d/50-crm.yaml\n")
	_, stderr = ask(t, answer(several), 0, ExitUsage, "config", "rollback", "41", "--file", "other.yaml")
	expect(t, "unknown", stderr, "error: generation 41 had no file \"other.yaml\"\n  it had: /etc/p/config.yaml, /etc/p/conf.d/50-crm.yaml\n")
	stdout, _ = ask(t, answer(several), 0, 0, "config", "rollback", "41", "--json")
	if !strings.Contains(stdout, `"now": "missing"`) {
		t.Errorf("--json: %s", stdout)
	}
	for _, wrong := range []string{"0", "x", "-1"} {
		ask(t, answer(files), 0, ExitUsage, "config", "rollback", "--", wrong)
	}
}

func TestTheRunningConfigurationIsShown(t *testing.T) {
	stub := &adminStub{answers: map[string]any{"GET /v1/config": rest.RunningConfig{Generation: 41, YAML: "helpers: {}\n"}}}
	stdout, _ := ask(t, stub, 0, 0, "config", "show", "--running")
	expect(t, "stdout", stdout, "helpers: {}\n")
}

func TestWebhooksAreSwitched(t *testing.T) {
	stub := &adminStub{answers: map[string]any{"PATCH /v1/webhooks/expenses.alerts": rest.WebhookChanged{ID: "expenses.alerts", Active: true, File: "/etc/p/conf.d/90-api.yaml", Released: true}}}
	stdout, _ := ask(t, stub, 0, 0, "enable", "expenses.alerts")
	expect(t, "enable", stdout, "enabled: expenses.alerts (in /etc/p/conf.d/90-api.yaml)\nthe deliveries that waited since it came back are attempted again\n")
	stub.answers["PATCH /v1/webhooks/expenses.alerts"] = rest.WebhookChanged{ID: "expenses.alerts"}
	stdout, _ = ask(t, stub, 0, 0, "disable", "expenses.alerts")
	expect(t, "disable", stdout, "disabled: expenses.alerts (it was already)\n")
	stdout, _ = ask(t, stub, 0, 0, "disable", "expenses.alerts", "--json")
	if !strings.Contains(stdout, `"active": false`) {
		t.Errorf("--json: %s", stdout)
	}
	want := []string{`PATCH /v1/webhooks/expenses.alerts {"active":true}`, `PATCH /v1/webhooks/expenses.alerts {"active":false}`, `PATCH /v1/webhooks/expenses.alerts {"active":false}`}
	if got := stub.requests(); !slices.Equal(got, want) {
		t.Errorf("asked %q, want %q", got, want)
	}
	findings, _ := oneError()
	stub.answers["PATCH /v1/webhooks/expenses.alerts"] = refusedWith{422, rest.CodeInvalidConfig, "the configuration would be invalid", findings}
	_, stderr := ask(t, stub, 0, ExitConfig, "enable", "expenses.alerts")
	expect(t, "invalid", stderr, "error: the configuration would be invalid\n"+
		"  error: /etc/p/config.yaml:14: unknown key \"secrt\" (did you mean \"secret\"?)\n  warning: /etc/p/config.yaml:3: plain http\n")
	stub.answers["PATCH /v1/webhooks/expenses.alerts"] = refusedWith{409, rest.CodeConflict, "/etc/p/conf.d/95-x.yaml decides enabled", nil}
	ask(t, stub, 0, ExitFailure, "enable", "expenses.alerts")
}

// answers runs one command on a terminal on which somebody types.
func answers(t *testing.T, stub *adminStub, typed string, want int, args ...string) (stdout, stderr string) {
	t.Helper()
	terminal := Terminal{Width: 80}
	code, stdout, stderr := runMain(t, Streams{In: strings.NewReader(typed), InTerm: terminal, ErrTerm: terminal, Now: testNow}, append(args, "--admin", stub.start(t))...)
	if code != want {
		t.Fatalf("%q: exit status %d, want %d: %s%s", args, code, want, stdout, stderr)
	}
	return stdout, stderr
}

func TestADropIsAskedFor(t *testing.T) {
	stub := &adminStub{answers: map[string]any{
		"GET /v1/webhooks/expenses.old":               rest.Webhook{ID: "expenses.old", Counts: rest.Counts{Pending: 1200}},
		"DELETE /v1/webhooks/expenses.old/deliveries": rest.Dropped{Webhook: "expenses.old", Dropped: 1198},
		"DELETE /v1/deliveries/del_b":                 rows()[1],
	}}
	const question = "Drop all deliveries that wait for expenses.old (1,200 now)? They are not sent any more. [y/N] "
	for _, no := range []string{"", "n\n", "\n", "yep\n"} {
		stdout, stderr := answers(t, stub, no, ExitFailure, "drop", "expenses.old")
		expect(t, "no", stdout+stderr, question+"error: nothing was dropped\n")
	}
	answers(t, stub, "n\n", ExitFailure, "drop", "del_b")
	for _, asked := range stub.requests() {
		if strings.HasPrefix(asked, "DELETE") {
			t.Errorf("after no: %s", asked)
		}
	}
	stdout, stderr := answers(t, stub, "y\n", 0, "drop", "expenses.old")
	expect(t, "yes", stdout, "dropped: 1,198 deliveries of expenses.old\n")
	expect(t, "question", stderr, question)
	stdout, stderr = answers(t, stub, "YES\n", 0, "drop", "del_b")
	expect(t, "one", stdout+stderr, "dropped: del_b  expenses.alerts  entry.updated entry-2\nDrop 1 delivery? They are not sent any more. [y/N] ")
	stdout, stderr = answers(t, stub, "", 0, "drop", "expenses.old", "--yes")
	expect(t, "--yes", stdout+stderr, "dropped: 1,198 deliveries of expenses.old\n")
}

func TestADropWithoutATerminal(t *testing.T) {
	stub := &adminStub{answers: map[string]any{"DELETE /v1/webhooks/expenses.old/deliveries": rest.Dropped{Webhook: "expenses.old", Dropped: 1}}}
	_, stderr := ask(t, stub, 0, ExitUsage, "drop", "expenses.old")
	expect(t, "stderr", stderr, "error: drop of all deliveries that wait for expenses.old: standard input is no terminal to ask on\n  --yes drops them without asking\n")
	stdout, _ := ask(t, stub, 0, 0, "drop", "expenses.old", "-y", "--json")
	if !strings.Contains(stdout, `"dropped": 1`) || len(stub.requests()) != 1 {
		t.Errorf("--json: %s, asked %q", stdout, stub.requests())
	}
	_, stderr = ask(t, stub, 0, ExitUsage, "drop", "del_a", "expenses.old", "--yes")
	if !strings.Contains(stderr, `takes one webhook, or deliveries: "expenses.old" is a webhook`) {
		t.Errorf("stderr %s", stderr)
	}
	ask(t, stub, 0, ExitUsage, "drop", "--yes")
	// A helper may be called so.
	if !isWebhook("del_x.main") || isWebhook("del_x") || !isWebhook("alerts") {
		t.Error("a webhook and a delivery are not told apart")
	}
}

func refusedConfig(state string) rest.Config {
	return rest.Config{Path: "/etc/p/config.yaml", Generation: 41, LoadedAt: moment(0), State: state, Watching: rest.WatchingPolling,
		RestartRequired: []string{"listen.events", "queue.dir"},
		LastReload: &rest.Reload{At: moment(30), Trigger: rest.TriggerWatch, Result: rest.ReloadRejected, Errors: 3,
			Error: `/etc/p/conf.d/50-crm.yaml:14:7: unknown key "secrt", did you mean "secret"?`}}
}

func TestStatusBeginsWithWhatIsWrongWithTheFiles(t *testing.T) {
	s := rest.Status{Version: "1.2.3", PID: 42, StartedAt: moment(0), Uptime: rest.Millis(90 * time.Second), State: rest.StateDegraded, Config: refusedConfig(rest.ConfigRejected),
		Reasons: []string{"the files are not valid: " + refusedConfig("").LastReload.Error, "the disk is nearly full"},
		Webhooks: []rest.Lane{{Webhook: "expenses.old", State: "held", HeldReason: "removed", HeldUntil: moment(7 * 86400), Counts: rest.Counts{Pending: 12}},
			{Webhook: "expenses.back", State: "held", HeldReason: "returned", Counts: rest.Counts{Pending: 1}},
			{Webhook: "expenses.calm", State: "held", HeldReason: "rate_limited", HeldUntil: moment(100)}}}
	stub := &adminStub{answers: map[string]any{"GET /v1/status": s}}
	stdout, _ := ask(t, stub, 80, 0, "status")
	head := `THE CONFIGURATION FILES ARE INVALID: generation 41 goes on running
  /etc/p/conf.d/50-crm.yaml:14:7: unknown key "secrt", did you mean "secret"?
  (and 2 more)
  To see all of it:       peanuts-relay check /etc/p/config.yaml
  To put it right:        correct the files and save them; they are read at once
  To have the files back: peanuts-relay config rollback 41

state       degraded: the disk is nearly full
`
	if !strings.HasPrefix(stdout, head) {
		t.Errorf("got\n%s", stdout)
	}
	for _, want := range []string{"            restart required: listen.events, queue.dir\nreload      rejected 2025-01-15 14:30:30, asked for by a changed file\n",
		"            changed files are noticed by polling: the system reports none\n", "held: r…imited        0          0        0       0  in 10s\n", `
expenses.old left the configuration: 12 deliveries wait for its return and fail
2025-01-22 14:30:00; peanuts-relay drop expenses.old discards them now
expenses.back came back with another sink or host while 1 delivery waited:
peanuts-relay enable expenses.back sends them there, peanuts-relay drop
expenses.back discards them
`} {
		if !strings.Contains(stdout, want) {
			t.Errorf("%q is missing from\n%s", want, stdout)
		}
	}
	s.Config = refusedConfig(rest.ConfigLastKnownGood)
	stub.answers["GET /v1/status"] = s
	stdout, _ = ask(t, stub, 0, 0, "status")
	if !strings.HasPrefix(stdout, "THE CONFIGURATION FILES ARE INVALID: the daemon started with the last known good ones, generation 41\n") {
		t.Errorf("got\n%s", stdout)
	}
	s.Config = refusedConfig(rest.ConfigCurrent)
	stub.answers["GET /v1/status"] = s
	stdout, _ = ask(t, stub, 0, 0, "status")
	if !strings.HasPrefix(stdout, "state ") {
		t.Errorf("got\n%s", stdout)
	}
}

// An operator who broke the file asks what is wrong, and the file cannot say
// where the daemon listens.
func TestADaemonIsFoundThroughABrokenFile(t *testing.T) {
	dir := shortTempDir(t)
	path := filepath.Join(dir, "config.yaml")
	stub := &adminStub{answers: map[string]any{"GET /v1/status": rest.Status{State: "degraded", Config: rest.Config{Path: path}}}}
	socket := stub.start(t)
	if err := os.WriteFile(path, []byte("listen:\n  admin: "+socket+"\nhelpers: [\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := runMain(t, Streams{Now: testNow}, "status", "--config", path)
	if code != 0 || !strings.HasPrefix(stdout, "state       degraded\n") {
		t.Errorf("exit status %d, %s%s", code, stdout, stderr)
	}
	if !strings.HasPrefix(stderr, "warning: ") || !strings.HasSuffix(stderr, "; asking the daemon at "+socket+"\n") {
		t.Errorf("stderr %q", stderr)
	}
	// A daemon of another file is not the one that is meant.
	stub.answers["GET /v1/status"] = rest.Status{Config: rest.Config{Path: filepath.Join(dir, "other.yaml")}}
	code, _, stderr = runMain(t, Streams{}, "drop", "expenses.old", "--yes", "--config", path)
	if code != ExitConfig || !strings.Contains(stderr, "find the daemon's socket") {
		t.Errorf("exit status %d, %s", code, stderr)
	}
	for _, asked := range stub.requests() {
		if asked != "GET /v1/status" {
			t.Errorf("the wrong daemon was asked %q", asked)
		}
	}
}

// A slip of the operator must not stop the programs that send.
func TestEventsAreSentThroughABrokenFile(t *testing.T) {
	path := filepath.Join(shortTempDir(t), "config.yaml")
	stub := &adminStub{answers: map[string]any{"POST /v1/events": map[string]any{"id": "evt_1", "deliveries": []any{}, "skipped": []any{}}}}
	socket := stub.start(t)
	stub.answers["GET /v1/status"] = rest.Status{Config: rest.Config{Path: path}, Listen: rest.Listen{Events: socket}}
	for name, listen := range map[string]string{"asked": "  admin: " + socket, "as the file says": "  events: " + socket} {
		if err := os.WriteFile(path, []byte("listen:\n"+listen+"\nhelpers: [\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		code, stdout, stderr := runMain(t, Streams{}, "send", "--helper", "crm", "--event", "created", "--entry", "e1", "--config", path)
		if code != 0 || !strings.Contains(stdout, "evt_1") || !strings.HasPrefix(stderr, "warning: ") || !strings.Contains(stderr, "; sending to "+socket+"\n") {
			t.Errorf("%s: exit status %d, %s%s", name, code, stdout, stderr)
		}
	}
}

func TestAFormerConfigurationThatIsNotKept(t *testing.T) {
	err := refusal(&adminclient.Error{Code: rest.CodeNotFound, Field: "generation", Message: "no such configuration"})
	if f, ok := errors.AsType[*fault](err); !ok || f.hint != "peanuts-relay config history lists them" {
		t.Errorf("%+v", err)
	}
}
