package relay

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/peanutsapp/peanuts-relay/internal/api"
	"github.com/peanutsapp/peanuts-relay/internal/config"
	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/dispatch"
	"github.com/peanutsapp/peanuts-relay/internal/egress"
	"github.com/peanutsapp/peanuts-relay/internal/httpsink"
	"github.com/peanutsapp/peanuts-relay/internal/ingest"
	"github.com/peanutsapp/peanuts-relay/internal/pluginhost"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
	"github.com/peanutsapp/peanuts-relay/internal/reload"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
	"github.com/peanutsapp/peanuts-relay/internal/retry"
	"github.com/peanutsapp/peanuts-relay/internal/signing"
)

// snapshot is one configuration as the parts see it: targets for the dispatcher
// and the catalogs of both sockets. It is immutable once it is relay.current.
type snapshot struct {
	cfg      *config.Config
	allow    *egress.Policy
	ingest   *ingest.Catalog
	own      *ingest.Helper // of the events about the relay itself
	shown    *api.Catalog
	webhooks map[string]*webhook
	order    []string // ids of webhooks, as in the file
	targets  []*dispatch.Target
	fresh    []dispatch.Sink // made for this snapshot, not taken over
}

// webhook is one webhook of a snapshot.
type webhook struct {
	config.Webhook
	lane   queue.Lane
	hold   delivery.HoldReason
	signer *signing.Signer
	plugin *pluginhost.Instance // nil for the http sink
	sink   dispatch.Sink        // nil when a plugin refused its settings at the daemon's start
}

// sources is what sinks are made of besides their configuration.
type sources struct {
	host *pluginhost.Host
	// patient is true at the daemon's start: what is wrong with a plugin then holds its
	// webhooks and nothing else.
	patient bool
}

// assemble builds what a configuration needs. What has not changed is taken
// over from old, with its open connections.
func assemble(ctx context.Context, cfg *config.Config, old *snapshot, from sources) (*snapshot, error) {
	snap := &snapshot{cfg: cfg, allow: old.allow, ingest: catalog(cfg), own: ownHelper(), shown: &api.Catalog{}, webhooks: map[string]*webhook{}}
	if old.cfg == nil || !slices.Equal(old.cfg.Egress.Allow, cfg.Egress.Allow) {
		var err error
		if snap.allow, err = egress.New(cfg.Egress.Allow); err != nil {
			return nil, fmt.Errorf("egress.allow: %w", err)
		}
	}
	outdated := from.host.Outdated()
	var fresh []*webhook
	for _, w := range slices.Concat(cfg.Webhooks(), cfg.Notices()) {
		snap.order = append(snap.order, w.ID)
		built := &webhook{Webhook: w}
		snap.webhooks[w.ID] = built
		if before := old.webhooks[w.ID]; before != nil && before.sink != nil && old.allow == snap.allow && sameSink(before.Webhook, w) &&
			!slices.Contains(outdated, w.Sink) {
			built.signer, built.plugin, built.sink = before.signer, before.plugin, before.sink
			continue
		}
		fresh = append(fresh, built)
	}
	if err := snap.open(ctx, fresh, from); err != nil {
		snap.discard()
		return nil, err
	}
	return snap, nil
}

// open makes the sinks of webhooks, those of different plugins at the same time: a plugin
// that takes long keeps no other waiting.
func (s *snapshot) open(ctx context.Context, fresh []*webhook, from sources) error {
	bySink := map[string][]int{}
	for i, w := range fresh {
		bySink[w.Sink] = append(bySink[w.Sink], i)
	}
	failed := make([]error, len(fresh))
	var all sync.WaitGroup
	for _, some := range bySink {
		all.Go(func() {
			for _, i := range some {
				if err := fresh[i].open(ctx, s, from); err != nil {
					failed[i] = &reload.WebhookError{Webhook: fresh[i].ID, Err: err}
					return
				}
			}
		})
	}
	all.Wait()
	for _, w := range fresh {
		if w.sink != nil {
			s.fresh = append(s.fresh, w.sink)
		}
	}
	return cmp.Or(failed...)
}

// sameSink reports whether the sink and the signer of a webhook can be kept:
// every key is the same but those that have to do with neither.
func sameSink(a, b config.Webhook) bool {
	for _, w := range []*config.Webhook{&a, &b} {
		w.Helper, w.Enabled, w.Events, w.Format, w.Ordering = nil, false, nil, "", ""
		w.Retry.Schedule, w.Retry.AlsoOn = nil, nil
	}
	return reflect.DeepEqual(a, b)
}

// open makes the sink.
func (w *webhook) open(ctx context.Context, snap *snapshot, from sources) (err error) {
	if w.signer, err = w.Signer(); err != nil {
		return err
	}
	if w.Sink != config.SinkHTTP {
		return w.openPlugin(ctx, snap.cfg, from)
	}
	o := httpsink.Options{URL: w.URL, Signer: w.signer, Timeout: w.Retry.Timeout, Concurrency: w.Concurrency, Egress: snap.allow,
		TLS: httpsink.TLS{CAPEM: w.TLS.CAPEM, CertPEM: w.TLS.CertPEM, KeyPEM: w.TLS.KeyPEM, InsecureSkipVerify: w.TLS.InsecureSkipVerify}}
	for _, h := range w.Headers {
		o.Headers = append(o.Headers, httpsink.Header{Name: h.Name, Value: h.Value})
	}
	sink, err := httpsink.New(o)
	if err == nil { // a nil *Sink would be a Sink that is not nil
		w.sink = sink
	}
	return err
}

// discard closes what was made for a snapshot that never ran.
func (s *snapshot) discard() {
	for _, sink := range s.fresh {
		sink.Close()
	}
}

// number gives the webhooks their lanes in the store, durably, and completes
// the snapshot. Webhooks that are missing from it are removed for the store from
// here on.
func (s *snapshot) number(ctx context.Context, store *queue.Store) error {
	want := make([]queue.LaneWant, 0, len(s.order))
	for _, id := range s.order {
		want = append(want, queue.LaneWant{Webhook: id, Identity: identity(&s.webhooks[id].Webhook)})
	}
	lanes, err := store.SetLanes(ctx, want)
	if err != nil {
		return fmt.Errorf("number the webhooks: %w", err)
	}
	for _, id := range s.order {
		w := s.webhooks[id]
		w.lane = lanes[id].Lane
		switch {
		case !w.Enabled:
			w.hold = delivery.HoldDisabled
		case lanes[id].Returned:
			w.hold = delivery.HoldReturned
		}
		h := s.helper(w.Helper.ID)
		h.Webhooks = append(h.Webhooks, listening(w, w.lane))
		s.shown.Webhooks = append(s.shown.Webhooks, api.Webhook{Lane: w.lane, Shown: shown(&w.Webhook, h, w.signer)})
	}
	for i := range s.cfg.Helpers {
		s.shown.Helpers = append(s.shown.Helpers, shownHelper(s.ingest.Helpers[s.cfg.Helpers[i].ID]))
	}
	if len(s.cfg.Notify) > 0 {
		s.shown.Helpers = append(s.shown.Helpers, shownHelper(s.own))
	}
	s.target()
	return nil
}

// helper is a helper of the files, or the relay's own, which no sender can name.
func (s *snapshot) helper(id string) *ingest.Helper {
	if id == config.NoticeHelper {
		return s.own
	}
	return s.ingest.Helpers[id]
}

// target says how each webhook's deliveries are attempted.
func (s *snapshot) target() {
	s.targets = make([]*dispatch.Target, 0, len(s.order))
	for _, id := range s.order {
		w := s.webhooks[id]
		s.targets = append(s.targets, &dispatch.Target{Webhook: w.ID, Lane: w.lane, Hold: w.hold, Concurrency: w.Concurrency, Ordered: w.Ordering == "entry", SinkName: w.Webhook.Sink, Sink: w.sink,
			Policy: retry.Policy{Schedule: w.Retry.Schedule, AlsoOn: w.Retry.AlsoOn, Timeout: w.Retry.Timeout}})
	}
}

// mark gives the snapshot the number of its configuration.
func (s *snapshot) mark(generation uint64) {
	for _, t := range s.targets {
		t.Generation = generation
	}
}

// released is the snapshot without one webhook's hold; nil when it has none.
func (s *snapshot) released(id string) *snapshot {
	w := s.webhooks[id]
	if w == nil || w.hold != delivery.HoldReturned {
		return nil
	}
	next := *s
	next.webhooks = maps.Clone(s.webhooks)
	free := *w
	free.hold = ""
	next.webhooks[id] = &free
	next.target()
	next.mark(s.targets[0].Generation)
	return &next
}

// identity is what must not differ when a webhook comes back: its sink, and for
// HTTP the host with its port.
func identity(w *config.Webhook) queue.LaneIdentity {
	id := queue.LaneIdentity{Sink: w.Sink}
	if u, err := url.Parse(w.URL.Reveal()); err == nil && u.Host != "" {
		port := u.Port()
		if port == "" {
			port = map[string]string{"http": "80", "https": "443"}[strings.ToLower(u.Scheme)]
		}
		id.Host = net.JoinHostPort(strings.ToLower(u.Hostname()), port)
	}
	return id
}

// catalog is the helpers as the events socket sees them, without webhooks yet.
func catalog(cfg *config.Config) *ingest.Catalog {
	c := &ingest.Catalog{Helpers: make(map[string]*ingest.Helper, len(cfg.Helpers))}
	for i := range cfg.Helpers {
		h := &cfg.Helpers[i]
		c.Helpers[h.ID] = &ingest.Helper{Helper: h.ForEvents()}
	}
	return c
}

// listening is the webhook as events are matched with it.
func listening(w *webhook, lane queue.Lane) ingest.Webhook {
	return ingest.Webhook{Name: w.ID, Lane: lane, Format: w.PayloadFormat(), Enabled: w.Enabled, Events: w.takes()}
}

// shown is the webhook as anybody with access to the admin socket may see it.
func shown(w *config.Webhook, h *ingest.Helper, signer *signing.Signer) rest.Webhook {
	out := rest.Webhook{ID: w.ID, Helper: w.Helper.ID, Sink: w.Sink, URL: w.ShownURL(), Events: w.Events, Enabled: w.Enabled,
		Format: w.Format, Concurrency: w.Concurrency,
		Retry: rest.Retry{Timeout: w.Retry.Timeout.String(), AlsoOn: w.Retry.AlsoOn}}
	if out.Events == nil {
		out.Events = h.Types()
	}
	for _, d := range w.Retry.Schedule {
		out.Retry.Schedule = append(out.Retry.Schedule, d.String())
	}
	for _, x := range w.Headers {
		out.Headers = append(out.Headers, rest.Header{Name: x.Name, Value: x.Value.Reference()})
	}
	if signer == nil {
		return out
	}
	for _, s := range w.Signatures {
		out.Signatures = append(out.Signatures, rest.Signature{Scheme: s.Scheme, Headers: signing.HeaderNames(s.Spec())})
	}
	return out
}

func shownHelper(h *ingest.Helper) rest.Helper {
	out := rest.Helper{ID: h.ID, Name: h.Name, Command: h.Command, Events: h.Types()}
	for _, f := range h.Fields {
		out.Fields = append(out.Fields, rest.Field{Name: f.Name, Type: string(f.Type)})
	}
	for i := range h.Webhooks {
		out.Webhooks = append(out.Webhooks, h.Webhooks[i].Name)
	}
	return out
}

// limits are the bounds that a reload may change.
func limits(cfg *config.Config) queue.Limits {
	q, h := &cfg.Queue, &cfg.History
	return queue.Limits{MaxBytes: q.MaxBytes, MaxBytesPerHelper: q.MaxBytesPerHelper.Of(q.MaxBytes), MinFree: q.MinFree,
		Retention: queue.Retention{Delivered: h.Delivered, Failed: h.Failed, Payloads: h.Payloads, MaxBytes: h.MaxBytes}}
}
