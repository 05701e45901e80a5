package relay

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"strings"

	"github.com/peanutsapp/peanuts-relay/internal/api"
	"github.com/peanutsapp/peanuts-relay/internal/config"
	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/dispatch"
	"github.com/peanutsapp/peanuts-relay/internal/egress"
	"github.com/peanutsapp/peanuts-relay/internal/httpsink"
	"github.com/peanutsapp/peanuts-relay/internal/ingest"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
	"github.com/peanutsapp/peanuts-relay/internal/retry"
	"github.com/peanutsapp/peanuts-relay/internal/signing"
)

// snapshot is one configuration as the parts see it. It is immutable.
type snapshot struct {
	ingest   *ingest.Catalog
	shown    *api.Catalog
	webhooks map[string]config.Webhook
}

// snapshot turns the configuration into what the parts work with: lanes in the
// store, targets for the dispatcher, the catalogs for both sockets.
func (r *relay) snapshot(ctx context.Context) (*snapshot, []*dispatch.Target, error) {
	webhooks := r.cfg.Webhooks()
	want := make([]queue.LaneWant, len(webhooks))
	for i := range webhooks {
		want[i] = queue.LaneWant{Webhook: webhooks[i].ID, Identity: identity(&webhooks[i])}
	}
	lanes, err := r.store.get().SetLanes(ctx, want)
	if err != nil {
		return nil, nil, fmt.Errorf("number the webhooks: %w", err)
	}
	allow, err := egress.New(r.cfg.Egress.Allow)
	if err != nil {
		return nil, nil, fmt.Errorf("egress.allow: %w", err)
	}
	snap := &snapshot{ingest: catalog(r.cfg), shown: &api.Catalog{}, webhooks: make(map[string]config.Webhook, len(webhooks))}
	targets := make([]*dispatch.Target, 0, len(webhooks))
	for i := range webhooks {
		w := &webhooks[i]
		lane := lanes[w.ID].Lane
		t, signer, err := target(w, lane, allow)
		if err != nil {
			return nil, nil, fmt.Errorf("webhook %s: %w", w.ID, err)
		}
		if lanes[w.ID].Returned && t.Hold == "" {
			t.Hold = delivery.HoldReturned
		}
		targets = append(targets, t)
		snap.webhooks[w.ID] = *w
		h := snap.ingest.Helpers[w.Helper.ID]
		h.Webhooks = append(h.Webhooks, listening(w, lane))
		snap.shown.Webhooks = append(snap.shown.Webhooks, api.Webhook{Lane: lane, Shown: shown(w, h, signer)})
	}
	for i := range r.cfg.Helpers {
		snap.shown.Helpers = append(snap.shown.Helpers, shownHelper(snap.ingest.Helpers[r.cfg.Helpers[i].ID]))
	}
	return snap, targets, nil
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

// target says how the webhook's deliveries are attempted.
func target(w *config.Webhook, lane queue.Lane, allow *egress.Policy) (*dispatch.Target, *signing.Signer, error) {
	signer, err := w.Signer()
	if err != nil {
		return nil, nil, err
	}
	o := httpsink.Options{URL: w.URL, Signer: signer, Timeout: w.Retry.Timeout, Concurrency: w.Concurrency, Egress: allow,
		TLS: httpsink.TLS{CAPEM: w.TLS.CAPEM, CertPEM: w.TLS.CertPEM, KeyPEM: w.TLS.KeyPEM}}
	for _, h := range w.Headers {
		o.Headers = append(o.Headers, httpsink.Header{Name: h.Name, Value: h.Value})
	}
	sink, err := httpsink.New(o)
	if err != nil {
		return nil, nil, err
	}
	t := &dispatch.Target{Webhook: w.ID, Lane: lane, Concurrency: w.Concurrency, Sink: sink, Generation: 1,
		Policy: retry.Policy{Schedule: w.Retry.Schedule, AlsoOn: w.Retry.AlsoOn, Timeout: w.Retry.Timeout}}
	if !w.Enabled {
		t.Hold = delivery.HoldDisabled
	}
	return t, signer, nil
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
func listening(w *config.Webhook, lane queue.Lane) ingest.Webhook {
	return ingest.Webhook{Name: w.ID, Lane: lane, Format: w.PayloadFormat(), Enabled: w.Enabled, Events: w.Takes()}
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
