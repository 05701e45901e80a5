package sinks

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
)

// service answers the calls of the relay.
type service struct {
	sinkpb.UnimplementedSinkServer
	kit *kit
	log slog.Handler

	mu        sync.Mutex // guards the rest
	instances map[string]*instance
	calls     int           // of Deliver, under way
	idle      chan struct{} // closed when draining and calls is 0
	draining  bool
}

func newService(k *kit, log slog.Handler) *service {
	return &service{kit: k, log: log, instances: map[string]*instance{}, idle: make(chan struct{})}
}

func (s *service) Describe(context.Context, *sinkpb.DescribeRequest) (*sinkpb.DescribeResponse, error) {
	return s.kit.about, nil
}

func (s *service) Validate(ctx context.Context, r *sinkpb.ValidateRequest) (*sinkpb.ValidateResponse, error) {
	d, found := s.check(ctx, r.GetSettingsJson(), Env{}, r.GetOnline())
	return &sinkpb.ValidateResponse{Diagnostics: toDiagnostics(found, d.mask)}, nil
}

// check decodes settings and lets them look at themselves.
func (s *service) check(ctx context.Context, settings []byte, env Env, online bool) (decoded, []Diagnostic) {
	d, err := s.kit.decode(settings)
	if err != nil {
		return d, diagnose(err, d.mask)
	}
	if d.validator == nil {
		return d, nil
	}
	env.Log = s.logger(env.Webhook, d.mask)
	v := Validation{Online: online, Env: env}
	if err := guard(env.Log, "Validate", func() { d.validator.Validate(ctx, &v) }); err != nil {
		v.Error("", err.Error(), "")
	}
	return d, v.diagnostics
}

func (s *service) logger(webhook string, mask *masker) *slog.Logger {
	log := slog.New(maskHandler{s.log, mask})
	if webhook != "" {
		log = log.With("webhook", webhook)
	}
	return log
}

func (s *service) Configure(ctx context.Context, r *sinkpb.ConfigureRequest) (*sinkpb.ConfigureResponse, error) {
	env := Env{Webhook: r.GetWebhook(), HostVersion: r.GetHostVersion()}
	d, found := s.check(ctx, r.GetSettingsJson(), env, false)
	if slices.ContainsFunc(found, func(d Diagnostic) bool { return !d.Warning }) {
		return &sinkpb.ConfigureResponse{Diagnostics: toDiagnostics(found, d.mask)}, nil
	}
	env.Log = s.logger(env.Webhook, d.mask)
	var sink Sink
	var err error
	if panicked := guard(env.Log, "Open", func() { sink, err = d.open(ctx, env) }); panicked != nil {
		err = panicked
	}
	if err == nil && sink == nil {
		err = fmt.Errorf("the sink %s opened to nothing", s.kit.name)
	}
	if _, batches := sink.(BatchSink); err == nil && !batches && s.kit.about.GetCapabilities().GetMaxBatch() > 1 {
		closeSink(sink, env.Log)
		err = fmt.Errorf("the sink %s says MaxBatch, and what it opened is no BatchSink", s.kit.name)
	}
	if err != nil {
		found = append(found, diagnose(err, d.mask)...)
		return &sinkpb.ConfigureResponse{Diagnostics: toDiagnostics(found, d.mask)}, nil
	}
	if err := s.install(ctx, r.GetInstance(), newInstance(sink, env, d.mask)); err != nil {
		return nil, err
	}
	return &sinkpb.ConfigureResponse{Diagnostics: toDiagnostics(found, d.mask)}, nil
}

// install makes an instance the one of that name, and ends the one before it.
func (s *service) install(ctx context.Context, name string, i *instance) error {
	s.mu.Lock()
	if s.draining {
		s.mu.Unlock()
		i.end(ctx)
		return errDraining()
	}
	old := s.instances[name]
	s.instances[name] = i
	s.mu.Unlock()
	if old != nil {
		old.end(ctx)
	}
	return nil
}

func errDraining() error { return status.Error(codes.Unavailable, "the sink is ending") }

func (s *service) Close(ctx context.Context, r *sinkpb.CloseRequest) (*sinkpb.CloseResponse, error) {
	s.mu.Lock()
	i := s.instances[r.GetInstance()]
	delete(s.instances, r.GetInstance())
	s.mu.Unlock()
	if i != nil {
		i.end(ctx)
	}
	return &sinkpb.CloseResponse{}, nil
}

func (s *service) Deliver(ctx context.Context, r *sinkpb.DeliverRequest) (*sinkpb.DeliverResponse, error) {
	i, err := s.begin(r.GetInstance())
	if err != nil {
		return nil, err
	}
	defer s.done(i)
	return &sinkpb.DeliverResponse{Results: i.deliver(ctx, r.GetDeliveries())}, nil
}

// begin counts a call, which holds its instance open until done.
func (s *service) begin(name string) (*instance, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return nil, errDraining()
	}
	i := s.instances[name]
	if i == nil || !i.begin() {
		return nil, status.Error(codes.NotFound, "no such instance; Configure makes one")
	}
	s.calls++
	return i, nil
}

func (s *service) done(i *instance) {
	i.done()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls--
	if s.draining && s.calls == 0 {
		close(s.idle)
	}
}

// Health asks every sink at once, and waits for none that is slow to answer.
func (s *service) Health(ctx context.Context, _ *sinkpb.HealthRequest) (*sinkpb.HealthResponse, error) {
	all := s.all()
	answers := make([]string, len(all))
	var wg sync.WaitGroup
	for n, i := range all {
		wg.Go(func() { answers[n] = i.healthy(ctx) })
	}
	wg.Wait()
	wrong := slices.DeleteFunc(answers, func(a string) bool { return a == "" })
	slices.Sort(wrong)
	return &sinkpb.HealthResponse{Healthy: len(wrong) == 0, Message: cutBytes(valid(clean(strings.Join(wrong, "; "))), maxMessage)}, nil
}

func (s *service) all() []*instance {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*instance, 0, len(s.instances))
	for _, i := range s.instances {
		list = append(list, i)
	}
	return list
}

// Drain refuses what comes, waits for what is under way, and closes every sink: none
// gets a delivery any more.
func (s *service) Drain(ctx context.Context, _ *sinkpb.DrainRequest) (*sinkpb.DrainResponse, error) {
	s.mu.Lock()
	if !s.draining {
		s.draining = true
		if s.calls == 0 {
			close(s.idle)
		}
	}
	s.mu.Unlock()
	select {
	case <-s.idle:
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	for _, i := range s.all() {
		i.end(ctx)
	}
	return &sinkpb.DrainResponse{}, nil
}

// guard runs a method of the author's. A panic becomes an error, and its stack a line
// of the log. What it panicked with is left out unless the runtime made it: it may be
// made of a payload.
func guard(log *slog.Logger, method string, f func()) (err error) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		what := fmt.Sprintf("a value of type %T", p)
		if e, ok := p.(runtime.Error); ok {
			what = e.Error()
		}
		log.Error("panic in a sink", "method", method, "panic", what, "stack", string(debug.Stack()))
		err = fmt.Errorf("panic in %s: %s; the stack is in the log", method, what)
	}()
	f()
	return nil
}

// closeSink ends a sink that can be ended.
func closeSink(sink Sink, log *slog.Logger) {
	c, ok := sink.(io.Closer)
	if !ok {
		return
	}
	var err error
	if panicked := guard(log, "Close", func() { err = c.Close() }); panicked == nil && err != nil {
		log.Warn("closing the sink failed", "err", err)
	}
}
