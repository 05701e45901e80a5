package configtest

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/peanutsapp/peanuts-relay/internal/config"
	"github.com/peanutsapp/peanuts-relay/internal/event"
)

// json compares a body with a structure that it has to contain.
func (c *comparison) json(want config.JSON, body []byte) {
	path := c.at("json")
	// The expected values go the way of an entry's data, so that numbers and
	// texts have the form that they have in the body.
	in, err := event.Parse([]byte(`{"event":"entry.created","helper":"h","entry":{"id":"e","data":`+string(want)+`}}`), Time())
	if err != nil {
		c.fail(path, "", "what is expected can be no part of a body: %s", printable(err.Error()))
		return
	}
	c.shown = c.shown && !c.cfg.Refers(path...)
	c.contains(decode(in.Data), decode(body), path, len(path))
}

// decode reads JSON that this module has written.
func decode(text []byte) (v any) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	_ = dec.Decode(&v) // cannot fail: v stays nil, and nothing is equal to it
	return v
}

// contains compares got with want, which stands at path in the file; what is
// below skip names is the path in the body.
func (c *comparison) contains(want, got any, path []string, skip int) {
	switch w := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			break
		}
		for _, name := range slices.Sorted(maps.Keys(w)) {
			below := append(path[:len(path):len(path)], name)
			if value, ok := g[name]; ok {
				c.contains(w[name], value, below, skip)
			} else {
				c.fail(below, "", "the body has no %s", bodyPath(below[skip:]))
			}
		}
		return
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(w) {
			break
		}
		for i := range w {
			c.contains(w[i], g[i], append(path[:len(path):len(path)], strconv.Itoa(i)), skip)
		}
		return
	default:
		if want == got {
			return
		}
	}
	if !c.shown {
		c.fail(path, "it is not shown because it has values that come through references", "the body differs at %s", bodyPath(path[skip:]))
		return
	}
	c.fail(path, "", "the body has %s at %s", shortJSON(got), bodyPath(path[skip:]))
}

func bodyPath(names []string) string {
	if len(names) == 0 {
		return "its top"
	}
	return printable(strings.Join(names, "."))
}

// shortJSON is a value of a body, for a message.
func shortJSON(v any) string {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v) // cannot fail: v was JSON
	text := strings.TrimSuffix(b.String(), "\n")
	if len(text) > contextAfter {
		return excerpt(text, 0)
	}
	return printable(text)
}
