package pluginhost

import (
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/event"
	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
)

// message is everything of one delivery that is allocated, in one piece.
type message struct {
	delivery        sinkpb.Delivery
	helper          sinkpb.Helper
	entry           sinkpb.Entry
	user            sinkpb.User
	timestamp, made timestamppb.Timestamp
}

// request is the call for os, with the signatures of this moment, which it notes in as.
// The data of the payloads is not copied. whole = all payloads could be taken apart.
func (i *Instance) request(os []*delivery.Outbound, as []*delivery.Attempt, now time.Time) (req *sinkpb.DeliverRequest, whole bool) {
	req = &sinkpb.DeliverRequest{Instance: i.id, Deliveries: make([]*sinkpb.Delivery, len(os))}
	messages := make([]message, len(os))
	whole = true
	for n, o := range os {
		m := &messages[n]
		ok := i.fill(m, o)
		whole = whole && ok
		if i.opts.Signer != nil {
			as[n].Signatures = i.opts.Signer.Sign(nil, o.DeliveryID, now, o.Payload)
			m.delivery.Headers = make(map[string]string, len(as[n].Signatures))
			for _, h := range as[n].Signatures {
				m.delivery.Headers[h.Name] = h.Value
			}
		}
		req.Deliveries[n] = &m.delivery
	}
	return req, whole
}

// fill makes a message of a delivery. Texts that are not UTF-8 are made so: protobuf
// refuses a whole call over one bad byte.
func (i *Instance) fill(m *message, o *delivery.Outbound) (ok bool) {
	p, ok := event.Split(o.Payload)
	d := &m.delivery
	d.Id, d.Webhook, d.EventId, d.Event = valid(o.DeliveryID), valid(o.Webhook), valid(o.EventID), valid(o.EventType)
	d.Attempt, d.Payload, d.State, d.Sequence, d.Test = uint32(max(o.Attempt, 0)), o.Payload, o.EntryState, o.Sequence, o.Test
	setTime(&m.timestamp, p.Timestamp)
	d.Timestamp = &m.timestamp

	m.helper.Id, m.helper.Name, m.helper.Command = p.Helper.ID, p.Helper.Name, p.Helper.Command
	if p.Helper.ID == "" { // the other format does not tell
		h := i.opts.Helper
		m.helper.Id, m.helper.Name, m.helper.Command = valid(h.ID), valid(h.Name), valid(h.Command)
		if h.ID == "" {
			m.helper.Id, _, _ = strings.Cut(d.Webhook, ".")
		}
	}
	d.Helper = &m.helper

	m.entry.Id, m.entry.DataJson = valid(o.EntryID), p.Data
	if m.entry.Id == "" {
		m.entry.Id = p.EntryID
	}
	if !p.CreatedAt.IsZero() {
		setTime(&m.made, p.CreatedAt)
		m.entry.CreatedAt = &m.made
	}
	d.Entry = &m.entry
	if p.HasUser {
		m.user.Id = p.UserID
		d.User = &m.user
	}
	return ok
}

func setTime(to *timestamppb.Timestamp, t time.Time) {
	to.Seconds, to.Nanos = t.Unix(), int32(t.Nanosecond())
}

func valid(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
