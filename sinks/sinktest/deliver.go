package sinktest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
	"github.com/peanutsapp/peanuts-relay/sinks"
)

// Limits of the contract on an answer.
const (
	maxMessage = 2 << 10
	maxState   = 4 << 10
	maxAnswer  = 4 << 20
	maxWait    = time.Hour // the longest pause or wait that the relay heeds
)

func checkEvents(p *probe) {
	i := p.open()
	defer i.close()
	entry := p.entry()
	for _, event := range []string{sinks.Created, sinks.Updated, sinks.Deleted} {
		if p.carries(event) {
			i.succeed(p.sample(event, entry, sampleData))
		}
	}
	event := sinks.Created
	if carried := p.capabilities().GetEvents(); len(carried) > 0 {
		event = carried[0]
	}
	for what, change := range map[string]func(*sinks.Delivery){
		"without a user":                func(d *sinks.Delivery) { d.User = nil },
		"without a signature":           func(d *sinks.Delivery) { d.Headers = nil },
		"without data":                  func(d *sinks.Delivery) { d.Entry.Data = json.RawMessage(`{}`) },
		"of a helper without a command": func(d *sinks.Delivery) { d.Helper.Command = "" },
		"that is a sample":              func(d *sinks.Delivery) { d.Test, d.Sequence, d.Entry.ID = true, 0, "test_"+d.Entry.ID },
		"with an entry id like a path":  func(d *sinks.Delivery) { d.Entry.ID = "a/b?c=1&d=../é " + d.Entry.ID },
		"with nested data and strange names": func(d *sinks.Delivery) {
			d.Entry.Data = json.RawMessage(`{"a b":{"c":[1,{"d":null}]},"":"","__proto__":1}`)
		},
	} {
		d := p.sample(event, p.entry(), sampleData)
		change(d)
		if p.o.Adapt != nil {
			p.o.Adapt(d)
		}
		if headers := d.Headers; headers == nil {
			sign(d)
			d.Headers = nil
		} else {
			sign(d)
		}
		if r := i.deliver(p.ctx, d); !success(r) && outcome(r) != sinks.OutcomeRejected {
			p.failf("a delivery %s: %s; want delivered, skipped or rejected", what, say(r))
		}
	}
}

func (p *probe) carries(event string) bool {
	carried := p.capabilities().GetEvents()
	if slices.Contains(carried, event) {
		return true
	}
	return len(carried) == 0
}

func checkResults(p *probe) {
	i := p.open()
	defer i.close()
	most := max(int(p.capabilities().GetMaxBatch()), 1)
	for _, size := range []int{1, min(most, 1000), min(most, 1000) + 1} {
		var ds []*sinks.Delivery
		for range size {
			ds = append(ds, p.created())
		}
		p.oneResultEach(i, ds)
	}
}

// oneResultEach sends a batch and looks at all of the answer.
func (p *probe) oneResultEach(i *instance, ds []*sinks.Delivery) {
	answer, err := i.send(p.ctx, ds...)
	if err != nil {
		p.failf("a call with %d of %d deliveries fails: %v", len(ds), max(p.capabilities().GetMaxBatch(), 1), err)
		return
	}
	results := map[string]int{}
	for _, d := range ds {
		results[d.ID] = 0
	}
	for _, r := range answer.GetResults() {
		if _, asked := results[r.GetDeliveryId()]; !asked {
			p.failf("a call with %d deliveries: a result for %q, which was not in it", len(ds), short(r.GetDeliveryId(), 80))
			continue
		}
		results[r.GetDeliveryId()]++
		p.withinLimits(r)
		if !success(r) {
			p.failf("a call with %d deliveries: %s", len(ds), say(r))
		}
	}
	for id, n := range results {
		if n != 1 {
			p.failf("a call with %d deliveries: %d results for %s", len(ds), n, id)
		}
	}
}

func (p *probe) withinLimits(r *sinkpb.Result) {
	if r.GetCode() != "" && !regexp.MustCompile(`^[a-z0-9_]{1,64}$`).MatchString(r.GetCode()) {
		p.failf("the code %q is not [a-z0-9_]{1,64}", short(r.GetCode(), 80))
	}
	if n := len(r.GetMessage()); n > maxMessage {
		p.failf("a message of %d bytes; at most 2 KiB are kept", n)
	}
	if n := len(r.GetState()); n > maxState {
		p.failf("a state of %d bytes; more than 4 KiB turns a success into a retry", n)
	}
	if len(r.GetState()) > 0 && !p.capabilities().GetUsesState() {
		p.failf("a state without uses_state, which nobody keeps")
	}
	if r.GetStatusCode() > 999 {
		p.failf("status_code %d is no status of HTTP", r.GetStatusCode())
	}
	if r.GetOutcome() == sinkpb.Outcome_OUTCOME_UNSPECIFIED {
		p.failf("a result without an outcome")
	}
}

// Verbatim is an Options.Arrived for sinks that forward the payload as it is: there must
// be exactly one request, its body must be the payload, and it must carry the delivery's
// headers.
func Verbatim(d *sinks.Delivery, got []Request) error {
	if len(got) != 1 {
		return fmt.Errorf("%d requests came; want one", len(got))
	}
	if !bytes.Equal(got[0].Body, d.Payload) {
		return fmt.Errorf("the body is not the payload, byte by byte: %q", short(string(got[0].Body), 300))
	}
	for name, value := range d.Headers {
		if got[0].Header.Get(name) != value {
			return fmt.Errorf("the header %s is %q, not that of the delivery", name, short(got[0].Header.Get(name), 100))
		}
	}
	return nil
}

func checkExact(p *probe) {
	p.needsRemote()
	i := p.open()
	defer i.close()
	from := p.remote.seen()
	d := p.created()
	i.succeed(d)
	arrived := p.o.Arrived
	if arrived == nil {
		arrived = unchanged
	}
	if err := arrived(d, p.remote.since(from)); err != nil {
		p.failf("%v", err)
	}
}

// unchanged looks for traces of what happens to numbers and texts on the way.
func unchanged(_ *sinks.Delivery, got []Request) error {
	for _, r := range got {
		body := string(r.Body)
		if strings.Contains(strings.ReplaceAll(body, exactNumber, ""), exactNumber[:15]) || strings.Contains(body, exactNumber[:1]+"."+exactNumber[1:15]) {
			return fmt.Errorf("the number %s was changed on the way: a float64 cannot hold it", exactNumber)
		}
		for _, broken := range []string{"Ã¼", "Gr\ufffd", `Gr\ufffd`, "Gr??e", "\ufffd"} {
			if strings.Contains(body, broken) {
				return fmt.Errorf("the text %q was changed on the way: it is not UTF-8 any more", "Grüße")
			}
		}
	}
	return nil
}

// needsRemote skips the check for a sink that cannot be pointed at the suite's server.
func (p *probe) needsRemote() {
	switch {
	case p.o.Offline != "":
		p.skipf("%s", p.o.Offline)
	case p.o.Settings == nil:
		p.skipf("there are no settings that point to the suite's own server")
	}
}

func checkLarge(p *probe) {
	i := p.open()
	defer i.close()
	const size = 1 << 20
	n := 1
	if c := p.capabilities(); c.GetMaxBatch() >= 3 && (c.GetMaxBatchBytes() == 0 || c.GetMaxBatchBytes() >= maxBatchBytes) {
		n = 3 // with their data twice the relay's 3 MiB, which is more than a message of gRPC may usually have
	}
	var ds []*sinks.Delivery
	for range n {
		filler := strings.Repeat("peanuts, ", (size-600)/9)
		ds = append(ds, p.sample(sinks.Created, p.entry(), `{"amount":42.5,"text":"`+filler+`"}`))
	}
	answer, err := i.send(p.ctx, ds...)
	if err != nil {
		p.fatalf("a call with %d deliveries of 1 MiB fails: %v; the sink has to take messages of 32 MiB", n, err)
	}
	for _, d := range ds {
		if r := resultOf(answer, d); !success(r) && outcome(r) != sinks.OutcomeRejected {
			p.failf("a delivery of 1 MiB: %s; want delivered, skipped or rejected", say(r))
		}
	}
	if b := proto.Size(answer); b > maxAnswer {
		p.failf("the answer has %d bytes; at most 4 MiB are read", b)
	}
}

func checkAttempts(p *probe) {
	i := p.open()
	defer i.close()
	d := p.created()
	d.Attempt = 4
	if r := i.deliver(p.ctx, d); !success(r) {
		p.failf("the fourth attempt of a delivery that never came before: %s", say(r))
	}
}

func checkResend(p *probe) {
	if !p.capabilities().GetIdempotent() {
		p.skipf("the sink does not say that it is idempotent")
	}
	if p.o.Effects == nil {
		p.needsRemote()
	}
	i := p.open()
	defer i.close()
	from := p.remote.seen()
	d := p.created()
	i.succeed(d)
	d.Attempt = 2
	i.succeed(d)
	// A replay can come after a restart and a reload.
	i.close()
	again := p.open()
	defer again.close()
	d.Attempt = 3
	again.succeed(d)
	n := 0
	if p.o.Effects != nil {
		var err error
		if n, err = p.o.Effects(d); err != nil {
			p.fatalf("Options.Effects: %v", err)
		}
	} else {
		n = effects(d, p.remote.since(from))
	}
	if n != 1 {
		p.failf("the same delivery three times has %d effects; want one", n)
	}
}

// effects counts what a service that looks at ids would make of requests.
func effects(d *sinks.Delivery, got []Request) int {
	distinct := map[string]bool{}
	for n, r := range got {
		switch {
		case r.Method == "GET" || r.Method == "HEAD":
		case mentions(r, d.ID):
			distinct["id"] = true
		case r.Method == "PUT" || r.Method == "DELETE":
			distinct[r.Method+" "+r.Path+" "+string(r.Body)] = true
		default:
			distinct[fmt.Sprint(n)] = true
		}
	}
	return len(distinct)
}

func mentions(r Request, id string) bool {
	if strings.Contains(r.Path, id) || bytes.Contains(r.Body, []byte(id)) {
		return true
	}
	for _, values := range r.Header {
		for _, v := range values {
			if strings.Contains(v, id) {
				return true
			}
		}
	}
	return false
}

func checkOrder(p *probe) {
	if !p.capabilities().GetOrderedPerEntry() {
		p.skipf("the sink does not ask for order")
	}
	p.needsRemote()
	i := p.open()
	defer i.close()
	// Entries of their own, so that one call may hold them all: they go out as they came.
	var ds []*sinks.Delivery
	for range min(max(int(p.capabilities().GetMaxBatch()), 1), 10) {
		ds = append(ds, p.created())
	}
	from := p.remote.seen()
	if _, err := i.send(p.ctx, ds...); err != nil {
		p.fatalf("Deliver: %v", err)
	}
	last := -1
	for n, r := range p.remote.since(from) {
		for k, d := range ds {
			if !mentions(r, d.Entry.ID) && !mentions(r, d.ID) {
				continue
			}
			if k < last {
				p.fatalf("request %d is about delivery %d of the call, after one about delivery %d", n+1, k+1, last+1)
			}
			last = k
		}
	}
}

func checkState(p *probe) {
	if !p.capabilities().GetUsesState() {
		p.skipf("the sink does not use state")
	}
	i := p.open()
	defer i.close()
	entry := p.entry()
	state := i.succeed(p.sample(sinks.Created, entry, sampleData)).GetState()
	if len(state) == 0 {
		p.failf("uses_state, and the create of an entry answered no state")
	}
	for _, event := range []string{sinks.Updated, sinks.Deleted} {
		if !p.carries(event) {
			continue
		}
		d := p.sample(event, entry, sampleData)
		d.State = state
		r := i.deliver(p.ctx, d)
		if !success(r) {
			p.failf("a delivery of %s with the state that the create answered: %s", event, say(r))
		}
		if len(r.GetState()) > 0 {
			state = r.GetState()
		}
	}
	// What an older version of the sink has left, or the disk has spoilt.
	d := p.sample(sinks.Updated, p.entry(), sampleData)
	d.State = []byte("\x00\xffnot of this sink")
	if answer, err := i.send(p.ctx, d); err != nil {
		p.failf("a delivery with a state that the sink cannot read fails: %v; it has to answer a result", err)
	} else if r := resultOf(answer, d); outcome(r) == sinks.OutcomeMisconfigured || r.GetCode() == "panic" {
		p.failf("a delivery with a state that the sink cannot read: %s", say(r))
	}
}

func checkDoneWhenAnswered(p *probe) {
	p.needsRemote()
	i := p.open()
	from := p.remote.seen()
	r := i.deliver(p.ctx, p.created())
	done := p.remote.seen()
	switch {
	case !success(r):
		p.failf("%s", say(r))
	case outcome(r) == sinks.OutcomeDelivered && done == from:
		p.failf("the sink answers delivered, and no request has come")
	}
	// Closing ends what an instance does: nothing may come afterwards, or with it.
	i.close()
	if late := p.remote.seen() - done; late > 0 {
		p.failf("%d requests came after the answer", late)
	}
}

// checkUnexpected is the one check whose deliveries break the contract: everything that
// proto3 lets be absent is.
func checkUnexpected(p *probe) {
	i := p.open()
	defer i.close()
	for what, d := range map[string]*sinkpb.Delivery{
		"an id and nothing else":          {Id: "del_0sinktestempty"},
		"a type of event of its own":      {Id: "del_0sinktestother", Event: "payment.failed", Entry: &sinkpb.Entry{Id: "e", DataJson: []byte(`{}`)}, Payload: []byte(`{}`)},
		"data that are no JSON":           {Id: "del_0sinktestnojson", Event: sinks.Created, Entry: &sinkpb.Entry{Id: "e", DataJson: []byte(`{`)}, Payload: []byte(`{`)},
		"data that are not a JSON object": {Id: "del_0sinktestlist", Event: sinks.Created, Entry: &sinkpb.Entry{Id: "e", DataJson: []byte(`[1]`)}, Payload: []byte(`[1]`)},
	} {
		ctx, cancel := context.WithTimeout(p.ctx, 10*time.Second+p.patience())
		answer, err := p.api().Deliver(ctx, &sinkpb.DeliverRequest{Instance: i.id, Deliveries: []*sinkpb.Delivery{d}})
		cancel()
		switch {
		case p.told(err) != nil:
			p.failf("a delivery with %s: the call fails with %v; it has to answer a result", what, err)
		case len(answer.GetResults()) == 0:
			p.failf("a delivery with %s: there is no result", what)
		case answer.GetResults()[0].GetCode() == "panic":
			p.failf("a delivery with %s makes the sink panic", what)
		}
	}
}

func checkPanic(p *probe) {
	if p.o.Panic == nil {
		p.skipf("Options.Panic does not say how to make it panic")
	}
	i := p.open()
	defer i.close()
	d := p.created()
	p.o.Panic(d)
	answer, err := i.send(p.ctx, d)
	if err != nil {
		p.fatalf("the call in which the sink panics fails: %v", err)
	}
	if r := resultOf(answer, d); outcome(r) != sinks.OutcomeRetry {
		p.failf("a delivery in which the sink panics: %s; want retry", say(r))
	}
	i.succeed(p.created())
	if p.capabilities().GetMaxBatch() < 3 {
		return
	}
	batch := []*sinks.Delivery{p.created(), p.created(), p.created()}
	p.o.Panic(batch[1])
	if answer, err = i.send(p.ctx, batch...); err != nil {
		p.fatalf("the batch in which the sink panics fails: %v", err)
	}
	for n, d := range batch {
		if r := resultOf(answer, d); n != 1 && !success(r) {
			p.failf("a delivery in one batch with another over which the sink panics: %s; want delivered", say(r))
		}
	}
}
