package reload

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

const one = `
helpers:
  crm:
    secret: aaaaaaaaaaaaaaaaaaaaaaaa
    webhooks:
      main: {url: "http://127.0.0.1:8081/a"}
`

func TestAnEditIsAppliedAndTold(t *testing.T) {
	s := newSite(t, one)
	if c := s.Status(); c.State != rest.ConfigCurrent || c.Generation != 1 || c.LastReload != nil {
		t.Errorf("before: %+v", c)
	}
	s.run()
	s.write("config.yaml", strings.Replace(one, "8081", "8082", 1))
	got := s.reload()
	if got.Result != rest.ReloadApplied || got.Generation != 2 || len(got.Changes) != 1 || got.Changes[0].ID != "crm.main" ||
		!slices.Equal(got.Changes[0].Fields, []string{"url"}) {
		t.Errorf("%+v", got)
	}
	if s.commits() != 1 {
		t.Errorf("%d commits", s.commits())
	}
	if log := s.log.String(); !strings.Contains(log, `msg="webhook changed" id=crm.main fields=[url]`) || strings.Contains(log, ":8082") {
		t.Error(log)
	}
	if c := s.Status(); c.State != rest.ConfigCurrent || c.Digest != got.Digest || c.FileDigest != got.Digest || c.LastReload.Result != rest.ReloadApplied {
		t.Errorf("after: %+v", c)
	}
	entries := s.Entries().Entries
	if len(entries) != 2 || !entries[0].Running || entries[0].Generation != 2 || entries[1].Trigger != rest.TriggerStart || entries[1].Running {
		t.Errorf("%+v", entries)
	}
	if !s.told("RELOADING=1") || !s.told("STATUS=configuration 2 runs") {
		t.Error(s.notes)
	}
}

func TestARejectedEditChangesNothingAndIsLoudUntilItIsPutRight(t *testing.T) {
	s := newSite(t, one)
	s.run()
	s.write("config.yaml", one+"nonsense: 1\n")
	got := s.reload()
	if got.Result != rest.ReloadRejected || got.Generation != 1 || len(got.Findings) != 1 || got.Findings[0].Line != 7 ||
		!strings.Contains(got.Report, `unknown key "nonsense"`) {
		t.Errorf("%+v", got)
	}
	if s.commits() != 0 || s.Degraded() == "" || s.Status().State != rest.ConfigRejected {
		t.Errorf("%d commits, %q, %+v", s.commits(), s.Degraded(), s.Status())
	}
	if c := s.Status(); c.Digest == c.FileDigest || !strings.Contains(c.LastReload.Error, "config.yaml:7:1") {
		t.Errorf("%+v", c)
	}
	if !strings.Contains(s.log.String(), `level=ERROR msg="configuration rejected`) || !s.told("STATUS=configuration rejected (1 error)") {
		t.Error(s.log.String())
	}
	s.write("config.yaml", one)
	if got := s.reload(); got.Result != rest.ReloadUnchanged || got.Generation != 1 {
		t.Errorf("%+v", got)
	}
	if s.commits() != 0 || s.Degraded() != "" || s.Status().State != rest.ConfigCurrent {
		t.Errorf("%d commits, %q, %+v", s.commits(), s.Degraded(), s.Status())
	}
	if n := s.Counts()[Count{rest.TriggerReload, rest.ReloadRejected}]; n != 1 {
		t.Errorf("%v", s.Counts())
	}
}

func TestWhatCannotBePreparedIsRejected(t *testing.T) {
	s := newSite(t, one)
	s.run()
	s.mu.Lock()
	s.refuse = errNoPort
	s.mu.Unlock()
	s.write("config.yaml", strings.Replace(one, "8081", "8082", 1))
	got := s.reload()
	if got.Result != rest.ReloadRejected || len(got.Findings) != 1 || got.Findings[0].Message != errNoPort.Error() || s.commits() != 0 {
		t.Errorf("%+v", got)
	}
	s.set(func() { s.refuse = &WebhookError{Webhook: "crm.main", Err: errNoPort} })
	if got := s.reload(); len(got.Findings) != 1 || got.Findings[0].Path != "/helpers/crm/webhooks/main" || got.Findings[0].Line == 0 || got.Findings[0].Message != "webhook crm.main: "+errNoPort.Error() {
		t.Errorf("a webhook is to blame: %+v", got)
	}
	s.set(func() { s.refuse = nil })
	if got := s.reload(); got.Result != rest.ReloadApplied || s.commits() != 1 {
		t.Errorf("asked again: %+v", got)
	}
}

func TestWhatCouldNotBePreparedIsTriedAgainWithoutBeingAskedFor(t *testing.T) {
	s := newSite(t, one)
	s.run()
	s.mu.Lock()
	s.refuse = errNoPort
	s.mu.Unlock()
	s.write("config.yaml", strings.Replace(one, "8081", "8082", 1))
	if got := s.reload(); got.Result != rest.ReloadRejected {
		t.Errorf("%+v", got)
	}
	s.watcher.changed <- struct{}{}
	s.until("second try", func() bool { return s.Counts()[Count{rest.TriggerWatch, rest.ReloadRejected}] == 1 })
	s.mu.Lock()
	s.refuse = nil
	s.mu.Unlock()
	s.watcher.changed <- struct{}{} // nothing changed: it is time to compare
	s.until("reload", func() bool { return s.commits() == 1 && s.Status().State == rest.ConfigCurrent })
}

func TestAStormOfRequestsIsFewReloadsAndEachSeesWhatWasSavedBefore(t *testing.T) {
	s := newSite(t, one)
	s.run()
	s.mu.Lock()
	s.gate = make(chan struct{})
	s.mu.Unlock()
	edit := func(i int) { s.write("config.yaml", strings.Replace(one, "8081", fmt.Sprint(9000+i), 1)) }
	edit(0)
	var wg sync.WaitGroup
	wg.Go(func() { s.reload() })
	s.until("first reload", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.prepared == 1 })
	edit(1)
	_, report := s.load(nil)
	results := make([]rest.ReloadResult, 100)
	for i := range results {
		wg.Go(func() { results[i] = s.reload() })
	}
	s.until("all requests", func() bool { s.Reloader.mu.Lock(); defer s.Reloader.mu.Unlock(); return len(s.waiting) == len(results) })
	close(s.gate)
	wg.Wait()
	for i, got := range results {
		if got.Digest != report.Digest || got.Generation != 3 {
			t.Fatalf("%d: %+v", i, got)
		}
	}
	if s.commits() != 2 {
		t.Errorf("%d commits", s.commits())
	}
}

func TestTheWatcherCausesAReloadOnlyWhenContentsChanged(t *testing.T) {
	s := newSite(t, one)
	s.run()
	s.watcher.changed <- struct{}{}
	s.write("config.yaml", one+"# a comment\n")
	s.watcher.changed <- struct{}{}
	s.until("reload", func() bool { return s.commits() == 1 })
	s.watcher.changed <- struct{}{}
	s.write("config.yaml", "nonsense: 1\n")
	s.watcher.changed <- struct{}{}
	s.until("rejection", func() bool { return s.Status().State == rest.ConfigRejected })
	s.watcher.changed <- struct{}{}
	s.write("config.yaml", one)
	s.watcher.changed <- struct{}{}
	s.until("return", func() bool { return s.Status().State == rest.ConfigCurrent })
	if n := strings.Count(s.log.String(), "configuration rejected"); n != 1 {
		t.Errorf("%d rejections were told", n)
	}
	if got := s.Counts(); got[Count{rest.TriggerWatch, rest.ReloadRejected}] != 1 || got[Count{rest.TriggerWatch, rest.ReloadApplied}] != 2 {
		t.Errorf("%v", got)
	}
}

func TestAChangeBeforeTheWatcherRanIsNoticed(t *testing.T) {
	s := newSite(t, one)
	s.write("conf.d/10-more.yaml", "helpers: {crm: {webhooks: {more: {url: \"http://127.0.0.1:8083/b\"}}}}\n")
	s.run()
	s.until("reload", func() bool { return s.commits() == 1 })
}

func TestAHangupReloads(t *testing.T) {
	s := newSite(t, one)
	s.run()
	s.write("config.yaml", one+"log: {level: debug}\n")
	s.hangup <- struct{}{}
	s.until("reload", func() bool { return s.commits() == 1 })
	if e := s.Entries().Entries[0]; e.Trigger != rest.TriggerSignal || e.UID != nil {
		t.Errorf("%+v", e)
	}
}

func TestKeysThatNeedARestartWait(t *testing.T) {
	s := newSite(t, one)
	s.run()
	s.write("config.yaml", one+"listen: {events_mode: \"0600\"}\nlog: {level: debug}\n")
	got := s.reload()
	if got.Result != rest.ReloadApplied || !slices.Equal(got.RestartRequired, []string{"listen.events_mode"}) {
		t.Errorf("%+v", got)
	}
	running := s.committed[0]
	if running.Listen.EventsMode != s.boot.Listen.EventsMode || running.Log.Level != "debug" {
		t.Errorf("%+v %+v", running.Listen, running.Log)
	}
	if c := s.Status(); c.State != rest.ConfigCurrent || !slices.Equal(c.RestartRequired, []string{"listen.events_mode"}) {
		t.Errorf("%+v", c)
	}
	s.write("config.yaml", one)
	if got := s.reload(); len(got.RestartRequired) != 0 {
		t.Errorf("%+v", got)
	}
	var told []string
	for line := range strings.Lines(s.log.String()) {
		if _, text, ok := strings.Cut(line, "level="); ok && strings.Contains(text, "listen.events_mode") {
			told = append(told, strings.TrimSpace(text))
		}
	}
	if !slices.Equal(told, []string{`WARN msg="setting changed; it takes effect at the next start" id=listen.events_mode`,
		`INFO msg="setting changed; it is what runs again" id=listen.events_mode`}) {
		t.Errorf("%q", told)
	}
}

func TestTheNumberOfTheConfigurationGoesOnOverRestarts(t *testing.T) {
	s := newSite(t, one)
	if s.Generation() != 1 {
		t.Errorf("first: %d", s.Generation())
	}
	s.open()
	if s.Generation() != 1 || len(s.Entries().Entries) != 1 {
		t.Errorf("the same again: %d, %+v", s.Generation(), s.Entries())
	}
	s.write("config.yaml", strings.Replace(one, "8081", "8082", 1))
	s.open()
	e := s.Entries().Entries
	if s.Generation() != 2 || len(e) != 2 || !e[0].Running || len(e[0].Changes) != 1 || e[0].Changes[0].ID != "crm.main" {
		t.Errorf("another: %d, %+v", s.Generation(), e)
	}
}

func TestAStartWithTheLastKnownGoodConfigurationSaysSo(t *testing.T) {
	s := newSite(t, one)
	s.write("config.yaml", "helpers: [\n")
	s.open()
	c := s.Status()
	if c.State != rest.ConfigLastKnownGood || c.Generation != 1 || c.Digest == c.FileDigest || !strings.Contains(s.Degraded(), "last known good") {
		t.Errorf("%+v %q", c, s.Degraded())
	}
	s.run()
	if s.reload().Result != rest.ReloadRejected || s.Status().State != rest.ConfigLastKnownGood {
		t.Errorf("still broken: %+v", s.Status())
	}
	s.write("config.yaml", one)
	if s.reload().Result != rest.ReloadUnchanged || s.Status().State != rest.ConfigCurrent || s.Degraded() != "" {
		t.Errorf("put right: %+v", s.Status())
	}
}

func TestARequestIsAnsweredWhenTheDaemonStops(t *testing.T) {
	s := newSite(t, one)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	cancel()
	<-done
	if _, err := s.Reload(t.Context(), Cause{Trigger: rest.TriggerReload}); !errors.Is(err, ErrStopped) {
		t.Error(err)
	}
}

func TestAHistoryThatCannotBeWrittenStopsNoReload(t *testing.T) {
	s := newSite(t, one)
	s.run()
	if err := os.RemoveAll(s.path("history")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.path("history"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s.write("config.yaml", one+"log: {level: debug}\n")
	if got := s.reload(); got.Result != rest.ReloadApplied || s.commits() != 1 {
		t.Errorf("%+v", got)
	}
	if !strings.Contains(s.log.String(), "history of the configuration was not written") {
		t.Error(s.log.String())
	}
}

func TestAReferenceThatIsMendedIsNoticed(t *testing.T) {
	s := newSite(t, one)
	s.run()
	token := s.path("token")
	s.write("config.yaml", strings.Replace(one, "aaaaaaaaaaaaaaaaaaaaaaaa", `"${file:`+token+`}"`, 1))
	if got := s.reload(); got.Result != rest.ReloadRejected {
		t.Fatalf("%+v", got)
	}
	if !slices.Contains(s.watcher.paths.References, token) {
		t.Errorf("not watched: %v", s.watcher.paths)
	}
	s.write("token", "bbbbbbbbbbbbbbbbbbbbbbbbbbbb\n")
	s.watcher.changed <- struct{}{}
	s.until("reload", func() bool { return s.commits() == 1 })
	if w := s.committed[0].Webhooks(); w[0].Secrets[0].Reveal() != "bbbbbbbbbbbbbbbbbbbbbbbbbbbb" {
		t.Error("another secret")
	}
}

func TestWhatAPluginFindsRejectsTheEditAtItsLine(t *testing.T) {
	s := newSite(t, one)
	s.run()
	s.set(func() { s.finding = "the port is closed" })
	s.write("config.yaml", strings.Replace(one, "8081", "8082", 1))
	got := s.reload()
	if got.Result != rest.ReloadRejected || len(got.Findings) != 1 || got.Findings[0].Line != 6 || !strings.Contains(got.Report, "the port is closed") {
		t.Errorf("%+v", got)
	}
	if s.commits() != 0 || s.prepared != 0 {
		t.Errorf("%d commits, %d prepared", s.commits(), s.prepared)
	}
	plan, err := s.Plan(t.Context(), &rest.PlanRequest{})
	if err != nil || plan.Valid || len(plan.Changes) != 0 || len(plan.Findings) != 1 {
		t.Errorf("plan %+v, %v", plan, err)
	}
	s.watcher.changed <- struct{}{} // it is known: nobody asks again
	s.watcher.changed <- struct{}{}
	s.set(func() { s.finding = "" })
	if got := s.reload(); got.Result != rest.ReloadApplied || s.commits() != 1 {
		t.Errorf("%+v, %d commits", got, s.commits())
	}
}

func TestAPluginThatCouldNotBeAskedIsAskedAgain(t *testing.T) {
	s := newSite(t, one)
	s.run()
	s.set(func() { s.finding, s.later = "the plugin did not start", true })
	s.write("config.yaml", strings.Replace(one, "8081", "8082", 1))
	if got := s.reload(); got.Result != rest.ReloadRejected {
		t.Errorf("%+v", got)
	}
	s.set(func() { s.finding, s.later = "", false })
	s.watcher.changed <- struct{}{} // the files are as they were
	s.until("second try", func() bool { return s.commits() == 1 })
}

func TestWhoeverAsksForAReloadHasWhatWaitsForARepairElsewhereTried(t *testing.T) {
	s := newSite(t, one)
	s.run()
	before := s.asked.Load()
	if got := s.reload(); got.Result != rest.ReloadUnchanged || s.asked.Load() != before+1 {
		t.Errorf("%s; told %d times", got.Result, s.asked.Load()-before)
	}
	s.write("config.yaml", "nonsense: true")
	if got := s.reload(); got.Result != rest.ReloadRejected || s.asked.Load() != before+1 {
		t.Errorf("%s; told %d times", got.Result, s.asked.Load()-before)
	}
}

func TestAReplacedExecutableIsTakenOverWhenSomebodyAsks(t *testing.T) {
	s := newSite(t, one)
	s.run()
	s.set(func() { s.outdated = []string{"acme"} })
	s.watcher.changed <- struct{}{} // half of it may be on the disk
	s.watcher.changed <- struct{}{}
	if s.commits() != 0 {
		t.Fatal("the watcher replaced it")
	}
	got := s.reload()
	if got.Result != rest.ReloadApplied || got.Generation != 2 || len(got.Changes) != 1 || got.Changes[0].ID != "acme" ||
		!slices.Equal(got.Changes[0].Fields, []string{"executable"}) || s.commits() != 1 {
		t.Errorf("%+v, %d commits", got, s.commits())
	}
	if log := s.log.String(); !strings.Contains(log, `msg="sink changed" id=acme fields=[executable]`) {
		t.Error(log)
	}
	s.set(func() { s.outdated = nil })
	if got := s.reload(); got.Result != rest.ReloadUnchanged || s.commits() != 1 {
		t.Errorf("%+v, %d commits", got, s.commits())
	}
}
