package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// eventFlags describe one event.
type eventFlags struct {
	helper, event, entry string
	user, id, timestamp  string
	idempotencyKey       string

	order []assignment // of --set and --set-string, as they stand on the command line
}

// assignment is one KEY=VALUE.
type assignment struct {
	text    string
	literal bool
}

// assignments collects a repeatable flag into a list that two flags share.
type assignments struct {
	list    *[]assignment
	literal bool
}

var _ pflag.Value = assignments{}

func (v assignments) String() string { return "" }
func (v assignments) Type() string   { return "KEY=VALUE" }
func (v assignments) Set(text string) error {
	if key, _, ok := strings.Cut(text, "="); !ok || key == "" {
		return errors.New("want KEY=VALUE")
	}
	*v.list = append(*v.list, assignment{text: text, literal: v.literal})
	return nil
}

func (f *eventFlags) register(c *cobra.Command) {
	flags := c.Flags()
	flags.StringVar(&f.helper, "helper", "", "`ID` of the helper")
	flags.StringVar(&f.event, "event", "", "`TYPE`: created, updated, deleted, or one that the helper declares")
	flags.StringVar(&f.entry, "entry", "", "`ID` of the entry")
	flags.Var(assignments{list: &f.order}, "set", "`KEY=VALUE` of the entry; a JSON value as such, any other as text; repeatable")
	flags.Var(assignments{list: &f.order, literal: true}, "set-string", "`KEY=VALUE` that is text whatever it looks like; repeatable")
	flags.StringVar(&f.user, "user", "", "`ID` of the user")
	flags.StringVar(&f.id, "id", "", "`ID` of the event; a repeat within 24 h is accepted once")
	flags.StringVar(&f.timestamp, "timestamp", "", "`TIME` of the event, RFC 3339; default now")
	flags.StringVar(&f.idempotencyKey, "idempotency-key", "", "`KEY`: a repeat with the same key within 24 h is accepted once")
}

// given is the first flag on the command line that describes an event, "" when
// there is none.
func (f *eventFlags) given(cmd *cobra.Command) string {
	for _, name := range []string{"helper", "event", "entry", "set", "set-string", "user", "id", "timestamp", "idempotency-key"} {
		if cmd.Flags().Changed(name) {
			return name
		}
	}
	return ""
}

// document is the event as it is handed in. What the daemon must judge (whether
// the helper exists, what the type is called) is left to it.
func (f *eventFlags) document(cmd *cobra.Command) ([]byte, error) {
	for _, required := range []struct{ flag, value string }{{"helper", f.helper}, {"event", f.event}, {"entry", f.entry}} {
		if required.value == "" {
			return nil, usagef(seeHelp(cmd), "an event needs --%s", required.flag)
		}
	}
	var b objectWriter
	b.string("event", eventType(f.event))
	b.string("helper", f.helper)
	data, err := f.data(cmd)
	if err != nil {
		return nil, err
	}
	var entry objectWriter
	entry.string("id", f.entry)
	entry.raw("data", data)
	b.raw("entry", entry.bytes())
	if f.user != "" {
		var user objectWriter
		user.string("id", f.user)
		b.raw("user", user.bytes())
	}
	if f.timestamp != "" {
		b.string("timestamp", f.timestamp)
	}
	if f.id != "" {
		b.string("id", f.id)
	}
	return b.bytes(), nil
}

func (f *eventFlags) data(cmd *cobra.Command) ([]byte, error) {
	var b objectWriter
	var keys []string
	for _, item := range f.order {
		key, value, _ := strings.Cut(item.text, "=")
		if slices.Contains(keys, key) {
			return nil, usagef(seeHelp(cmd), "%q is set twice", key)
		}
		keys = append(keys, key)
		if item.literal || !isJSONValue(value) {
			b.string(key, value)
		} else {
			b.raw(key, []byte(strings.TrimSpace(value)))
		}
	}
	return b.bytes(), nil
}

// eventType spells the three words for entries out; they are the same to the
// configuration.
func eventType(word string) string {
	switch word {
	case "create", "created":
		return "entry.created"
	case "update", "updated":
		return "entry.updated"
	case "delete", "deleted":
		return "entry.deleted"
	}
	return word
}

// isJSONValue reports whether text is a JSON number, boolean, null, array,
// object or quoted string. Its digits are passed on as they are.
func isJSONValue(text string) bool { return json.Valid([]byte(text)) }

// objectWriter writes an object whose keys keep their order.
type objectWriter struct{ b bytes.Buffer }

func (w *objectWriter) string(key, value string) { w.raw(key, quoteJSON(value)) }

func (w *objectWriter) raw(key string, value []byte) {
	if w.b.Len() == 0 {
		w.b.WriteByte('{')
	} else {
		w.b.WriteByte(',')
	}
	w.b.Write(quoteJSON(key))
	w.b.WriteByte(':')
	w.b.Write(value)
}

func (w *objectWriter) bytes() []byte {
	if w.b.Len() == 0 {
		return []byte("{}")
	}
	return append(bytes.Clone(w.b.Bytes()), '}')
}

func quoteJSON(s string) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	// Encoding a string into memory cannot fail.
	_ = enc.Encode(s)
	return bytes.TrimRight(b.Bytes(), "\n")
}
