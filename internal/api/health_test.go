package api

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/queue"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

// The table of docs/monitoring.md.
func TestHealthInEachState(t *testing.T) {
	stopping := errors.New("the daemon is stopping")
	for name, c := range map[string]struct {
		state       string
		gate        error
		live, ready int
		why         string
	}{
		"running":            {queue.StateOK, nil, 200, 200, ""},
		"starting":           {queue.StateStarting, nil, 200, 503, "not open yet"},
		"start without room": {queue.StateStarting, errors.New("too little disk space"), 200, 503, "too little disk space"},
		"no room any more":   {queue.StateNoSpace, nil, 200, 503, "too little disk space"},
		"storage failed":     {queue.StateStopped, queue.ErrStopped, 503, 503, "stopped"},
		"stopping":           {queue.StateOK, stopping, 200, 503, "stopping"},
	} {
		w := newWorld(t)
		w.store.stats.State = c.state
		w.Ready = func() error { return c.gate }
		for _, h := range []struct {
			path string
			want int
		}{{"/livez", c.live}, {"/readyz", c.ready}} {
			rec := w.request("GET", h.path, "")
			var doc rest.Health
			if err := json.Unmarshal(rec.Body.Bytes(), &doc); err != nil || rec.Code != h.want || doc.OK != (h.want == 200) {
				t.Errorf("%s: %s answers %d %s, %v", name, h.path, rec.Code, rec.Body, err)
			}
			if why := strings.Join(doc.Reasons, "; "); h.path == "/readyz" && (!strings.Contains(why, c.why) || (why == "") != (c.why == "")) {
				t.Errorf("%s: the reasons are %q, want %q", name, why, c.why)
			}
		}
		if got := parseMetrics(t, w)["peanuts_relay_ready"]; got != truth(c.ready == 200) {
			t.Errorf("%s: peanuts_relay_ready is %v", name, got)
		}
	}
}
