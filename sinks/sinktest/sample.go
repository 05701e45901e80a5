package sinktest

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
	"github.com/peanutsapp/peanuts-relay/sinks"
)

const (
	sampleWebhook = "expenses.suite"
	sampleSecret  = "whsec_c2lua3Rlc3Qgc2lnbnMgd2l0aCB0aGlz" // #nosec G101 -- of samples

	// exactNumber is more than a float64 can say, and so is its text.
	exactNumber = "12345678901234567890"
	exactText   = "Grüße 🥜 日本 <&> \u2028 =1+1"

	// sampleData has what real entries have: amounts, words, dates, a null, a list.
	sampleData = `{"amount":42.5,"category":"Food & Dining","note":"` + exactText + `","date":"2025-01-15","invoice":` + exactNumber + `,"shared":true,"tags":["team","lunch"],"receipt":null}`
)

// sample is a delivery as the relay makes it: a new event about an entry.
func (s *suite) sample(event, entry, data string) *sinks.Delivery {
	s.samples++
	s.sequence++
	d := &sinks.Delivery{
		ID:        fmt.Sprintf("del_0sinktest%08d", s.samples),
		Webhook:   sampleWebhook,
		EventID:   fmt.Sprintf("evt_0sinktest%08d", s.samples),
		Event:     event,
		Timestamp: time.Date(2025, 1, 15, 14, 32, 0, 0, time.UTC).Add(time.Duration(s.samples) * time.Second),
		Helper:    sinks.Helper{ID: "expenses", Name: "Daily Expenses", Command: "/expenses"},
		Entry:     sinks.Entry{ID: entry, CreatedAt: time.Date(2025, 1, 15, 14, 32, 0, 0, time.UTC), Data: json.RawMessage(data)},
		User:      &sinks.User{ID: "user-456"},
		Attempt:   1,
		Sequence:  s.sequence,
	}
	if s.o.Adapt != nil {
		s.o.Adapt(d)
	}
	sign(d)
	return d
}

// entry is the id of an entry that no delivery was about yet.
func (s *suite) entry() string { return fmt.Sprintf("entry-789-%d", s.samples+1) }

// created is a delivery about a new entry.
func (s *suite) created() *sinks.Delivery { return s.sample(sinks.Created, s.entry(), sampleData) }

// sign makes the payload of a delivery, and its headers.
func sign(d *sinks.Delivery) {
	at := func(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }
	var b strings.Builder
	fmt.Fprintf(&b, `{"event":%s,"timestamp":"%s","helper":{"id":%s,"name":%s,"command":%s},"entry":{"id":%s,"data":%s,"created_at":"%s"}`,
		quote(d.Event), at(d.Timestamp), quote(d.Helper.ID), quote(d.Helper.Name), quote(d.Helper.Command), quote(d.Entry.ID), d.Entry.Data, at(d.Entry.CreatedAt))
	if d.User != nil {
		fmt.Fprintf(&b, `,"user":{"id":%s}`, quote(d.User.ID))
	}
	b.WriteString("}")
	d.Payload = []byte(b.String())
	mac := hmac.New(sha256.New, []byte(sampleSecret))
	mac.Write(d.Payload)
	d.Headers = map[string]string{"X-Peanuts-Signature": "sha256=" + hex.EncodeToString(mac.Sum(nil))}
}

func quote(s string) string {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(s); err != nil {
		panic(err) // a string always encodes
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// wire is a delivery as it travels.
func wire(d *sinks.Delivery) *sinkpb.Delivery {
	p := &sinkpb.Delivery{
		Id: d.ID, Webhook: d.Webhook, EventId: d.EventID, Event: d.Event, Timestamp: timestamppb.New(d.Timestamp),
		Helper:  &sinkpb.Helper{Id: d.Helper.ID, Name: d.Helper.Name, Command: d.Helper.Command},
		Entry:   &sinkpb.Entry{Id: d.Entry.ID, CreatedAt: timestamppb.New(d.Entry.CreatedAt), DataJson: d.Entry.Data},
		Attempt: uint32(d.Attempt), Payload: d.Payload, Headers: d.Headers, State: d.State, Sequence: d.Sequence, Test: d.Test,
	}
	if d.User != nil {
		p.User = &sinkpb.User{Id: d.User.ID}
	}
	return p
}
