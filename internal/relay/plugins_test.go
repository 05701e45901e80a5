package relay

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/rest"
	"github.com/peanutsapp/peanuts-relay/internal/zoo"
)

// Each of the two waits for the other, which a start one after the other would let it
// do in vain.
func TestPluginsAreStartedAtTheSameTime(t *testing.T) {
	h := newHome(t)
	var webhooks strings.Builder
	for name, other := range map[string]string{"one": "two", "two": "one"} {
		script := fmt.Sprintf("#!/bin/sh\n: >%[1]s\nuntil [ -e %[2]s ]; do sleep 0.01; done\necho found %[2]s\n", h.path(name), h.path(other))
		if err := os.WriteFile(h.path("peanuts-sink-"+name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&webhooks, "      %s: {sink: %s}\n", name, name)
	}
	d := h.start("plugins: {dir: " + h.dir + "}\nhelpers:\n  expenses:\n    webhooks:\n" + webhooks.String())
	s, err := d.Status(t.Context())
	if err != nil || len(s.Plugins) != 2 {
		t.Fatalf("%+v, %v", s.Plugins, err)
	}
	for _, p := range s.Plugins {
		if !strings.Contains(p.LastError, "is no handshake") {
			t.Errorf("when the daemon is ready: %+v", p)
		}
	}
	d.stop()
}

func TestACallThatHangsIsGivenUpAtAStopBeforeAttemptsOfOthersAreAndDoesNotCount(t *testing.T) {
	h := newHome(t)
	zoo.Install(t, h.dir, "healthy")
	file := func(enabled bool) string {
		return fmt.Sprintf("plugins: {dir: %s}\nhelpers: {expenses: {webhooks: {backend: {sink: zoo-healthy, enabled: %t}}}}\n", h.dir, enabled)
	}
	d := h.start(file(true), func(o *Options) { o.drainTime, o.pluginDrainTime = patience, 50*time.Millisecond })
	if status, answer := h.post(`{"id":"id-1","event":"entry.created","helper":"expenses","entry":{"id":"e1","data":{"zoo":"hang"}}}`); status != http.StatusAccepted {
		t.Fatalf("the event was answered %d %s", status, answer)
	}
	d.row("expenses.backend", "in flight", hasStatus(rest.StatusInFlight))
	d.stop()
	d = h.start(file(false))
	if row := d.row("expenses.backend", "held", hasStatus(rest.StatusHeld)); row.Attempts != 0 {
		t.Errorf("%d attempts were counted", row.Attempts)
	}
	d.stop()
}
