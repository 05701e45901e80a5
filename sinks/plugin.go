package sinks

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"regexp"

	"google.golang.org/grpc"

	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
)

// maxReceive is the largest message that a sink takes; grpc's own limit of 4 MiB is less
// than one batch.
const maxReceive = 32 << 20

// kit is a Plugin without its type of settings.
type kit struct {
	name   string
	about  *sinkpb.DescribeResponse
	shape  *shape
	decode func(settings []byte) (decoded, error)
}

// decoded are settings that passed the schema.
type decoded struct {
	mask      *masker
	validator Validator // nil: there is none
	open      func(ctx context.Context, env Env) (Sink, error)
}

// kit makes sure that the plugin is described well.
func (p Plugin[C]) kit() (*kit, error) {
	if !regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`).MatchString(p.Name) {
		return nil, fmt.Errorf("plugin name %q: want [a-z0-9][a-z0-9-]{0,62}", p.Name)
	}
	if p.Open == nil {
		return nil, fmt.Errorf("plugin %s: Open is missing", p.Name)
	}
	s, err := shapeOf(reflect.TypeFor[C]())
	if err != nil {
		return nil, fmt.Errorf("plugin %s: %w", p.Name, err)
	}
	schema, err := Schema[C]()
	if err != nil {
		return nil, fmt.Errorf("plugin %s: %w", p.Name, err)
	}
	k := &kit{name: p.Name, shape: s, about: &sinkpb.DescribeResponse{
		Name:           p.Name,
		Version:        valid(p.Version),
		Summary:        valid(p.Summary),
		Homepage:       valid(p.Homepage),
		SettingsSchema: schema,
		Capabilities:   toCapabilities(p.Capabilities),
	}}
	k.decode = func(settings []byte) (decoded, error) {
		c := new(C)
		into := reflect.ValueOf(c).Elem()
		if err := s.decodeSettings(settings, into); err != nil {
			return decoded{}, err
		}
		d := decoded{mask: newMasker(s, into)}
		if v, ok := any(c).(Validator); ok { // the methods of a pointer are those of the value too
			d.validator = v
		}
		d.open = func(ctx context.Context, env Env) (Sink, error) { return p.Open(ctx, env, *c) }
		return d, nil
	}
	return k, nil
}

// Server is the gRPC service that [Serve] serves, for tests and other transports. It
// takes messages of up to 32 MiB. It panics when the plugin is described wrongly: no
// name, no Open, a tag that makes no sense. Its sinks log to [slog.Default].
func (p Plugin[C]) Server() *grpc.Server {
	k, err := p.kit()
	if err != nil {
		panic("sinks: " + err.Error())
	}
	server := grpc.NewServer(grpc.MaxRecvMsgSize(maxReceive), grpc.ForceServerCodecV2(sinkpb.Codec{}))
	sinkpb.RegisterSinkServer(server, newService(k, slog.Default().Handler()))
	return server
}

// describe is what the subcommand of that name prints.
func (k *kit) describe() []byte {
	type capabilities struct {
		Events          []string `json:"events,omitempty"`
		MaxBatch        uint32   `json:"max_batch,omitempty"`
		MaxBatchBytes   uint32   `json:"max_batch_bytes,omitempty"`
		MaxConcurrency  uint32   `json:"max_concurrency,omitempty"`
		OrderedPerEntry bool     `json:"ordered_per_entry,omitempty"`
		Idempotent      bool     `json:"idempotent,omitempty"`
		UsesState       bool     `json:"uses_state,omitempty"`
		MaxPerSecond    float64  `json:"max_per_second,omitempty"`
		Burst           uint32   `json:"burst,omitempty"`
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	c := k.about.GetCapabilities()
	err := enc.Encode(struct {
		Name           string          `json:"name"`
		Version        string          `json:"version"`
		Summary        string          `json:"summary"`
		Homepage       string          `json:"homepage"`
		SettingsSchema json.RawMessage `json:"settings_schema"`
		Capabilities   capabilities    `json:"capabilities"`
	}{k.about.GetName(), k.about.GetVersion(), k.about.GetSummary(), k.about.GetHomepage(), k.about.GetSettingsSchema(), capabilities{
		c.GetEvents(), c.GetMaxBatch(), c.GetMaxBatchBytes(), c.GetMaxConcurrency(), c.GetOrderedPerEntry(),
		c.GetIdempotent(), c.GetUsesState(), c.GetMaxPerSecond(), c.GetBurst(),
	}})
	if err != nil {
		panic(errors.Join(errors.New("describe"), err)) // strings and numbers always have a JSON form
	}
	return b.Bytes()
}
