package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/adminclient"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
	"github.com/peanutsapp/peanuts-relay/internal/testhost"
)

const dashboardDir = "../docs/examples/dashboard"

// dashboard is the example receiver as a process.
type dashboard struct {
	t       *testing.T
	modules string
	data    string
	port    string // "0" until it is known
	cmd     *exec.Cmd
}

// start runs it until kill; from the second time on, on the same port, which somebody
// may have taken for a moment.
func (d *dashboard) start() {
	d.t.Helper()
	until(d.t, "the dashboard", func() bool { return d.launch() })
}

// launch reports false when the process ended at once.
func (d *dashboard) launch() bool {
	d.t.Helper()
	d.cmd = exec.Command(testhost.Program(d.t, "node"), "server.js")
	d.cmd.Dir = dashboardDir
	d.cmd.Env = append(os.Environ(), "NODE_PATH="+d.modules, "PEANUTS_SECRET="+crashSecret, "DATA_FILE="+d.data, "PORT="+d.port)
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	var said strings.Builder
	d.cmd.Stderr = &said
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	if first, err := lines.ReadString('\n'); err != nil {
		_ = d.cmd.Wait()
		if d.port == "0" || !strings.Contains(said.String(), "EADDRINUSE") {
			d.t.Fatalf("the dashboard ended: %v, %q, %s", err, first, &said)
		}
		return false
	} else if _, err := fmt.Sscanf(first, "listening on %s", &d.port); err != nil {
		d.t.Fatalf("it says %q", first)
	}
	go func() { _, _ = io.Copy(io.Discard, lines) }()
	return true
}

func (d *dashboard) kill() {
	_ = d.cmd.Process.Kill()
	_ = d.cmd.Wait()
}

// figures is what /api/stats answers.
type figures struct {
	Month      string
	Count      int
	Total      float64
	Average    *float64
	ByCategory []category `json:"by_category"`
}

type category struct {
	Category string
	Count    int
	Total    float64
}

func (d *dashboard) stats(month string) (f figures) {
	resp, err := http.Get("http://127.0.0.1:" + d.port + "/api/stats?month=" + month)
	if err != nil {
		return f // it is not up
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&f); err != nil {
		d.t.Error(err)
	}
	return f
}

// expense hands in one event about an entry; at orders those of one entry.
func (s *site) expense(event, entry string, at int, data string) {
	s.t.Helper()
	body := fmt.Sprintf(`{"event":"entry.%s","helper":"expenses","timestamp":%q,"entry":{"id":%q,"created_at":"2025-01-15T00:00:00Z","data":%s}}`,
		event, time.Date(2025, 1, 15, 0, 0, at, 0, time.UTC).Format(time.RFC3339), entry, data)
	resp, err := s.client.Post("http://localhost/v1/events", "application/json", strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		answer, _ := io.ReadAll(resp.Body)
		s.t.Fatalf("an event was answered %s: %s", resp.Status, answer)
	}
}

func TestTheExampleDashboardPassesItsOwnTests(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), testhost.Program(t, "node"), "--test")
	cmd.Dir = dashboardDir
	cmd.Env = append(os.Environ(), "NODE_PATH="+testhost.NodeModules(t, dashboardDir))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("node --test: %v\n%s", err, out)
	}
	if !strings.Contains(string(out), "pass 16\n") {
		t.Errorf("not all tests ran:\n%s", out)
	}
}

// Entries are made, changed and deleted while the receiver is killed and comes back. At
// the end its figures are those of the entries, and sending everything again changes none.
func TestTheExampleDashboardShowsWhatWasSent(t *testing.T) {
	d := &dashboard{t: t, modules: testhost.NodeModules(t, dashboardDir), data: filepath.Join(t.TempDir(), "entries.json"), port: "0"}
	d.start()
	t.Cleanup(func() { d.kill() })
	s := newSite(t, "", "      unused: {url: http://127.0.0.1:1/}")
	text, err := os.ReadFile(s.config())
	if err != nil {
		t.Fatal(err)
	}
	head, _, _ := strings.Cut(string(text), "retry:")
	s.rewrite([]byte(head + `retry: {timeout: 10s, schedule: [50ms, 100ms, 200ms, 400ms, 800ms, 2s, 4s, 8s, 8s, 8s, 8s, 8s]}
helpers:
  expenses:
    secret: ` + crashSecret + `
    webhooks:
      dashboard: {url: "http://127.0.0.1:` + d.port + `/webhook"}
`))
	p := s.up()

	const entries = 40
	for i := range entries {
		if i == entries/2 {
			d.kill() // with deliveries in flight
		}
		entry := fmt.Sprintf("e%d", i)
		s.expense("created", entry, 1, `{"amount":1.10,"category":"Food"}`)
		switch {
		case i%4 == 1:
			s.expense("updated", entry, 2, `{"amount":10,"category":"Rent"}`)
		case i%4 == 2:
			s.expense("deleted", entry, 3, `{}`)
		}
	}
	s.expense("created", "february", 1, `{"amount":99,"category":"Food","date":"2025-02-01"}`)
	d.start()
	average := 4.07 // 122 / 30, rounded
	want := figures{Month: "2025-01", Count: 30, Total: 122, Average: &average,
		ByCategory: []category{{"Rent", 10, 100}, {"Food", 20, 22}}}
	until(t, "the figures", func() bool { return reflect.DeepEqual(d.stats("2025-01"), want) })
	until(t, "the figures of february", func() bool { got := d.stats("2025-02"); return got.Count == 1 && got.Total == 99 })

	success := func() (n int) {
		page, err := s.admin.Deliveries(t.Context(), adminclient.DeliveryQuery{Webhook: "expenses.dashboard", Status: []string{rest.StatusSuccess}, Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		return len(page.Deliveries)
	}
	const all = entries + entries/4*2 + 1
	until(t, "the end of all deliveries", func() bool { return success() == all })
	if _, err := s.admin.Replay(t.Context(), "expenses.dashboard", rest.ReplayRequest{Status: rest.StatusSuccess}); err != nil {
		t.Fatal(err)
	}
	until(t, "the replay", func() bool {
		page, err := s.admin.Deliveries(t.Context(), adminclient.DeliveryQuery{Webhook: "expenses.dashboard", Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range page.Deliveries {
			if row.Status != rest.StatusSuccess || row.Attempts < 2 {
				return false
			}
		}
		return len(page.Deliveries) == all
	})
	d.kill()
	d.start() // what it shows is what is on the disk
	if got := d.stats("2025-01"); !reflect.DeepEqual(got, want) {
		t.Errorf("after everything was sent again it shows %+v", got)
	}
	if result, err := s.admin.Test(t.Context(), "expenses.dashboard", rest.TestRequest{}); err != nil || !result.Delivered {
		t.Errorf("a test: %+v, %v", result, err)
	}
	if got := d.stats("2025-01"); !reflect.DeepEqual(got, want) {
		t.Errorf("a test was stored: %+v", got)
	}
	p.stop()
}
