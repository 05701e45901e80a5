package zoo

import (
	"context"
	"errors"
	"os"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
)

const (
	cookieKey   = "PEANUTS_RELAY_SINK"
	cookieValue = "5e1c7b0a-peanuts-relay-sink-v1"
)

// server is a plugin of go-plugin around any service.
type server struct {
	plugin.NetRPCUnsupportedPlugin
	sink sinkpb.SinkServer
}

func (s *server) GRPCServer(_ *plugin.GRPCBroker, g *grpc.Server) error {
	sinkpb.RegisterSinkServer(g, s.sink)
	return nil
}

func (*server) GRPCClient(context.Context, *plugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, errors.New("a plugin serves")
}

func serve(sink sinkpb.SinkServer) {
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig: plugin.HandshakeConfig{ProtocolVersion: 1, MagicCookieKey: cookieKey, MagicCookieValue: cookieValue},
		Plugins:         plugin.PluginSet{"sink": &server{sink: sink}},
		GRPCServer: func(o []grpc.ServerOption) *grpc.Server {
			return grpc.NewServer(append(o, grpc.MaxRecvMsgSize(32<<20))...)
		},
	})
}

type healthy struct {
	sinkpb.UnimplementedSinkServer
	name string
}

func (h *healthy) Describe(context.Context, *sinkpb.DescribeRequest) (*sinkpb.DescribeResponse, error) {
	return &sinkpb.DescribeResponse{Name: h.name, Version: "1.0.0", Capabilities: &sinkpb.Capabilities{MaxBatch: 10}}, nil
}

func (h *healthy) Drain(context.Context, *sinkpb.DrainRequest) (*sinkpb.DrainResponse, error) {
	return &sinkpb.DrainResponse{}, nil
}

func play(behaviour string) {
	if behaviour == "healthy" {
		serve(&healthy{name: Name(behaviour)})
		return
	}
	os.Exit(2)
}
