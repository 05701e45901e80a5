package relay

import (
	"fmt"
	"os"
	"strings"
	"testing"
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
