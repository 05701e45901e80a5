package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/peanutsapp/peanuts-relay/sinks"
)

// editEvery keeps chat.update and chat.delete, of all channels, within tier 3: 50 calls a
// minute of each (https://docs.slack.dev/apis/web-api/rate-limits).
const editEvery = 1200 * time.Millisecond

// bot posts as an app, and keeps one message for each entry.
type bot struct {
	api     *api
	writer  writer
	pacer   *pacer
	channel string // as the settings name it
	strike  bool

	mu        sync.Mutex
	asked     bool
	workspace string // its URL, which links begin with; "" = not known
}

// state is kept by the relay for each entry: where its message is.
type state struct {
	Channel  string `json:"channel"`       // id
	TS       string `json:"ts"`            // names the message in the channel
	To       string `json:"to"`            // the setting at that time
	Sequence uint64 `json:"seq,omitempty"` // of the event that the message shows
}

// arguments are those of chat.postMessage, chat.update and chat.delete.
type arguments struct {
	Channel string  `json:"channel"`
	TS      string  `json:"ts,omitempty"`
	Text    string  `json:"text,omitempty"`
	Blocks  []block `json:"blocks,omitempty"`
	Parse   string  `json:"parse,omitempty"` // "none": chat.update would make mentions of names
	// Only chat.postMessage has these, and shows pages behind links without them.
	UnfurlLinks *bool `json:"unfurl_links,omitempty"`
	UnfurlMedia *bool `json:"unfurl_media,omitempty"`
}

// Deliver posts, edits or removes the entry's message. Events of another type than the
// three of entries are messages of their own.
func (b *bot) Deliver(ctx context.Context, d *sinks.Delivery) (sinks.Receipt, error) {
	var st state
	if len(d.State) > 0 && json.Unmarshal(d.State, &st) != nil {
		st = state{} // of another version: as if there were no message
	}
	known := st.Channel != "" && st.TS != ""
	var receipt sinks.Receipt
	var err error
	switch own := d.Event == sinks.Created || d.Event == sinks.Updated; {
	case d.Event == sinks.Deleted && !known:
		err = sinks.Skip(errNoMessage.Error())
	case (own || d.Event == sinks.Deleted) && known && d.Sequence != 0 && d.Sequence < st.Sequence:
		// Kept by name: without, a deletion would make the relay forget the message.
		receipt.State = d.State
		err = sinks.Skip("the message already shows a later event of this entry")
	case d.Event == sinks.Deleted:
		receipt, err = b.remove(ctx, d, st)
	case own && known:
		receipt, err = b.edit(ctx, d, st)
	default:
		receipt, err = b.post(ctx, d, own)
	}
	if r, ok := errors.AsType[*refusal](err); ok {
		receipt.Status = 200
		if _, judged := errors.AsType[*sinks.Verdict](err); !judged {
			err = r.verdict()
		}
	}
	return receipt, err
}

// post makes a new message. With keep it becomes the entry's.
func (b *bot) post(ctx context.Context, d *sinks.Delivery, keep bool) (sinks.Receipt, error) {
	m, err := b.writer.write(d)
	if err != nil {
		return sinks.Receipt{}, err
	}
	// Before the message, so that a Slack that does not answer leaves nothing behind.
	b.learnWorkspace(ctx)
	answer, err := b.call(ctx, postMessage, arguments{
		Channel: b.channel, Text: m.Text, Blocks: m.Blocks, UnfurlLinks: new(false), UnfurlMedia: new(false),
	})
	if err != nil {
		return sinks.Receipt{}, err
	}
	b.pacer.learn(b.api.token, b.channel, answer.Channel)
	receipt := b.receipt("posted", answer.Channel, answer.TS)
	if keep && answer.Channel != "" && answer.TS != "" {
		receipt.State = b.state(d, answer.Channel, answer.TS)
	}
	return receipt, nil
}

// edit shows the event in the entry's message. Where that cannot be changed any more, a
// new one takes its place: the event is worth more than the one place.
func (b *bot) edit(ctx context.Context, d *sinks.Delivery, st state) (sinks.Receipt, error) {
	m, err := b.writer.write(d)
	if err != nil {
		return sinks.Receipt{}, err
	}
	b.learnWorkspace(ctx)
	err = b.change(ctx, st, m)
	if r, ok := errors.AsType[*refusal](err); ok && (r.final() || r.gone()) {
		return b.post(ctx, d, true)
	}
	if err != nil {
		return sinks.Receipt{}, err
	}
	receipt := b.receipt("edited", st.Channel, st.TS)
	receipt.State = b.state(d, st.Channel, st.TS)
	return receipt, nil
}

func (b *bot) change(ctx context.Context, st state, m message) error {
	_, err := b.call(ctx, update, arguments{Channel: st.Channel, TS: st.TS, Text: m.Text, Blocks: m.Blocks, Parse: "none"})
	return err
}

// remove deletes the entry's message, or strikes it through. One that is not there any
// more is what was wanted, also when it was this delivery's own, earlier attempt.
func (b *bot) remove(ctx context.Context, d *sinks.Delivery, st state) (sinks.Receipt, error) {
	var refused error // of chat.delete, when striking is tried instead
	if !b.strike {
		_, err := b.call(ctx, remove, arguments{Channel: st.Channel, TS: st.TS})
		r, ok := errors.AsType[*refusal](err)
		switch {
		case err == nil:
			return b.receipt("removed", st.Channel, ""), nil
		case ok && (r.code == "compliance_exports_prevent_deletion" || r.code == "cant_delete_message"):
			refused = err
		default:
			return sinks.Receipt{}, b.without(st, err)
		}
	}
	m, err := b.writer.struck(d)
	if err != nil {
		return sinks.Receipt{}, err
	}
	err = b.change(ctx, st, m)
	if r, ok := errors.AsType[*refusal](err); ok && refused != nil && r.final() && r.code != "message_not_found" {
		return sinks.Receipt{}, refused
	}
	if err != nil {
		return sinks.Receipt{}, b.without(st, err)
	}
	return b.receipt("struck through", st.Channel, st.TS), nil
}

// without says what an error of removing means. What is wrong with a channel that the
// webhook has left since does not stop the webhook.
func (b *bot) without(st state, err error) error {
	r, ok := errors.AsType[*refusal](err)
	switch {
	case !ok:
		return err
	case r.code == "message_not_found":
		return sinks.Skip("the message is not there any more")
	case r.gone() && st.To != b.channel:
		return sinks.Reject(r.code, r)
	}
	return err
}

// final says that the message itself cannot be changed, ever.
func (r *refusal) final() bool {
	switch r.code {
	case "message_not_found", "cant_update_message", "edit_window_closed", "is_inactive", "block_mismatch", "streaming_state_conflict":
		return true
	}
	return false
}

// gone says that the app cannot reach the message's channel.
func (r *refusal) gone() bool {
	switch r.code {
	case "channel_not_found", "not_in_channel", "is_archived", "is_inactive":
		return true
	}
	return false
}

// call waits for its turn, and keeps others from calling when Slack wants a pause.
func (b *bot) call(ctx context.Context, method string, args arguments) (answer, error) {
	channel := b.pacer.channelKey(b.api.token, args.Channel)
	slots := []slot{{channel, b.pacer.every}}
	own := methodKey(b.api.token, method)
	if method != postMessage {
		slots = append(slots, slot{own, min(editEvery, b.pacer.every*2)})
	}
	if err := b.pacer.take(ctx, b, slots...); err != nil {
		return answer{}, err
	}
	a, err := b.api.call(ctx, method, args)
	if v := sinks.VerdictOf(err); v.Outcome == sinks.OutcomeRateLimited {
		b.pacer.pause(channel, b, v.After)
		if method != postMessage {
			b.pacer.pause(own, b, v.After)
		}
	}
	return a, err
}

func (b *bot) state(d *sinks.Delivery, channel, ts string) []byte {
	kept, err := json.Marshal(state{Channel: channel, TS: ts, To: b.channel, Sequence: d.Sequence})
	if err != nil {
		return nil // cannot be: it is text and a number
	}
	return kept
}

// receipt says what was done, with a link to the message unless ts is empty.
func (b *bot) receipt(done, channel, ts string) sinks.Receipt {
	r := sinks.Receipt{Status: 200, Message: fmt.Sprintf("%s in channel %s", done, sinks.Truncate(channel, 100))}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.workspace != "" && channel != "" && ts != "" {
		// The form of https://docs.slack.dev/reference/methods/chat.getPermalink, without
		// another call for each message.
		r.RemoteURL = b.workspace + "archives/" + channel + "/p" + strings.ReplaceAll(ts, ".", "")
	}
	return r
}

// learnWorkspace asks once where the workspace is; without an answer there are no links.
func (b *bot) learnWorkspace(ctx context.Context) {
	b.mu.Lock()
	asked := b.asked
	b.asked = true
	b.mu.Unlock()
	if asked {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	a, err := b.api.call(ctx, authTest, struct{}{})
	if err != nil || !strings.HasPrefix(a.URL, "https://") || !strings.HasSuffix(a.URL, "/") {
		return // the message's own call will say what is wrong
	}
	b.mu.Lock()
	b.workspace = a.URL
	b.mu.Unlock()
}
