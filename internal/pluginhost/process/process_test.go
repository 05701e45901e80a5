package process_test

import (
	"context"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/peanutsapp/peanuts-relay/internal/pluginhost/process"
	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
	"github.com/peanutsapp/peanuts-relay/internal/zoo"
)

func TestMain(m *testing.M) {
	zoo.Main()
	goleak.VerifyTestMain(m)
}

func TestAHealthyPluginIsStartedCalledAndStopped(t *testing.T) {
	sockets := t.TempDir()
	os.Chmod(sockets, 0o700)
	p, err := process.Start(t.Context(), process.Options{Sink: "healthy", Path: zoo.Install(t, t.TempDir(), "healthy"), SocketDir: sockets})
	if err != nil {
		t.Fatal(err)
	}
	d, err := p.Client().Describe(t.Context(), &sinkpb.DescribeRequest{})
	if err != nil {
		t.Fatal(err)
	}
	t.Log(d)
	p.Stop(context.Background())
	t.Log(p.Exit())
}
