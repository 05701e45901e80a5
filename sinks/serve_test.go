package sinks_test

import (
	"os"
	"os/exec"
	"testing"

	"context"
	hclog "github.com/hashicorp/go-hclog"
	plugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
	"github.com/peanutsapp/peanuts-relay/sinks"
)

type clientPlugin struct{ plugin.NetRPCUnsupportedPlugin }

func (clientPlugin) GRPCServer(*plugin.GRPCBroker, *grpc.Server) error { return nil }
func (clientPlugin) GRPCClient(_ context.Context, _ *plugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return sinkpb.NewSinkClient(conn), nil
}

func TestServeAnswersGoPluginsOwnClient(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "SINKS_TEST_PLAY=1")
	client := plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig:  plugin.HandshakeConfig{ProtocolVersion: sinks.ProtocolVersion, MagicCookieKey: sinks.MagicCookieKey, MagicCookieValue: sinks.MagicCookieValue},
		Plugins:          plugin.PluginSet{sinks.PluginName: clientPlugin{}},
		Cmd:              cmd,
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		Logger:           hclog.NewNullLogger(),
	})
	defer client.Kill()
	protocol, err := client.Client()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := protocol.Dispense(sinks.PluginName)
	if err != nil {
		t.Fatal(err)
	}
	about, err := raw.(sinkpb.SinkClient).Describe(t.Context(), &sinkpb.DescribeRequest{})
	if err != nil || about.GetName() != "played" || about.GetVersion() != "1.2.3" {
		t.Fatalf("%v, %v", about, err)
	}
	t.Logf("%s", about.SettingsSchema)
}
