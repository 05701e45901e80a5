package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/peanutsapp/peanuts-relay/internal/adminclient"
	"github.com/peanutsapp/peanuts-relay/internal/config"
	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/egress"
	"github.com/peanutsapp/peanuts-relay/internal/httpsink"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
	"github.com/peanutsapp/peanuts-relay/internal/secret"
	"github.com/peanutsapp/peanuts-relay/internal/signing"
	"github.com/peanutsapp/peanuts-relay/internal/where"
)

// A replay to another URL is made here and not by the daemon: it changes nothing
// that the daemon keeps, its receiver may be a machine that only this user
// reaches, and the daemon needs no way to send payloads to an address that no file
// names. The secrets are read from the files, by the rights of whoever calls, so
// that the admin API hands out no signatures.

// mostUnreachable is after how many requests in a row that found nobody a replay to
// another URL is given up.
const mostUnreachable = 5

// elsewhere is a replay to another URL under way.
type elsewhere struct {
	a       *app
	client  *adminclient.Client
	webhook string
	f       *replayFlags
	chooses *where.Filter // nil = all
	sink    *httpsink.Sink

	sent, failed, expired, undecided int64
	unreachable                      int // in a row
}

// sentLine is one line of --to --json.
type sentLine struct {
	DeliveryID string          `json:"delivery_id"`
	EventID    string          `json:"event_id"`
	Event      string          `json:"event"`
	EntryID    string          `json:"entry_id"`
	Sent       bool            `json:"sent"` // false with --dry-run
	Delivered  bool            `json:"delivered"`
	StatusCode rest.StatusCode `json:"status_code"`
	Duration   rest.Millis     `json:"duration_ms"`
	Error      string          `json:"error"`
}

func (a *app) replayTo(ctx context.Context, c *adminclient.Client, webhook string, in *rest.ReplayRequest, f *replayFlags) error {
	target, err := c.Webhook(ctx, webhook)
	if err != nil {
		return err
	}
	e := &elsewhere{a: a, client: c, webhook: target.ID, f: f}
	if f.where != "" {
		if e.chooses, err = where.Compile(f.where); err != nil {
			return badExpression(f.where, err)
		}
	}
	if e.sink, err = a.elsewhereSink(&target, f); err != nil {
		return err
	}
	defer e.sink.Close()
	ids, err := e.listedIDs(ctx, in)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, unix.SIGTERM)
	defer stop()
	return e.sendAll(ctx, ids)
}

// elsewhereSink is what sends to --to: under the file's egress rules, without
// anything of the webhook but, with --sign, its signatures.
func (a *app) elsewhereSink(w *rest.Webhook, f *replayFlags) (*httpsink.Sink, error) {
	u, err := url.Parse(f.to)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, usagef("", "--to: want a URL that begins with http:// or https://")
	}
	o := httpsink.Options{URL: secret.New(f.to)}
	cfg, fault := a.loadedConfig()
	if cfg == nil {
		if f.sign && f.secretFile == "" {
			return nil, fault
		}
		fmt.Fprintf(a.Err, "%s egress.allow counts for nothing here: %v\n", a.errStyle().warn("warning:"), rootCause(fault))
		cfg = &config.Config{}
	}
	if o.Egress, err = egress.New(cfg.Egress.Allow); err != nil {
		return nil, WithExit(ExitConfig, err, "")
	}
	if f.sign {
		if o.Signer, err = a.elsewhereSigner(w, cfg, f); err != nil {
			return nil, err
		}
	}
	sink, err := httpsink.New(o)
	if err != nil {
		return nil, usagef("", "--to: %w", err)
	}
	return sink, nil
}

// loadedConfig is the configuration of the files, nil with the reason why not.
func (a *app) loadedConfig() (*config.Config, error) {
	path, err := a.configFile()
	if err != nil {
		return nil, err
	}
	cfg, report := config.Load(config.Options{Path: path, LookupEnv: a.Env, WithoutPlugins: true})
	if cfg == nil {
		return nil, WithExit(ExitConfig, fmt.Errorf("read the configuration: %w", report.Err()),
			"peanuts-relay check says all that is wrong; secrets may need sudo")
	}
	return cfg, nil
}

func (a *app) elsewhereSigner(w *rest.Webhook, cfg *config.Config, f *replayFlags) (*signing.Signer, error) {
	if f.secretFile == "" {
		all := slices.Concat(cfg.Webhooks(), cfg.Notices())
		i := slices.IndexFunc(all, func(c config.Webhook) bool { return c.ID == w.ID })
		if i < 0 {
			return nil, WithExit(ExitConfig, fmt.Errorf("--sign: the files have no webhook %q", w.ID), "--secret-file names a secret of your own")
		}
		signer, err := all[i].Signer()
		if err == nil && signer == nil {
			err = fmt.Errorf("--sign: webhook %q has no signature", w.ID)
		}
		return signer, err
	}
	secrets, err := a.secrets(&secretFlags{files: []string{f.secretFile}})
	if err != nil {
		return nil, err
	}
	specs := []signing.Spec{{Scheme: signing.Peanuts}}
	if len(w.Signatures) > 0 {
		specs = specs[:0]
	}
	for _, s := range w.Signatures {
		spec := signing.Spec{Scheme: signing.Scheme(s.Scheme)}
		for _, name := range s.Headers {
			if lower := strings.ToLower(name); spec.Header == "" && (spec.Scheme != signing.Standard || strings.HasSuffix(lower, "-signature")) {
				spec.Header = name
			}
		}
		specs = append(specs, spec)
	}
	return signing.New(specs, secrets)
}

// listedIDs are the deliveries to look at, in the order of acceptance.
func (e *elsewhere) listedIDs(ctx context.Context, in *rest.ReplayRequest) (ids []string, err error) {
	if in.EventID != "" {
		return e.listedOf(ctx, in)
	}
	q := adminclient.DeliveryQuery{Webhook: e.webhook, Status: e.f.status, Since: in.Since, Until: in.Until, Event: in.Event, Limit: maxLimit}
	if len(q.Status) == 0 {
		q.Status = []string{rest.StatusFailed}
	}
	for d, err := range e.client.AllDeliveries(ctx, q) {
		if err != nil {
			return nil, err
		}
		ids = append(ids, d.ID)
	}
	slices.Reverse(ids)
	return ids, nil
}

// listedOf are the deliveries of one event. As nothing changes it may be in any state,
// unless --status names some.
func (e *elsewhere) listedOf(ctx context.Context, in *rest.ReplayRequest) (ids []string, err error) {
	found, err := e.client.Event(ctx, in.EventID)
	if err != nil {
		return nil, err
	}
	for _, event := range slices.Backward(found.Events) {
		for _, d := range event.Deliveries {
			if d.Webhook == e.webhook && (len(e.f.status) == 0 || slices.Contains(e.f.status, d.Status)) {
				ids = append(ids, d.ID)
			}
		}
	}
	return ids, nil
}

func (e *elsewhere) sendAll(ctx context.Context, ids []string) error {
	var pace <-chan time.Time
	if e.f.rate > 0 && !e.f.dryRun {
		tick := time.NewTicker(time.Duration(float64(time.Second) / e.f.rate))
		defer tick.Stop()
		pace = tick.C
	}
	for i, id := range ids {
		if e.a.ErrTerm.Width > 0 && e.a.OutTerm.Width == 0 {
			fmt.Fprintf(e.a.Err, "\r\x1b[K%s of %s", grouped(int64(i)), grouped(int64(len(ids))))
		}
		sent, err := e.considerOne(ctx, id)
		if ctx.Err() != nil {
			e.a.clearLine()
			e.tellSum()
			return failf("", "interrupted: %s of %s looked at", grouped(int64(i)), grouped(int64(len(ids))))
		}
		if err != nil {
			return err
		}
		if e.unreachable == mostUnreachable {
			e.tellSum()
			return failf("is a receiver running there? peanuts-relay receive is one", "given up: the last %d requests found nobody", mostUnreachable)
		}
		if pace != nil && sent {
			select {
			case <-pace:
			case <-ctx.Done():
			}
		}
	}
	e.a.clearLine()
	e.tellSum()
	if e.failed > 0 {
		return exitQuietly(ExitFailure)
	}
	return nil
}

// tellSum says on standard error what became of all of it.
func (e *elsewhere) tellSum() {
	if e.f.dryRun {
		fmt.Fprintf(e.a.Err, "would send %s\n", plural(e.sent, "delivery", "deliveries"))
	} else {
		fmt.Fprintf(e.a.Err, "sent %s: %s accepted, %s not\n", plural(e.sent, "delivery", "deliveries"), grouped(e.sent-e.failed), grouped(e.failed))
	}
	if e.expired > 0 {
		fmt.Fprintf(e.a.Err, "%s left out: their payloads are no longer kept\n", grouped(e.expired))
	}
	if e.undecided > 0 {
		fmt.Fprintf(e.a.Err, "%s left out: --where could not be decided\n", grouped(e.undecided))
	}
}

// considerOne looks at a delivery, and sends it if it is chosen.
func (e *elsewhere) considerOne(ctx context.Context, id string) (sent bool, err error) {
	d, err := e.client.Delivery(ctx, id)
	if refused, ok := errors.AsType[*adminclient.Error](err); ok && refused.Code == rest.CodeNotFound {
		return false, nil // dropped, or let go, since it was listed
	}
	if err != nil {
		return false, err
	}
	if d.PayloadExpired {
		e.expired++
		return false, nil
	}
	if e.chooses != nil {
		chosen, err := e.chooses.Match(ctx, []byte(d.Payload))
		if err != nil && ctx.Err() == nil {
			e.undecided++
			fmt.Fprintf(e.a.Err, "%s %s is left out: --where: %s\n", e.a.errStyle().warn("warning:"), d.ID, oneLine(err.Error()))
		}
		if !chosen || err != nil {
			return false, nil
		}
	}
	line := sentLine{DeliveryID: d.ID, EventID: d.EventID, Event: d.Event, EntryID: d.EntryID}
	e.sent++
	if !e.f.dryRun {
		e.sendElsewhere(ctx, &d, &line)
	}
	if ctx.Err() != nil {
		return true, nil
	}
	return true, e.tellOne(&line)
}

func (e *elsewhere) sendElsewhere(ctx context.Context, d *rest.DeliveryDetail, line *sentLine) {
	o := &delivery.Outbound{DeliveryID: d.ID, EventID: d.EventID, EventType: d.Event, EntryID: d.EntryID, Webhook: d.Webhook,
		Attempt: max(d.Attempts, 1), Replayed: true, Payload: []byte(d.Payload)}
	var at delivery.Attempt
	e.sink.Deliver(ctx, o, &at)
	line.Sent, line.Delivered = true, at.Outcome == delivery.Delivered
	line.StatusCode, line.Duration, line.Error = rest.StatusCode(at.Status), rest.Millis(at.Duration), at.Error
	if !line.Delivered {
		e.failed++
	}
	if e.unreachable++; at.Status != 0 {
		e.unreachable = 0
	}
}

func (e *elsewhere) tellOne(line *sentLine) error {
	if e.f.json {
		enc := json.NewEncoder(e.a.Out)
		enc.SetEscapeHTML(false)
		return enc.Encode(line)
	}
	st, verdict := e.a.outStyle(), "would send"
	if line.Sent {
		verdict = st.bad("failed")
		if line.Delivered {
			verdict = st.good("sent")
		}
		if line.StatusCode != 0 {
			verdict += " " + strconv.Itoa(int(line.StatusCode))
		}
	}
	parts := []string{verdict, line.DeliveryID, oneLine(line.Event), oneLine(dash(line.EntryID))}
	if line.Sent {
		parts = append(parts, millis(line.Duration.Duration()))
	}
	if line.Error != "" {
		parts = append(parts, oneLine(line.Error))
	}
	_, err := fmt.Fprintln(e.a.Out, strings.Join(parts, "  "))
	return err
}
