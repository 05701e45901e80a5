package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"text/template/parse"
	"time"

	"github.com/peanutsapp/peanuts-relay/sinks"
)

// Bounds of a template. It is the operator's own, but it runs on data that is not, inside
// a process that serves other webhooks.
const (
	maxSource = 16 << 10    // of its text, in bytes
	maxOutput = 64 << 10    // of what it prints, and of each text inside it, in bytes
	maxSteps  = 10_000      // rounds of range, and calls of other templates
	maxTime   = time.Second // in all
)

// layout is a compiled template. It is immutable and safe for concurrent use.
type layout struct{ tmpl *template.Template }

// event is what a template sees.
type event struct {
	Event      string // "entry.created"
	EventID    string
	DeliveryID string
	Webhook    string
	Timestamp  time.Time
	Helper     sinks.Helper
	Entry      struct {
		ID        string
		CreatedAt time.Time
	}
	User   sinks.User     // ID is empty when the event has no user
	Data   map[string]any // the entry's fields by name
	Fields []field        // the same, in their order
	Test   bool
}

type field struct {
	Name  string
	Value any
}

func newEvent(d *sinks.Delivery, fields []sinks.Field) event {
	e := event{
		Event: d.Event, EventID: d.EventID, DeliveryID: d.ID, Webhook: d.Webhook,
		Timestamp: d.Timestamp.UTC(), Helper: d.Helper, Data: map[string]any{}, Test: d.Test,
	}
	e.Entry.ID, e.Entry.CreatedAt = d.Entry.ID, d.Entry.CreatedAt.UTC()
	if d.User != nil {
		e.User = *d.User
	}
	for _, f := range fields {
		v := decode(f.Value)
		e.Data[f.Name] = v
		e.Fields = append(e.Fields, field{f.Name, v})
	}
	return e
}

// number is a JSON number that a float64 holds exactly. It prints as it stood there.
type number float64

func (n number) String() string {
	b, err := json.Marshal(float64(n))
	if err != nil {
		return strconv.FormatFloat(float64(n), 'g', -1, 64)
	}
	return string(b)
}

// decode makes a value for templates of JSON. Other numbers stay a json.Number.
func decode(raw json.RawMessage) any {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var v any
	if dec.Decode(&v) != nil {
		return nil
	}
	return exact(v)
}

func exact(v any) any {
	switch v := v.(type) {
	case json.Number:
		if f, err := v.Float64(); err == nil && number(f).String() == v.String() {
			return number(f)
		}
	case []any:
		for i := range v {
			v[i] = exact(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = exact(v[k])
		}
	}
	return v
}

// compile reads a template; nil for none. Its errors are for the operator.
//
// Every {{…}} that prints is made to escape what it prints, as html/template does it, and
// every loop and template inside is made to count.
func compile(source string) (*layout, error) {
	if strings.TrimSpace(source) == "" {
		return nil, nil
	}
	if len(source) > maxSource {
		return nil, fmt.Errorf("has %d bytes; at most %d can be used", len(source), maxSource)
	}
	tmpl, err := template.New("template").Funcs((&run{}).funcs()).Parse(source)
	if err != nil {
		return nil, readable(err)
	}
	seed, err := template.New("seed").Funcs((&run{}).funcs()).Parse("{{_step}}{{. | _escape}}")
	if err != nil {
		return nil, err
	}
	r := rewriter{
		step:   seed.Root.Nodes[0],
		escape: seed.Root.Nodes[1].(*parse.ActionNode).Pipe.Cmds[1],
		calls:  map[string][]string{},
	}
	for _, t := range tmpl.Templates() {
		if t.Tree == nil {
			continue
		}
		r.current = t.Name()
		r.list(t.Root)
		r.count(t.Root)
	}
	if name, ok := r.cycle(); ok {
		return nil, fmt.Errorf("the template %q calls itself", name)
	}
	l := &layout{tmpl: tmpl}
	// A name that the event does not have is found out now; what depends on data is not.
	if _, err := l.render(event{Data: map[string]any{}}, time.Now); err != nil && strings.Contains(err.Error(), "can't evaluate field") {
		return nil, err
	}
	return l, nil
}

// render runs the template. Blank space around the result is cut off. The error is
// errTooSlow when only the machine may be at fault.
func (l *layout) render(e event, clock func() time.Time) (string, error) {
	t, err := l.tmpl.Clone()
	if err != nil {
		return "", err
	}
	now := clock()
	r := &run{clock: clock, now: now, until: now.Add(maxTime), steps: maxSteps}
	out := &limited{}
	err = t.Funcs(r.funcs()).Execute(out, e)
	if errors.Is(err, errTooSlow) {
		return "", errTooSlow
	}
	if err != nil {
		return "", readable(err)
	}
	return strings.TrimSpace(out.b.String()), nil
}

// readable drops the beginning of the library's errors that says nothing here, and keeps
// the data out of what may be a long line.
func readable(err error) error {
	s := strings.TrimPrefix(err.Error(), "template: ")
	s = strings.TrimPrefix(s, "template:")
	return errors.New("line " + sinks.Truncate(s, 300))
}

// limited is a buffer that takes maxOutput bytes.
type limited struct{ b bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	if l.b.Len()+len(p) > maxOutput {
		return 0, errTooLong
	}
	return l.b.Write(p)
}

var (
	errTooLong  = fmt.Errorf("a text of more than %d bytes", maxOutput)
	errTooMany  = fmt.Errorf("more than %d rounds", maxSteps)
	errTooSlow  = fmt.Errorf("takes longer than %v", maxTime)
	errBadPrint = errors.New("a format with a width of more than three digits, with * or with more than 32 verbs")
)

// rewriter changes the trees of a template; see [compile].
type rewriter struct {
	step    parse.Node
	escape  *parse.CommandNode
	current string
	calls   map[string][]string
}

func (r *rewriter) list(l *parse.ListNode) {
	if l == nil {
		return
	}
	for _, n := range l.Nodes {
		switch n := n.(type) {
		case *parse.ActionNode:
			if len(n.Pipe.Decl) == 0 {
				n.Pipe.Cmds = append(n.Pipe.Cmds, r.escape)
			}
		case *parse.IfNode:
			r.list(n.List)
			r.list(n.ElseList)
		case *parse.WithNode:
			r.list(n.List)
			r.list(n.ElseList)
		case *parse.RangeNode:
			r.list(n.List)
			r.list(n.ElseList)
			r.count(n.List)
		case *parse.TemplateNode:
			r.calls[r.current] = append(r.calls[r.current], n.Name)
		}
	}
}

// count makes a list of nodes begin with a step.
func (r *rewriter) count(l *parse.ListNode) {
	l.Nodes = append([]parse.Node{r.step}, l.Nodes...)
}

// cycle finds a template that calls itself, through others or not.
func (r *rewriter) cycle() (found string, ok bool) {
	const visiting, done = 1, 2
	state := map[string]int{}
	var visit func(name string) bool
	visit = func(name string) bool {
		switch state[name] {
		case visiting:
			found = name
			return true
		case done:
			return false
		}
		state[name] = visiting
		if slices.ContainsFunc(r.calls[name], visit) {
			return true
		}
		state[name] = done
		return false
	}
	return found, slices.ContainsFunc(slices.Sorted(maps.Keys(r.calls)), visit)
}
