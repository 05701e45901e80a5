package cli

import (
	"bytes"
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/peanutsapp/peanuts-relay/sinks"
)

type demoSettings struct {
	URL   sinks.URL    `json:"url" description:"where to POST" required:"true"`
	Token sinks.Secret `json:"token" description:"proves who sends"`
}

type demo struct {
	demoSettings
	client *http.Client
}

// demoSink is the plugin that sessions have.
func demoSink() sinks.Plugin[demoSettings] {
	return sinks.Plugin[demoSettings]{Name: "demo", Version: "1.2.3", Summary: "posts the payload, for sessions",
		Open: func(_ context.Context, env sinks.Env, s demoSettings) (sinks.Sink, error) {
			return demo{s, env.HTTP()}, nil
		}}
}

func (d demo) Deliver(ctx context.Context, delivery *sinks.Delivery) (sinks.Receipt, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.URL.Reveal().String(), bytes.NewReader(delivery.Payload))
	if err != nil {
		return sinks.Receipt{}, sinks.Misconfigured("url", err)
	}
	resp, err := d.client.Do(req)
	if err != nil {
		return sinks.Receipt{}, err
	}
	defer resp.Body.Close()
	return sinks.FromResponse(resp)
}

// TestANewSinkBuildsAndPassesItsTest writes one and does what its README says, with this
// checkout in place of a release.
func TestANewSinkBuildsAndPassesItsTest(t *testing.T) {
	t.Parallel()
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "peanuts-sink-acme")
	var out, errs bytes.Buffer
	status := Main(t.Context(), []string{"sinks", "new", "acme", "--module", "example.com/acme/sink", "--dir", dir}, Streams{Out: &out, Err: &errs}, Deps{Version: "1.4.0"})
	if status != ExitOK {
		t.Fatalf("status %d: %s", status, errs.String())
	}
	written, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil || !strings.Contains(string(written), "module example.com/acme/sink\n") || !strings.Contains(string(written), "peanuts-relay v1.4.0") {
		t.Errorf("go.mod is %q, %v", written, err)
	}
	useCheckout(t, dir, root, string(written))
	for _, args := range [][]string{{"gofmt", "-l", "."}, {"go", "vet", "./..."}, {"go", "build", "-o", "peanuts-sink-acme", "."}, {"go", "test", "./..."}, {"./peanuts-sink-acme", "describe"}} {
		cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod -buildvcs=false", "GOPROXY=off", "GOWORK=off")
		text, err := cmd.CombinedOutput()
		if err != nil || args[0] == "gofmt" && len(text) > 0 {
			t.Fatalf("%q: %v\n%s", args, err, text)
		}
		if args[0] == "./peanuts-sink-acme" && !strings.Contains(string(text), `"name": "acme"`) {
			t.Errorf("describe says %s", text)
		}
	}
}

// useCheckout makes the module of a new sink require what this one does, as `go mod tidy`
// would find out over the network.
func useCheckout(t *testing.T, dir, root, written string) {
	t.Helper()
	ours, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	_, requires, found := strings.Cut(string(ours), "\nrequire (")
	if !found {
		t.Fatal("go.mod requires nothing")
	}
	sums, err := os.ReadFile(filepath.Join(root, "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	mod := written + "\nrequire (" + requires + "\nreplace github.com/peanutsapp/peanuts-relay => " + root + "\n"
	for name, content := range map[string]string{"go.mod": mod, "go.sum": string(sums)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
