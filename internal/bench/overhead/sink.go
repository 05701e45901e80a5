package overhead

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/event"
	"github.com/peanutsapp/peanuts-relay/internal/pluginhost"
	"github.com/peanutsapp/peanuts-relay/internal/signing"
	"github.com/peanutsapp/peanuts-relay/sinks"
)

const (
	filePrefix = "peanuts-sink-"
	namePrefix = "noop-" // and the size of a batch
)

// Play plays the plugin and exits when the program was started as one. It is called first
// in main.
func Play() {
	name, _ := strings.CutPrefix(filepath.Base(os.Args[0]), filePrefix)
	size, ok := strings.CutPrefix(name, namePrefix)
	batch, err := strconv.Atoi(size)
	if !ok || err != nil {
		return
	}
	sinks.Serve(sinks.Plugin[settings]{
		Name: name, Version: "1.0.0", Summary: "counts what it gets",
		Capabilities: sinks.Capabilities{MaxBatch: batch},
		Open: func(_ context.Context, _ sinks.Env, s settings) (sinks.Sink, error) {
			if batch > 1 {
				return &batchNoop{noop{report: s.Report}}, nil
			}
			return &noop{report: s.Report}, nil
		},
	})
}

// settings of the plugin.
type settings struct {
	Report string `json:"report" description:"file that gets the count at the end" required:"true"`
}

// install puts this program where it is started as the plugin.
func install(dir string, batch int) (f pluginhost.File, err error) {
	f.Sink = namePrefix + strconv.Itoa(batch)
	f.Path = filepath.Join(dir, filePrefix+f.Sink)
	in, err := os.Open("/proc/self/exe")
	if err != nil {
		return f, err
	}
	defer in.Close()
	out, err := os.OpenFile(f.Path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o700)
	if err != nil {
		return f, err
	}
	_, err = io.Copy(out, in)
	return f, errors.Join(err, out.Close())
}

// noop is the plugin's sink where each delivery goes alone.
type noop struct {
	tally
	report string
}

func (n *noop) Deliver(_ context.Context, d *sinks.Delivery) (sinks.Receipt, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.count(d.Sequence)
	return sinks.Receipt{}, nil
}

// Close writes the report, in one step so that it is read as a whole.
func (n *noop) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	err := os.WriteFile(n.report+".new", fmt.Appendf(nil, "%d %d\n", n.once, n.again), 0o600)
	return errors.Join(err, os.Rename(n.report+".new", n.report))
}

// batchNoop is the plugin's sink with batches.
type batchNoop struct{ noop }

func (n *batchNoop) DeliverBatch(_ context.Context, ds []*sinks.Delivery) ([]sinks.Result, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, d := range ds {
		n.count(d.Sequence)
	}
	return make([]sinks.Result, len(ds)), nil
}

// tally counts the deliveries of one webhook by their sequence.
type tally struct {
	mu          sync.Mutex // guards the rest
	seen        []uint64   // a bit for each sequence
	once, again int64
}

// count counts one. The caller holds mu.
func (t *tally) count(seq uint64) {
	word, bit := int(seq/64), uint64(1)<<(seq%64)
	if word >= len(t.seen) {
		t.seen = append(t.seen, make([]uint64, word+1-len(t.seen))...)
	}
	if t.seen[word]&bit != 0 {
		t.again++
		return
	}
	t.seen[word] |= bit
	t.once++
}

// counted is a sink that can be asked at its end what it got.
type counted interface {
	Deliver(ctx context.Context, o *delivery.Outbound, a *delivery.Attempt)
	DeliverBatch(ctx context.Context, os []*delivery.Outbound, as []*delivery.Attempt)
	Held() delivery.HoldReason
	Limits() delivery.Limits
	Close()
	// counts is called after Close.
	counts(ctx context.Context) (once, again int64, err error)
}

// ownSink is a sink in this process, called as the plugin is.
func (l *lab) ownSink(_ context.Context, _ int) (counted, error) {
	return &own{limits: l.limits}, nil
}

type own struct {
	tally
	limits delivery.Limits
}

func (s *own) Deliver(ctx context.Context, o *delivery.Outbound, a *delivery.Attempt) {
	s.DeliverBatch(ctx, []*delivery.Outbound{o}, []*delivery.Attempt{a})
}

func (s *own) DeliverBatch(_ context.Context, os []*delivery.Outbound, as []*delivery.Attempt) {
	began := time.Now()
	s.mu.Lock()
	for _, o := range os {
		s.count(o.Sequence)
	}
	s.mu.Unlock()
	took := time.Since(began)
	for n, o := range os {
		as[n].Number, as[n].Started, as[n].Duration, as[n].Outcome = o.Attempt, began.UTC(), took, delivery.Delivered
	}
}

func (s *own) Held() delivery.HoldReason { return "" }
func (s *own) Limits() delivery.Limits   { return s.limits }
func (s *own) Close()                    {}

func (s *own) counts(context.Context) (once, again int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.once, s.again, nil
}

// contractSink is a sink in this process that gets what the contract of sinks promises: the
// plugin's own, fed by the host's own conversions, without what a process adds.
func (l *lab) contractSink(_ context.Context, _ int) (counted, error) {
	return &contract{own: own{limits: l.limits}, signer: l.signer, sink: new(batchNoop)}, nil
}

// contract takes each payload apart and signs it.
type contract struct {
	own
	signer *signing.Signer
	sink   *batchNoop
}

func (s *contract) Deliver(ctx context.Context, o *delivery.Outbound, a *delivery.Attempt) {
	s.DeliverBatch(ctx, []*delivery.Outbound{o}, []*delivery.Attempt{a})
}

func (s *contract) DeliverBatch(ctx context.Context, os []*delivery.Outbound, as []*delivery.Attempt) {
	began := time.Now()
	ds, list := make([]sinks.Delivery, len(os)), make([]*sinks.Delivery, len(os))
	ok := true
	for n, o := range os {
		as[n].Number, as[n].Started = o.Attempt, began.UTC()
		as[n].Signatures = s.signer.Sign(nil, o.DeliveryID, began, o.Payload)
		p, whole := event.Split(o.Payload)
		ok = ok && whole
		d := &ds[n]
		*d = sinks.Delivery{ID: o.DeliveryID, Webhook: o.Webhook, EventID: o.EventID, Event: o.EventType, Timestamp: p.Timestamp,
			Helper:  sinks.Helper{ID: p.Helper.ID, Name: p.Helper.Name, Command: p.Helper.Command},
			Entry:   sinks.Entry{ID: o.EntryID, CreatedAt: p.CreatedAt, Data: p.Data},
			Attempt: o.Attempt, Payload: o.Payload, Headers: make(map[string]string, len(as[n].Signatures)), State: o.EntryState,
			Sequence: o.Sequence, Test: o.Test}
		if p.HasUser {
			d.User = &sinks.User{ID: p.UserID}
		}
		for _, h := range as[n].Signatures {
			d.Headers[h.Name] = h.Value
		}
		list[n] = d
	}
	results, err := s.sink.DeliverBatch(ctx, list)
	took := time.Since(began)
	for n := range os {
		as[n].Duration, as[n].Outcome = took, delivery.Retry
		if ok && err == nil && sinks.VerdictOf(results[n].Err).Outcome == sinks.OutcomeDelivered {
			as[n].Outcome, as[n].Message, as[n].RemoteURL = delivery.Delivered, results[n].Receipt.Message, results[n].Receipt.RemoteURL
		}
	}
}

func (s *contract) counts(context.Context) (once, again int64, err error) {
	s.sink.mu.Lock()
	defer s.sink.mu.Unlock()
	return s.sink.once, s.sink.again, nil
}

// pluginSink is a webhook of the plugin.
func (l *lab) pluginSink(ctx context.Context, n int) (counted, error) {
	report := filepath.Join(l.dir, "report-"+strconv.Itoa(n))
	if err := os.Remove(report); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	i, found, err := l.host.Open(ctx, pluginhost.InstanceOptions{File: l.file, Webhook: webhook(n), Signer: l.signer,
		Settings: fmt.Appendf(nil, `{"report":%q}`, report)})
	if err != nil {
		return nil, err
	}
	if i == nil {
		return nil, fmt.Errorf("the plugin refuses its settings: %v", found)
	}
	return &remote{i, report}, nil
}

type remote struct {
	*pluginhost.Instance
	report string
}

// counts waits for the plugin's report.
func (r *remote) counts(ctx context.Context) (once, again int64, err error) {
	for {
		b, err := os.ReadFile(r.report)
		switch {
		case err == nil:
			_, err = fmt.Sscan(string(b), &once, &again)
			return once, again, err
		case !errors.Is(err, fs.ErrNotExist):
			return 0, 0, err
		}
		select {
		case <-ctx.Done():
			return 0, 0, fmt.Errorf("the plugin wrote no report: %w", ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}
