package doctor

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/adminclient"
	"github.com/peanutsapp/peanuts-relay/internal/config"
	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/egress"
	"github.com/peanutsapp/peanuts-relay/internal/event"
	"github.com/peanutsapp/peanuts-relay/internal/httpsink"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

const (
	// slow is after what a receiver had better have answered: its work belongs behind
	// its answer, and other senders give up at 5 or 10 s.
	slow = 5 * time.Second
	// skewed is a difference of clocks worth a word, tooSkewed one at which receivers
	// refuse timestamps (Standard Webhooks: 5 minutes).
	skewed    = time.Minute
	tooSkewed = 5 * time.Minute
	// jsonLimit is what Express takes by default: express.json() has limit "100kb".
	// https://expressjs.com/en/api.html#express.json
	jsonLimit = 100 << 10
	// mostRows is how many deliveries of the log are looked at.
	mostRows = 100

	limitFix = `Express: app.use(express.json({limit: "2mb"})); nginx: client_max_body_size 2m; PHP: post_max_size = 2M; Apache: LimitRequestBody 2097152`
)

// answered is one answer of a receiver.
type answered struct {
	delivered bool
	status    int
	took      time.Duration
	headers   http.Header
	errText   string
	code      string
	at        time.Time // when the answer was there
}

// ping sends a signed test: through the daemon if it runs, else the same request by
// ourselves.
func (d *doctor) ping(ctx context.Context, w *config.Webhook) {
	if !d.Ping {
		d.skip("ping", "no test was sent")
		return
	}
	var a answered
	var err error
	how := "through the daemon"
	switch {
	case d.Status != nil:
		a, err = d.pingThroughDaemon(ctx, w)
	case w.Sink != config.SinkHTTP:
		d.skip("ping", "only the daemon can start the plugin %s", w.Sink)
		return
	default:
		how = "sent directly, as no daemon runs"
		a, err = d.pingDirectly(ctx, w)
	}
	if err != nil {
		d.skip("ping", "no test could be sent: %v", err)
		return
	}
	d.judge(w, &a, how)
}

func (d *doctor) pingThroughDaemon(ctx context.Context, w *config.Webhook) (a answered, err error) {
	t, err := d.Client.Test(ctx, w.ID, rest.TestRequest{})
	if err != nil {
		return a, err
	}
	a = answered{delivered: t.Delivered, took: t.Attempt.Duration.Duration(), errText: cmp.Or(t.Attempt.Error, t.Attempt.Message), code: t.Attempt.Code, headers: http.Header{}}
	a.at = t.Attempt.StartedAt.Time.Add(a.took)
	if r := t.Attempt.Response; r != nil {
		a.status = r.Status
		for _, h := range r.Headers {
			a.headers.Add(h.Name, h.Value)
		}
	}
	return a, nil
}

// pingDirectly makes the request that the daemon would make.
func (d *doctor) pingDirectly(ctx context.Context, w *config.Webhook) (a answered, err error) {
	o := httpsink.Options{URL: w.URL, Timeout: w.Retry.Timeout,
		TLS: httpsink.TLS{CAPEM: w.TLS.CAPEM, CertPEM: w.TLS.CertPEM, KeyPEM: w.TLS.KeyPEM, InsecureSkipVerify: w.TLS.InsecureSkipVerify}}
	for _, h := range w.Headers {
		o.Headers = append(o.Headers, httpsink.Header{Name: h.Name, Value: h.Value})
	}
	if o.Egress, err = egress.New(d.Config.Egress.Allow); err != nil {
		return a, err
	}
	if o.Signer, err = w.Signer(); err != nil {
		return a, err
	}
	sink, err := httpsink.New(o)
	if err != nil {
		return a, err
	}
	defer sink.Close()
	h := w.Helper.ForEvents()
	unique := strings.ToLower(rand.Text())[:16]
	typ := event.Created
	if len(w.Events) > 0 { // of an event about the relay itself the one that it is named after
		typ = w.Events[0]
	}
	in := event.Sample(&h, typ, "test_"+unique, d.Now())
	if err := in.Check(&h); err != nil {
		return a, err
	}
	payload, _ := event.Encode(nil, in, &h, w.PayloadFormat(), "evt_test_"+unique)
	var at delivery.Attempt
	sink.Deliver(ctx, &delivery.Outbound{DeliveryID: "del_test_" + unique, EventID: "evt_test_" + unique, EventType: typ, EntryID: in.EntryID,
		Webhook: w.ID, Attempt: 1, Test: true, Payload: payload}, &at)
	a = answered{delivered: at.Outcome == delivery.Delivered, status: at.Status, took: at.Duration, errText: at.Error, code: string(at.Code), headers: http.Header{},
		at: at.Started.Add(at.Duration)}
	for _, h := range at.Headers {
		a.headers.Add(h.Name, h.Value)
	}
	return a, nil
}

// judge says what an answer means, and what to do about it.
func (d *doctor) judge(w *config.Webhook, a *answered, how string) {
	at := d.at(keyOf(w.ID, "url")...)
	switch {
	case a.delivered:
		what := "accepted"
		if a.status != 0 {
			what = fmt.Sprintf("answered %d", a.status)
		}
		d.ok("ping", "a signed test, %s, was %s in %s", how, what, a.took.Round(time.Millisecond))
	case a.status >= 300 && a.status < 400:
		d.bad(at, "redirect", Failed, fmt.Sprintf("it answers %d and points to %s; redirects are never followed, because a followed POST becomes an empty GET", a.status, where(a.headers.Get("Location"))),
			"the url must be the one that it points to; often https:// for http://, or a slash at the end")
	default:
		message, fix := pingFix(a)
		d.bad(at, "ping", Failed, fmt.Sprintf("a signed test, %s: %s", how, message), fix)
	}
	if a.took >= d.slow {
		d.bad(d.at(keyOf(w.ID, "retry", "timeout")...), "slow", Warning, fmt.Sprintf("it took %s to answer; the attempt ends at %s", a.took.Round(100*time.Millisecond), w.Retry.Timeout),
			"answer first and work afterwards: put the event into a queue of the receiver's own and send 202")
	}
	d.skew(w, a)
}

// where is a Location without what may be secret in it.
func where(location string) string {
	u, err := url.Parse(location)
	switch {
	case location == "" || err != nil:
		return "nowhere"
	case u.Host == "":
		return "another path of the same host"
	}
	return u.Scheme + "://" + u.Host
}

func pingFix(a *answered) (message, fix string) {
	message = fmt.Sprintf("it answers %d", a.status)
	switch {
	case a.status == 0:
		return cmp.Or(a.errText, a.code), "the checks above say how far it gets; peanuts-relay test shows the request"
	case a.status == http.StatusUnauthorized || a.status == http.StatusForbidden:
		fix = "the receiver does not take the signature or a token: compare the secret on both sides (peanuts-relay verify), sign over the raw body, and look at the headers of the webhook"
	case a.status == http.StatusNotFound || a.status == http.StatusMethodNotAllowed:
		fix = "the path of the url is not the one where the receiver takes a POST"
	case a.status == http.StatusRequestEntityTooLarge:
		fix = "its limit for a body is smaller than a sample. " + limitFix
	case a.status == http.StatusUnsupportedMediaType || a.status == http.StatusBadRequest:
		fix = "it reads another format: it gets application/json, see format of the webhook"
	case a.status == http.StatusTooManyRequests:
		fix = "it limits the rate: retry.also_on: [429] retries those"
	case a.status >= 500:
		fix = "the receiver's own log says what fails there; deliveries are retried"
	default:
		fix = "peanuts-relay test shows the request and the answer"
	}
	return message, fix
}

// skew compares the receiver's clock with ours. Its header has whole seconds.
func (d *doctor) skew(w *config.Webhook, a *answered) {
	date, err := http.ParseTime(a.headers.Get("Date"))
	if err != nil {
		return
	}
	off := date.Sub(a.at).Round(time.Second)
	stamped := slices.ContainsFunc(w.Signatures, func(s config.Signature) bool { return s.Scheme == "standard" })
	at := d.at(keyOf(w.ID)...)
	words := fmt.Sprintf("the receiver's clock is %s ahead of ours", off)
	if off < 0 {
		words = fmt.Sprintf("the receiver's clock is %s behind ours", -off)
	}
	switch {
	case off.Abs() >= tooSkewed && stamped:
		d.bad(at, "clock skew", Failed, words+": it will refuse the timestamps of scheme standard", "set both clocks right (timedatectl set-ntp true)")
	case off.Abs() >= skewed:
		d.bad(at, "clock skew", Warning, words, "set both clocks right (timedatectl set-ntp true); scheme standard allows 5 minutes")
	default:
		d.ok("clock skew", "the receiver's clock is within %s of ours", max(off.Abs(), time.Second))
	}
}

// past looks at what the receiver answered before.
func (d *doctor) past(ctx context.Context, w *config.Webhook) {
	if d.Status == nil {
		return
	}
	page, err := d.Client.Deliveries(ctx, adminclient.DeliveryQuery{Webhook: w.ID, Limit: mostRows})
	if err != nil {
		d.skip("log", "the delivery log cannot be read: %v", err)
		return
	}
	h := history{}
	for i := range page.Deliveries {
		detail, err := d.Client.Delivery(ctx, page.Deliveries[i].ID)
		if refused, ok := errors.AsType[*adminclient.Error](err); ok && refused.Code == rest.CodeNotFound {
			continue
		}
		if err != nil {
			d.skip("log", "the delivery log cannot be read: %v", err)
			return
		}
		h.add(&detail)
	}
	d.limitsOf(w, &h)
}

// history is what the newest deliveries of a webhook say of its receiver.
type history struct {
	rows, slow, failed int
	tooLarge           []string // deliveries that were answered 413
	unretried          map[int]int
	large              []string // deliveries over jsonLimit that were not answered yet or failed
	largest            int
	taken              int // the largest that it accepted
}

func (h *history) add(x *rest.DeliveryDetail) {
	h.rows++
	h.largest = max(h.largest, len(x.Payload))
	if x.Status == rest.StatusSuccess {
		h.taken = max(h.taken, len(x.Payload))
	}
	if x.Status == rest.StatusFailed {
		h.failed++
		switch code := int(x.StatusCode); code {
		case http.StatusRequestEntityTooLarge:
			h.tooLarge = append(h.tooLarge, fmt.Sprintf("%s (%s)", x.ID, size(int64(len(x.Payload)))))
		case http.StatusTooManyRequests, http.StatusRequestTimeout, http.StatusTooEarly:
			if h.unretried == nil {
				h.unretried = map[int]int{}
			}
			h.unretried[code]++
		}
	} else if x.Status != rest.StatusSuccess && len(x.Payload) > jsonLimit {
		h.large = append(h.large, x.ID)
	}
	if n := len(x.Log); n > 0 && x.Log[n-1].Response != nil && x.Log[n-1].Duration.Duration() >= slow {
		h.slow++
	}
}

func (d *doctor) limitsOf(w *config.Webhook, h *history) {
	if h.rows == 0 {
		return
	}
	fine := true
	report := func(at Result, check, status, message, fix string) {
		fine = false
		d.bad(at, check, status, message, fix)
	}
	if n := len(h.tooLarge); n > 0 {
		report(d.at(keyOf(w.ID)...), "body limit", Failed, fmt.Sprintf("the receiver refused %s as too large (413): %s", plural(n, "payload"), strings.Join(h.tooLarge[:min(n, 3)], ", ")),
			limitFix+"; then peanuts-relay replay "+w.ID+" --where ... or retry ID")
	} else if h.largest > jsonLimit && h.taken <= jsonLimit {
		report(d.at(keyOf(w.ID)...), "body limit", Warning, fmt.Sprintf("a payload has %s; none over %s was accepted yet, the limit of Express unless it is told otherwise", size(int64(h.largest)), size(jsonLimit)), limitFix)
	}
	if h.slow > 0 {
		report(d.at(keyOf(w.ID, "retry", "timeout")...), "slow answers", Warning, fmt.Sprintf("%d of the last %d deliveries took %s or longer to be answered", h.slow, h.rows, slow),
			"answer first and work afterwards; an answer after retry.timeout counts as none, and the event comes again")
	}
	for code, n := range h.unretried {
		report(d.at(keyOf(w.ID, "retry", "also_on")...), "schedule", Warning, fmt.Sprintf("%d of the last %d deliveries failed for good with %d", n, h.rows, code),
			fmt.Sprintf("retry: {also_on: [%d]} retries them by the schedule", code))
	}
	if h.failed*2 > h.rows && len(h.tooLarge) == 0 {
		report(d.at(keyOf(w.ID)...), "log", Warning, fmt.Sprintf("%d of the last %d deliveries failed", h.failed, h.rows), "peanuts-relay deliveries "+w.ID+" --status failed; when it is well, peanuts-relay replay "+w.ID)
	}
	if fine {
		d.ok("log", "nothing wrong with the last %s", plural(h.rows, "delivery"))
	}
}
