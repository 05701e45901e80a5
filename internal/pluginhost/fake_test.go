package pluginhost

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/pluginhost/process"
	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
)

// disk is a file system and an operating system made of memory: executables by path, and
// what processes were started from them.
type disk struct {
	mu       sync.Mutex
	files    map[string]*version
	children []*fakeChild
}

// version is one content of an executable.
type version struct {
	name    string // of the sink
	number  string
	caps    *sinkpb.Capabilities
	schema  string
	refuse  func(n int) error // nil = every start works; n counts from 1
	on      func(ctx context.Context, c *fakeChild, call string, req any) (any, error)
	d       *disk
	started int // under d.mu, like opened
	opened  int // descriptors that are open
}

func (v *version) starts() int {
	v.d.mu.Lock()
	defer v.d.mu.Unlock()
	return v.started
}

func (v *version) descriptors() int {
	v.d.mu.Lock()
	defer v.d.mu.Unlock()
	return v.opened
}

func newDisk() *disk { return &disk{files: map[string]*version{}} }

func (d *disk) put(path string, v *version) *version {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.files[path], v.d = v, d
	return v
}

func (d *disk) open(path, _ string) (executable, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v := d.files[path]
	if v == nil {
		return nil, fmt.Errorf("%s: no such file", path)
	}
	v.opened++
	return &fakeFile{d, path, v}, nil
}

// living are the processes that have not ended.
func (d *disk) living() (out []*fakeChild) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.children {
		select {
		case <-c.done:
		default:
			out = append(out, c)
		}
	}
	return out
}

func (d *disk) started() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.children)
}

type fakeFile struct {
	d    *disk
	path string
	v    *version
}

func (f *fakeFile) Identity() process.Identity {
	return process.Identity{Inode: 1, SHA256: fmt.Sprintf("%p", f.v)}
}

func (f *fakeFile) Changed() bool {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	return f.d.files[f.path] != f.v
}

func (f *fakeFile) Close() error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	f.v.opened--
	return nil
}

func (f *fakeFile) start(ctx context.Context, _ process.Options) (child, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	f.v.started++
	if f.v.refuse != nil {
		if err := f.v.refuse(f.v.started); err != nil {
			return nil, err
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	c := &fakeChild{v: f.v, pid: 1000 + len(f.d.children), done: make(chan struct{}), dying: make(chan struct{}), instances: map[string]string{}}
	f.d.children = append(f.d.children, c)
	return c, nil
}

// fakeChild is a process that works as its version says, and otherwise well.
type fakeChild struct {
	v     *version
	pid   int
	dying chan struct{}
	done  chan struct{}
	exit  process.Exit

	mu        sync.Mutex
	ended     bool
	instances map[string]string // settings
	active    int
	most      int // calls of Deliver at once
	calls     []string
	batches   []*sinkpb.DeliverRequest
}

var _ sinkpb.SinkClient = (*fakeChild)(nil)

func (c *fakeChild) Client() sinkpb.SinkClient { return c }
func (c *fakeChild) PID() int                  { return c.pid }
func (c *fakeChild) Done() <-chan struct{}     { return c.done }
func (c *fakeChild) Exit() process.Exit        { <-c.done; return c.exit }
func (c *fakeChild) Dropped() uint64           { return 7 }

// busiest is how many calls of Deliver there were at once.
func (c *fakeChild) busiest() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.most
}

// sent are the calls of Deliver.
func (c *fakeChild) sent() []*sinkpb.DeliverRequest {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.batches)
}

// die ends the process as it would end by itself.
func (c *fakeChild) die(exit process.Exit) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return
	}
	c.ended, c.exit = true, exit
	close(c.dying)
	close(c.done)
}

func (c *fakeChild) crash() {
	c.die(process.Exit{Status: 2, Stack: "panic: oh no\n\ngoroutine 1 [running]:"})
}

func (c *fakeChild) Abort(dump bool) {
	e := process.Exit{Signal: 9, Killed: true, Asked: true}
	if dump {
		e.Stack = "SIGQUIT: quit\n\ngoroutine 7 [semacquire]:"
	}
	c.die(e)
}

func (c *fakeChild) Stop(context.Context) { c.die(process.Exit{Asked: true}) }

// call does what a call does whatever it is: it notes it, lets the version have its way,
// and fails when the process dies.
func (c *fakeChild) call(ctx context.Context, name string, req any) (any, error) {
	c.mu.Lock()
	c.calls = append(c.calls, name)
	c.mu.Unlock()
	type answer struct {
		resp any
		err  error
	}
	got := make(chan answer, 1)
	go func() {
		var a answer
		if c.v.on != nil {
			a.resp, a.err = c.v.on(ctx, c, name, req)
		}
		got <- a
	}()
	select {
	case a := <-got:
		select {
		case <-c.dying:
		default:
			return a.resp, a.err
		}
	case <-c.dying:
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	<-c.done
	return nil, status.Error(codes.Unavailable, "the sink plugin is gone")
}

func (c *fakeChild) Describe(ctx context.Context, req *sinkpb.DescribeRequest, _ ...grpc.CallOption) (*sinkpb.DescribeResponse, error) {
	resp, err := c.call(ctx, "describe", req)
	if err != nil || resp != nil {
		return as[*sinkpb.DescribeResponse](resp), err
	}
	return &sinkpb.DescribeResponse{Name: c.v.name, Version: c.v.number, Capabilities: c.v.caps, SettingsSchema: []byte(cmp.Or(c.v.schema, `{"type":"object"}`))}, nil
}

func as[T any](v any) T {
	t, _ := v.(T)
	return t
}

func (c *fakeChild) Validate(ctx context.Context, req *sinkpb.ValidateRequest, _ ...grpc.CallOption) (*sinkpb.ValidateResponse, error) {
	resp, err := c.call(ctx, "validate", req)
	if err != nil || resp != nil {
		return as[*sinkpb.ValidateResponse](resp), err
	}
	return &sinkpb.ValidateResponse{}, nil
}

func (c *fakeChild) Configure(ctx context.Context, req *sinkpb.ConfigureRequest, _ ...grpc.CallOption) (*sinkpb.ConfigureResponse, error) {
	resp, err := c.call(ctx, "configure", req)
	if err != nil || resp != nil {
		return as[*sinkpb.ConfigureResponse](resp), err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.instances[req.GetInstance()] = string(req.GetSettingsJson())
	return &sinkpb.ConfigureResponse{}, nil
}

func (c *fakeChild) Close(ctx context.Context, req *sinkpb.CloseRequest, _ ...grpc.CallOption) (*sinkpb.CloseResponse, error) {
	if _, err := c.call(ctx, "close", req); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.instances, req.GetInstance())
	return &sinkpb.CloseResponse{}, nil
}

func (c *fakeChild) Deliver(ctx context.Context, req *sinkpb.DeliverRequest, _ ...grpc.CallOption) (*sinkpb.DeliverResponse, error) {
	c.mu.Lock()
	c.active++
	c.most = max(c.most, c.active)
	c.batches = append(c.batches, req)
	_, known := c.instances[req.GetInstance()]
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.active--
		c.mu.Unlock()
	}()
	resp, err := c.call(ctx, "deliver", req)
	if err != nil || resp != nil {
		return as[*sinkpb.DeliverResponse](resp), err
	}
	if !known {
		return nil, status.Error(codes.NotFound, "no such instance")
	}
	out := &sinkpb.DeliverResponse{}
	for _, d := range req.GetDeliveries() {
		out.Results = append(out.Results, &sinkpb.Result{DeliveryId: d.GetId(), Outcome: sinkpb.Outcome_OUTCOME_DELIVERED})
	}
	return out, nil
}

func (c *fakeChild) Health(ctx context.Context, req *sinkpb.HealthRequest, _ ...grpc.CallOption) (*sinkpb.HealthResponse, error) {
	resp, err := c.call(ctx, "health", req)
	if err != nil || resp != nil {
		return as[*sinkpb.HealthResponse](resp), err
	}
	return &sinkpb.HealthResponse{Healthy: true}, nil
}

func (c *fakeChild) Drain(context.Context, *sinkpb.DrainRequest, ...grpc.CallOption) (*sinkpb.DrainResponse, error) {
	return nil, errors.New("draining is the process's own")
}

// rig is a host over a disk.
type rig struct {
	*testing.T
	disk  *disk
	host  *Host
	log   *lockedBuffer
	mu    sync.Mutex
	rings int // calls of Changed
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{T: t, disk: newDisk(), log: &lockedBuffer{}}
	r.host = New(Options{Logger: slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug})), SocketDir: t.TempDir() + "/s", Version: "9.9",
		Changed: func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.rings++
		}})
	r.host.open = r.disk.open
	t.Cleanup(func() {
		if err := r.host.Stop(context.Background()); err != nil {
			t.Error(err)
		}
		if n := len(r.disk.living()); n > 0 {
			t.Errorf("%d processes are left", n)
		}
		for path, v := range r.disk.files {
			if n := v.descriptors(); n != 0 {
				t.Errorf("%d descriptors of %s are open", n, path)
			}
		}
	})
	return r
}

func (r *rig) rung() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rings
}

const path = "/sinks/peanuts-sink-fake"

func file() File { return File{Sink: "fake", Path: path} }

func (r *rig) openWebhook(o InstanceOptions) *Instance {
	r.Helper()
	if o.File.Sink == "" {
		o.File = file()
	}
	if o.Webhook == "" {
		o.Webhook = "expenses.sheet"
	}
	i, found, err := r.host.Open(r.Context(), o)
	if err != nil || i == nil {
		r.Fatalf("Open: %v, %v", found, err)
	}
	return i
}

func outbound(id string) *delivery.Outbound {
	return &delivery.Outbound{DeliveryID: "del_" + id, EventID: "evt_" + id, EventType: "entry.created", EntryID: "entry-" + id, Webhook: "expenses.sheet", Attempt: 1,
		Payload: []byte(`{"event":"entry.created","timestamp":"2025-01-15T14:32:00.000Z","helper":{"id":"expenses","name":"Daily","command":"/e"},"entry":{"id":"entry-` + id + `","data":{"amount":42.5},"created_at":"2025-01-15T14:31:00.000Z"},"user":{"id":"u"}}`)}
}

func deliverOne(ctx context.Context, i *Instance, o *delivery.Outbound) *delivery.Attempt {
	a := &delivery.Attempt{}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	i.Deliver(ctx, o, a)
	return a
}

func (r *rig) state() State {
	r.Helper()
	s := r.host.Status()
	if len(s) != 1 {
		r.Fatalf("there are %d plugins", len(s))
	}
	return s[0].State
}

func (r *rig) only() *fakeChild {
	r.Helper()
	l := r.disk.living()
	if len(l) != 1 {
		r.Fatalf("there are %d processes", len(l))
	}
	return l[0]
}
