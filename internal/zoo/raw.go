package zoo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
	"github.com/peanutsapp/peanuts-relay/sinks"
)

// maxReceive is the largest message that a plugin takes, in bytes.
const maxReceive = 32 << 20

// raw is a plugin without package sinks. As it is it behaves; before runs first in every
// call and may do anything, after may change the results of Deliver.
type raw struct {
	sinkpb.UnimplementedSinkServer
	animal animal
	before func(call string) error
	after  func([]*sinkpb.Result) []*sinkpb.Result

	once  sync.Once
	calls callCount
	mu    sync.Mutex
	held  map[string]rawSettings // by instance
}

type rawSettings struct {
	Record  string `json:"record"`
	DelayMS int    `json:"delay_ms"`
	Token   string `json:"token"`
}

func (a animal) raw() *raw {
	return &raw{
		animal: a,
		before: func(string) error { return nil },
		after:  func(rs []*sinkpb.Result) []*sinkpb.Result { return rs },
		held:   map[string]rawSettings{},
	}
}

func (r *raw) Describe(context.Context, *sinkpb.DescribeRequest) (*sinkpb.DescribeResponse, error) {
	if err := r.before("describe"); err != nil {
		return nil, err
	}
	schema, err := sinks.Schema[Settings]()
	must(err)
	return &sinkpb.DescribeResponse{
		Name: r.animal.name, Version: r.animal.version, Summary: "an animal of the zoo",
		SettingsSchema: schema, Capabilities: &sinkpb.Capabilities{MaxBatch: batchSize},
	}, nil
}

func (r *raw) Validate(context.Context, *sinkpb.ValidateRequest) (*sinkpb.ValidateResponse, error) {
	return &sinkpb.ValidateResponse{}, r.before("validate")
}

func (r *raw) Configure(_ context.Context, in *sinkpb.ConfigureRequest) (*sinkpb.ConfigureResponse, error) {
	if err := r.before("configure"); err != nil {
		return nil, err
	}
	var s rawSettings
	if err := json.Unmarshal(in.GetSettingsJson(), &s); err != nil {
		return &sinkpb.ConfigureResponse{Diagnostics: []*sinkpb.Diagnostic{{Summary: err.Error()}}}, nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held[in.GetInstance()] = s
	return &sinkpb.ConfigureResponse{}, nil
}

func (r *raw) Close(_ context.Context, in *sinkpb.CloseRequest) (*sinkpb.CloseResponse, error) {
	if err := r.before("close"); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.held, in.GetInstance())
	return &sinkpb.CloseResponse{}, nil
}

func (r *raw) Deliver(ctx context.Context, in *sinkpb.DeliverRequest) (*sinkpb.DeliverResponse, error) {
	r.mu.Lock()
	s, ok := r.held[in.GetInstance()]
	r.mu.Unlock()
	if !ok {
		return nil, status.Error(codes.NotFound, "unknown instance")
	}
	call := r.calls.n.Add(1)
	var records []Record
	var steers []steer
	for _, d := range in.GetDeliveries() {
		st := steering(d.GetEntry().GetDataJson(), int(d.GetAttempt()))
		steers = append(steers, st)
		records = append(records, Record{os.Getpid(), call, d.GetId(), d.GetWebhook(), d.GetEvent(), d.GetEntry().GetId(), int(d.GetAttempt()), d.GetSequence(), string(d.GetState()), st.Do, hash(d.GetPayload())})
	}
	write(s.Record, records)
	if err := r.before("deliver"); err != nil {
		return nil, err
	}
	select {
	case <-time.After(time.Duration(s.DelayMS) * time.Millisecond):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	var results []*sinkpb.Result
	for i, d := range in.GetDeliveries() {
		receipt, err := steers[i].act(ctx, d.GetState(), s.Token)
		results = append(results, result(d.GetId(), receipt, err))
	}
	return &sinkpb.DeliverResponse{Results: r.after(results)}, nil
}

func result(id string, r sinks.Receipt, err error) *sinkpb.Result {
	v := sinks.VerdictOf(err)
	out := &sinkpb.Result{DeliveryId: id, Outcome: sinkpb.Outcome(v.Outcome), Code: v.Code, Message: r.Message, RemoteUrl: r.RemoteURL}
	if err != nil {
		out.Message = err.Error()
	}
	if v.After > 0 {
		out.RetryAfter = durationpb.New(v.After)
	}
	return out
}

func (r *raw) Health(context.Context, *sinkpb.HealthRequest) (*sinkpb.HealthResponse, error) {
	return &sinkpb.HealthResponse{Healthy: true}, r.before("health")
}

func (r *raw) Drain(context.Context, *sinkpb.DrainRequest) (*sinkpb.DrainResponse, error) {
	return &sinkpb.DrainResponse{}, r.before("drain")
}

// handshake is what the animals say of themselves when they are to be believed.
func handshake() plugin.HandshakeConfig {
	return plugin.HandshakeConfig{
		ProtocolVersion: sinks.ProtocolVersion, MagicCookieKey: sinks.MagicCookieKey, MagicCookieValue: sinks.MagicCookieValue,
	}
}

// served is a service as go-plugin wants it.
type served struct {
	plugin.NetRPCUnsupportedPlugin
	sink sinkpb.SinkServer
}

func (s *served) GRPCServer(_ *plugin.GRPCBroker, g *grpc.Server) error {
	sinkpb.RegisterSinkServer(g, s.sink)
	return nil
}

func (*served) GRPCClient(context.Context, *plugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, errors.New("a plugin serves")
}

// serve serves with go-plugin until the host's Shutdown, or until its end of stdin.
func (r *raw) serve() {
	exitWithHost()
	r.serveAs(handshake())
}

func (r *raw) serveAs(h plugin.HandshakeConfig) {
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig: h,
		Plugins:         plugin.PluginSet{sinks.PluginName: &served{sink: r}},
		GRPCServer: func(o []grpc.ServerOption) *grpc.Server {
			return grpc.NewServer(append(o, grpc.MaxRecvMsgSize(maxReceive))...)
		},
	})
}

// exitWithHost ends the process when standard input does.
func exitWithHost() {
	go func() {
		_, _ = os.Stdin.Read(make([]byte, 1))
		os.Exit(0)
	}()
}

// socketDir is where sockets belong.
func socketDir() string { return os.Getenv(plugin.EnvUnixSocketDir) }

// listen makes a socket where the host wants it.
func listen() net.Listener {
	l, err := net.Listen("unix", filepath.Join(socketDir(), "zoo"))
	must(err)
	return l
}

// say prints the handshake of a listener.
func say(l net.Listener) {
	fmt.Printf("1|1|%s|%s|grpc\n", l.Addr().Network(), l.Addr())
}

// bare serves plain gRPC, as a plugin in another language does.
func (a animal) bare(r *raw) {
	exitWithHost()
	g := grpc.NewServer(grpc.MaxRecvMsgSize(maxReceive))
	sinkpb.RegisterSinkServer(g, r)
	l := listen()
	say(l)
	must(g.Serve(l))
}
