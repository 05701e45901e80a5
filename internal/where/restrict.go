package where

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/itchyny/gojq"

	"github.com/peanutsapp/peanuts-relay/internal/suggest"
)

// allowed is what an expression may call. Left out is what reads anything but the
// payload (env, input, now, $ENV, modules), what may go on for ever or make a value
// of any size out of a small one (range, recurse(f), repeat, while, until, limit,
// combinations, def, reduce, foreach, setpath, join, tojson, assignments), and what
// is of no use to a decision.
const allowed = `
	IN abs add all any arrays ascii_downcase ascii_upcase booleans ceil contains empty endswith error
	explode false first flatten floor from_entries fromdate fromdateiso8601 getpath group_by has implode in
	index indices inside isempty isinfinite isnan isnormal iterables keys keys_unsorted last leaf_paths
	length ltrim ltrimstr map max max_by min min_by not nth null nulls numbers objects paths recurse reverse
	rindex round rtrim rtrimstr scalars select sort sort_by split sqrt startswith strings test to_entries
	toarray todate tonumber tostring trim true trunc type unique unique_by utf8bytelength values
	with_entries`

// builders make an array or an object, as [...] and {...} do.
const builders = "from_entries group_by map sort_by to_entries unique_by with_entries max_by min_by toarray"

const (
	// mostBuilt bounds how many arrays and objects an expression builds: each may hold
	// what the one before it holds several times.
	mostBuilt = 6
	// mostText bounds what + and add work on, in bytes or elements: the largest event
	// and a little.
	mostText = 2 << 20
	// mostMatched bounds the text that a regular expression is tried on, in bytes.
	// That takes time in proportion to it, and a step cannot be interrupted.
	mostMatched = 64 << 10
)

// Guards pass on what they are given, or fail if a step on it could take long or make
// something large.
const (
	guardSum     = "_relay_sum"     // an operand of +
	guardFactor  = "_relay_factor"  // an operand of *
	guardSummed  = "_relay_summed"  // what add adds up
	guardMatched = "_relay_matched" // what a regular expression is tried on
	guardText    = "_relay_text"    // what becomes a string
)

// guarded are the calls that have a guard before them.
var guarded = map[string]string{"add": guardSummed, "test": guardMatched, "tostring": guardText}

// restrictor walks an expression. The tree has no positions, so it looks for what it
// refuses in the source: the first place where the word stands.
type restrictor struct {
	source string
	built  int
	found  *Error // the first
}

func (r *restrictor) refuse(word, format string, args ...any) {
	if r.found == nil {
		r.found = &Error{Offset: offsetOf(r.source, word), Message: fmt.Sprintf(format, args...)}
	}
}

// offsetOf is where a word stands in an expression, 0 when it cannot be told.
func offsetOf(source, word string) int {
	pattern := regexp.QuoteMeta(word)
	if regexp.MustCompile(`^\w+$`).MatchString(word) {
		pattern = `(?:^|[^.$\w])(` + pattern + `)\b`
	} else {
		pattern = `(` + pattern + `)`
	}
	if at := regexp.MustCompile(pattern).FindStringSubmatchIndex(source); at != nil {
		return at[2]
	}
	return 0
}

func (r *restrictor) query(q *gojq.Query) {
	if q == nil || r.found != nil {
		return
	}
	switch {
	case q.Meta != nil || len(q.Imports) > 0:
		r.refuse("import", "modules cannot be used here")
	case len(q.FuncDefs) > 0:
		r.refuse("def", "functions cannot be defined here: a recursive one may never end")
	case q.Op >= gojq.OpAssign:
		r.refuse(q.Op.String(), "%q assigns; an expression here only chooses (== compares)", q.Op.String())
	}
	r.term(q.Term)
	r.query(q.Left)
	r.query(q.Right)
	for _, p := range q.Patterns {
		r.pattern(p)
	}
	switch q.Op {
	case gojq.OpAdd:
		q.Left, q.Right = behind(q.Left, guardSum), behind(q.Right, guardSum)
	case gojq.OpMul:
		q.Left, q.Right = behind(q.Left, guardFactor), behind(q.Right, guardFactor)
	}
}

// behind is (q | guard).
func behind(q *gojq.Query, guard string) *gojq.Query {
	call := &gojq.Query{Term: &gojq.Term{Type: gojq.TermTypeFunc, Func: &gojq.Func{Name: guard}}}
	piped := &gojq.Query{Left: q, Op: gojq.OpPipe, Right: call}
	return &gojq.Query{Term: &gojq.Term{Type: gojq.TermTypeQuery, Query: piped}}
}

func (r *restrictor) pattern(p *gojq.Pattern) {
	if p == nil {
		return
	}
	for _, e := range p.Array {
		r.pattern(e)
	}
	for _, o := range p.Object {
		r.text(o.KeyString)
		r.query(o.KeyQuery)
		r.pattern(o.Val)
	}
}

func (r *restrictor) term(t *gojq.Term) {
	if t == nil || r.found != nil {
		return
	}
	switch t.Type {
	case gojq.TermTypeReduce:
		r.refuse("reduce", "reduce cannot be used here: what it makes may be of any size")
	case gojq.TermTypeForeach:
		r.refuse("foreach", "foreach cannot be used here: what it makes may be of any size")
	case gojq.TermTypeLabel, gojq.TermTypeBreak:
		r.refuse("label", "label and break cannot be used here")
	case gojq.TermTypeFormat:
		r.refuse(t.Format, "%s cannot be used here", t.Format)
	case gojq.TermTypeFunc:
		r.call(t.Func)
		if guard, ok := guarded[t.Func.Name]; ok {
			call := &gojq.Query{Term: &gojq.Term{Type: gojq.TermTypeFunc, Func: t.Func}}
			t.Type, t.Func = gojq.TermTypeQuery, nil
			t.Query = &gojq.Query{Left: behind(&gojq.Query{Term: &gojq.Term{Type: gojq.TermTypeIdentity}}, guard), Op: gojq.OpPipe, Right: call}
			for _, s := range t.SuffixList {
				r.index(s.Index)
			}
			return
		}
	case gojq.TermTypeArray:
		r.build()
		r.query(t.Array.Query)
	case gojq.TermTypeObject:
		r.build()
		for _, kv := range t.Object.KeyVals {
			r.text(kv.KeyString)
			r.query(kv.KeyQuery)
			r.query(kv.Val)
		}
	case gojq.TermTypeIf:
		r.query(t.If.Cond)
		r.query(t.If.Then)
		for _, e := range t.If.Elif {
			r.query(e.Cond)
			r.query(e.Then)
		}
		r.query(t.If.Else)
	case gojq.TermTypeTry:
		r.query(t.Try.Body)
		r.query(t.Try.Catch)
	case gojq.TermTypeUnary:
		r.term(t.Unary.Term)
	}
	r.text(t.Str)
	r.index(t.Index)
	r.query(t.Query)
	for _, s := range t.SuffixList {
		r.index(s.Index)
	}
}

func (r *restrictor) index(i *gojq.Index) {
	if i != nil {
		r.text(i.Str)
		r.query(i.Start)
		r.query(i.End)
	}
}

func (r *restrictor) text(s *gojq.String) {
	if s != nil {
		for i, q := range s.Queries {
			r.query(q)
			s.Queries[i] = behind(q, guardText)
		}
	}
}

func (r *restrictor) build() {
	if r.built++; r.built > mostBuilt {
		r.refuse("[", "more than %d arrays and objects are built", mostBuilt)
	}
}

func (r *restrictor) call(f *gojq.Func) {
	names := strings.Fields(allowed)
	switch {
	case strings.HasPrefix(f.Name, "$"):
		if f.Name == "$ENV" || f.Name == "$__loc__" || f.Name == "$__prog_args" {
			r.refuse(f.Name, "%s cannot be used here: an expression sees the payload only", f.Name)
		}
	case slices.Contains([]string{"env", "input", "inputs", "now", "debug", "stderr", "input_filename", "input_line_number"}, f.Name):
		r.refuse(f.Name, "%s cannot be used here: an expression sees the payload only", f.Name)
	case !slices.Contains(names, f.Name):
		hint := ""
		if word := suggest.Word(f.Name, names); word != "" {
			hint = fmt.Sprintf("; did you mean %q?", word)
		}
		r.refuse(f.Name, "there is no function %s here%s", f.Name, hint)
	}
	switch {
	case (f.Name == "add" || f.Name == "recurse") && len(f.Args) > 0, f.Name == "split" && len(f.Args) > 1:
		r.refuse(f.Name, "%s takes fewer arguments here", f.Name)
	case slices.Contains(strings.Fields(builders), f.Name):
		r.build()
	}
	for _, a := range f.Args {
		r.query(a)
	}
}

// functions are the guards as the compiler takes them.
func functions() []gojq.CompilerOption {
	guard := func(name string, fault func(any) string) gojq.CompilerOption {
		return gojq.WithFunction(name, 0, 0, func(v any, _ []any) any {
			if text := fault(v); text != "" {
				return errors.New(text)
			}
			return v
		})
	}
	return []gojq.CompilerOption{
		guard(guardSum, func(v any) string { return tooLarge(sizeOf(v)) }),
		guard(guardFactor, func(v any) string {
			switch v.(type) {
			case string, []any, map[string]any:
				return "* takes numbers only here"
			}
			return ""
		}),
		guard(guardSummed, func(v any) string {
			sum := 0
			if list, ok := v.([]any); ok {
				for _, e := range list {
					sum += sizeOf(e)
				}
			}
			return tooLarge(sum)
		}),
		guard(guardMatched, func(v any) string {
			if text, ok := v.(string); ok && len(text) > mostMatched {
				return fmt.Sprintf("the text is longer than the %d bytes that a regular expression is tried on", mostMatched)
			}
			return ""
		}),
		guard(guardText, func(v any) string {
			switch v.(type) {
			case []any, map[string]any:
				return "an array or object cannot become a string here"
			}
			return ""
		}),
	}
}

// sizeOf is the size of one value, without what is in its elements.
func sizeOf(v any) int {
	switch v := v.(type) {
	case string:
		return len(v)
	case []any:
		return len(v)
	case map[string]any:
		return len(v)
	}
	return 1
}

func tooLarge(size int) string {
	if size > mostText {
		return fmt.Sprintf("a sum of more than %d bytes or elements", mostText)
	}
	return ""
}
