package sinktest

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/peanutsapp/peanuts-relay/sinks"
)

// Faults that are no status.
const (
	faultRedirect = "redirect"
	faultGarbage  = "garbage"
	faultClosed   = "closed"
	faultRefused  = "refused"
)

// askedPause is what the suite's 429 asks for.
const askedPause = 17 * time.Second

// ownFaults are the names of the suite's faults, in order.
func ownFaults() []string {
	return []string{"400", "401", "403", "404", "408", "410", "429", "500", "502", "503", "504", faultRedirect, faultGarbage, faultClosed, faultRefused}
}

// ownFault is what the suite expects of most sinks; false = it does not know the name.
func ownFault(name string) (Fault, bool) {
	of := func(want ...sinks.Outcome) (Fault, bool) {
		status, _ := strconv.Atoi(name)
		return Fault{Status: status, Want: want}, true
	}
	switch name {
	case "400":
		return of(sinks.OutcomeRejected)
	case "401", "403":
		return of(sinks.OutcomeMisconfigured)
	case "404", "410":
		// With a fixed endpoint it is the endpoint that is gone, else the thing.
		return of(sinks.OutcomeRejected, sinks.OutcomeMisconfigured)
	case "429":
		return Fault{Status: http.StatusTooManyRequests, Want: []sinks.Outcome{sinks.OutcomeRateLimited}, Pause: askedPause}, true
	case "408", "500", "502", "503", "504", faultGarbage, faultClosed, faultRefused:
		return of(sinks.OutcomeRetry)
	case faultRedirect:
		return Fault{Status: http.StatusTemporaryRedirect, Want: []sinks.Outcome{sinks.OutcomeRejected, sinks.OutcomeMisconfigured}}, true
	}
	return Fault{}, false
}

// fault is what the service answers in a check, and what is right then.
func (p *probe) fault(name string) *fault {
	f, known := ownFault(name)
	f.Header = http.Header{}
	if name == "429" {
		f.Header.Set("Retry-After", strconv.Itoa(int(askedPause/time.Second)))
	}
	own, changed := p.o.Faults[name]
	if changed {
		if own.Status != 0 {
			f.Status = own.Status
		}
		for header, values := range own.Header {
			f.Header[http.CanonicalHeaderKey(header)] = values
		}
		f.Body = own.Body
		if own.Want != nil {
			f.Want, f.Pause = own.Want, own.Pause
		}
	}
	if !known && f.Status == 0 || len(f.Want) == 0 {
		p.fatalf("Options.Faults[%q] needs a Status and a Want", name)
	}
	return &fault{name, f, p.remote.url}
}

func (p *probe) checkAnswer(name string) {
	p.needsRemote()
	f := p.fault(name)
	settings := p.settings()
	if name == faultRefused && f.Status == 0 {
		url, err := nobody()
		if err != nil {
			p.fatalf("%v", err)
		}
		if settings, err = asObject(p.o.Settings, url); err != nil {
			p.fatalf("the good settings: %v", err)
		}
	}
	i := p.openWith(settings)
	defer i.close()
	p.remote.play(f)
	from := p.remote.seen()
	r := i.deliver(p.ctx, p.created())
	if name != faultRefused && p.remote.seen() == from {
		p.fatalf("no request came to the suite's server: are the settings made with it? %s", say(r))
	}
	p.withinLimits(r)
	if p.remote.strays() > 0 {
		p.failf("the sink follows a redirect, which turns a POST into a GET and shows the payload to somebody else")
	}
	if !slices.Contains(f.Want, outcome(r)) {
		p.failf("%s; want %s", say(r), either(f.Want))
		return
	}
	if f.Pause > 0 && r.GetRetryAfter().AsDuration() != f.Pause {
		p.failf("retry_after is %v; the service asked for %v in Retry-After", r.GetRetryAfter().AsDuration(), f.Pause)
	}
	if pause := r.GetRetryAfter().AsDuration(); pause < 0 || pause > 24*maxWait {
		p.failf("retry_after is %v", pause)
	}
	if status := int(r.GetStatusCode()); status != 0 && f.Status != 0 && status != f.Status {
		p.failf("status_code is %d; the service answered %d", status, f.Status)
	}
	if !success(r) && r.GetMessage() == "" && r.GetCode() == "" {
		p.failf("%s, without a word about why", say(r))
	}
}

func either(list []sinks.Outcome) string {
	names := make([]string, len(list))
	for n, o := range list {
		names[n] = o.String()
	}
	return strings.Join(names, " or ")
}

func checkRecovers(p *probe) {
	p.needsRemote()
	i := p.open()
	defer i.close()
	for _, name := range []string{"500", faultGarbage, faultClosed} {
		p.remote.play(p.fault(name))
		d := p.created()
		i.deliver(p.ctx, d)
		p.remote.play(nil)
		d.Attempt = 2
		if r := i.deliver(p.ctx, d); !success(r) {
			p.failf("the second attempt, after the service answered %s to the first: %s", name, say(r))
		}
	}
}
