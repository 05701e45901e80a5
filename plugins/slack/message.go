package main

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/peanutsapp/peanuts-relay/sinks"
)

// writer makes messages of deliveries.
type writer struct {
	template *layout // nil: the standard message
	now      func() time.Time
}

const (
	maxName     = 200    // of a field's name, in units
	maxFallback = 400    // of the text for notifications, in units; phones show less
	maxTemplate = 10_500 // of a template's text, in units: with the cost of its blocks below maxMessage
)

// write makes the message of a delivery, or says with [sinks.Skip] that there is none.
// The block_id of the first block is the id of the delivery, for who looks for
// duplicates.
func (w writer) write(d *sinks.Delivery) (message, error) {
	fields, err := d.Entry.Fields()
	if err != nil {
		return message{}, sinks.Reject("bad_entry", fmt.Errorf("read the entry's fields: %w", err))
	}
	if w.template == nil {
		return standard(d, fields, false), nil
	}
	rendered, err := w.template.render(newEvent(d, fields), w.now)
	if errors.Is(err, errTooSlow) {
		return message{}, sinks.Retry("template_slow", 0, fmt.Errorf("the template %w", err))
	}
	if err != nil {
		return message{}, sinks.Reject("template_error", fmt.Errorf("the template cannot be used for this event: %w", err))
	}
	if rendered == "" {
		return message{}, sinks.Skip("the template is empty for this event")
	}
	return formatted(d, rendered), nil
}

// struck is the message of a deleted entry: its text is still there, struck through.
func (w writer) struck(d *sinks.Delivery) (message, error) {
	fields, err := d.Entry.Fields()
	if err != nil {
		return message{}, sinks.Reject("bad_entry", fmt.Errorf("read the entry's fields: %w", err))
	}
	if w.template != nil {
		// What a template does not provide for on deletion is not a reason to leave the
		// message as it is.
		if rendered, err := w.template.render(newEvent(d, fields), w.now); err == nil && rendered != "" {
			return formatted(d, strike(cut(rendered, maxTemplate/2))), nil
		}
	}
	return standard(d, fields, true), nil
}

// formatted is a message of a template's text.
func formatted(d *sinks.Delivery, markup string) message {
	m := message{Text: cut(markup, maxFallback)}
	for _, part := range pieces(cut(markup, maxTemplate), maxSection) {
		m.Blocks = append(m.Blocks, block{Type: "section", Text: new(mrkdwn(part))})
	}
	m.Blocks[0].BlockID = cut(d.ID, maxBlockID)
	return m
}

// standard is the message without a template: a header that says what happened, the
// entry's fields in their order, and where it came from.
func standard(d *sinks.Delivery, fields []sinks.Field, deleted bool) message {
	title := line(cmp.Or(d.Helper.Name, d.Helper.ID)) + ": " + happened(d.Event)
	if d.Test {
		title = "Test: " + title
	}
	header := plain(cut(escape(clip(title, maxHeader)), maxHeader))
	m := message{Blocks: []block{{Type: "header", BlockID: cut(d.ID, maxBlockID), Text: &header}}}

	// The context comes last, but is paid for first.
	room := maxMessage - units(header.Text) - maxFallback - 2*blockCost - units(origin(d, len(fields)))
	shown := 0
	for _, f := range fields {
		t := mrkdwn(fieldText(f, deleted))
		cost := units(t.Text) + fieldCost
		begins := shown%maxFields == 0
		if begins {
			cost += blockCost
		}
		if cost > room || (begins && len(m.Blocks) == maxBlocks-1) {
			break
		}
		room -= cost
		if begins {
			m.Blocks = append(m.Blocks, block{Type: "section"})
		}
		last := &m.Blocks[len(m.Blocks)-1]
		last.Fields = append(last.Fields, t)
		shown++
	}
	m.Blocks = append(m.Blocks, block{Type: "context", Elements: []text{mrkdwn(origin(d, len(fields)-shown))}})
	m.Text = fallback(d, header.Text, fields)
	return m
}

// happened names an event for people.
func happened(event string) string {
	switch event {
	case sinks.Created, sinks.Updated, sinks.Deleted:
		return strings.Replace(event, ".", " ", 1)
	}
	return line(event)
}

// fieldText is one field: its name, and its value below.
func fieldText(f sinks.Field, struck bool) string {
	name := cmp.Or(cut(escape(line(clip(f.Name, maxName))), maxName), "-")
	value := strings.TrimSpace(escape(clip(f.Text(), maxFieldText)))
	value = cut(value, maxFieldText-maxName-4) // "**", a line break and, when struck, "~~"
	if struck {
		value = cut(strike(value), maxFieldText-maxName-3)
	}
	return "*" + name + "*\n" + cmp.Or(value, "-")
}

// strike strikes each line through; markup does not reach over a line break, and a tilde
// inside would end it.
func strike(markup string) string {
	lines := strings.Split(strings.ReplaceAll(markup, "~", "∼"), "\n")
	for i, l := range lines {
		if l = strings.TrimSpace(l); l != "" {
			lines[i] = "~" + l + "~"
		}
	}
	return strings.Join(lines, "\n")
}

// origin says where a message came from: the command, the entry and the time, in the
// zone of who reads it.
func origin(d *sinks.Delivery, more int) string {
	var parts []string
	add := func(s string) {
		if s = escape(line(s)); s != "" {
			parts = append(parts, cut(s, maxName))
		}
	}
	if more > 0 {
		add(fmt.Sprintf("%d more fields", more))
	}
	add(clip(d.Helper.Command, maxName))
	add(clip(d.Entry.ID, maxName))
	parts = append(parts, localTime(d.Timestamp))
	return cut(strings.Join(parts, " | "), maxContext)
}

// localTime is a moment in the reader's zone
// (https://docs.slack.dev/messaging/formatting-message-text#date-formatting).
func localTime(t time.Time) string {
	return fmt.Sprintf("<!date^%d^{date_short_pretty} {time}|%s>", t.Unix(), t.UTC().Format("2006-01-02 15:04 UTC"))
}

// fallback is what a notification says: the header and the first fields.
func fallback(d *sinks.Delivery, header string, fields []sinks.Field) string {
	var b strings.Builder
	b.WriteString(header)
	separator := ": "
	for _, f := range fields {
		value := line(clip(f.Text(), maxFallback))
		if value == "" {
			continue
		}
		if units(b.String()) > maxFallback {
			break
		}
		b.WriteString(separator + escape(line(clip(f.Name, maxName))+" "+value))
		separator = ", "
	}
	if len(fields) == 0 {
		b.WriteString(" " + escape(line(clip(d.Entry.ID, maxName))))
	}
	return cut(b.String(), maxFallback)
}

// errNoMessage is returned for a deleted entry that has no message here.
var errNoMessage = errors.New("there is no message of this entry to remove")
