package slacktest

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf16"
)

// document is the answer of a method: an object with its members in Slack's order, in
// ASCII.
func document(word string, doc map[string]any) string {
	all := map[string]any{"ok": word == ""}
	maps.Copy(all, doc)
	if word != "" {
		all["error"] = word
	}
	names := slices.SortedFunc(maps.Keys(all), func(a, b string) int {
		if n := place(a) - place(b); n != 0 {
			return n
		}
		return strings.Compare(a, b)
	})
	var members []string
	for _, name := range names {
		b, err := json.Marshal(all[name])
		if err != nil {
			panic(err) // made of texts and of JSON that was read
		}
		members = append(members, fmt.Sprintf("%q:%s", name, b))
	}
	return escaped("{" + strings.Join(members, ",") + "}")
}

// place is where a member stands.
func place(name string) int {
	order := []string{"ok", "error", "channel", "ts", "text", "message"}
	if i := slices.Index(order, name); i >= 0 {
		return i
	}
	return len(order)
}

// escaped is JSON as PHP writes it.
func escaped(document string) string {
	var b strings.Builder
	for _, r := range document {
		switch {
		case r == '/':
			b.WriteString(`\/`)
		case r < 0x80:
			b.WriteRune(r)
		default:
			for _, unit := range utf16.Encode([]rune{r}) {
				fmt.Fprintf(&b, `\u%04x`, unit)
			}
		}
	}
	return b.String()
}
