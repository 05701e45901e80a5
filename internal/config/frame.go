package config

import (
	"cmp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/peanutsapp/peanuts-relay/internal/secret"
)

// frame is one line of a file, made safe to print, and what to underline.
type frame struct {
	text          string
	start, length int
}

// How much of a token may be shown. When a node is reached twice, through an
// alias, the stricter one holds.
type shown uint8

const (
	showAll   shown = iota // a key, or a value that is no secret
	showURL                // scheme and host
	showRef                // references and what is harmless beside them
	showNever              // not even that: its meaning is unknown
)

// widestFrame is how much of a long line is printed.
const widestFrame = 120

// source is one file of the configuration.
type source struct {
	name  string
	order int
	data  []byte // without a byte order mark
	open  bool   // everybody may read it
	lines []string
	nodes map[*yaml.Node]shown
	index map[int][]*yaml.Node // by line, filled on first use
}

func (s *source) note(n *yaml.Node, how shown) {
	if s.nodes == nil {
		s.nodes = map[*yaml.Node]shown{}
	}
	if old, ok := s.nodes[n]; !ok || how > old {
		s.nodes[n] = how
	}
}

// line returns line n, 1-based, splitting where the YAML reader does: else a
// file with, say, U+2028 in a secret would have its lines mixed up and the
// wrong ones masked.
func (s *source) line(n int) (string, bool) {
	if s.lines == nil {
		text := strings.NewReplacer("\r\n", "\n", "\r", "\n", "\u0085", "\n", "\u2028", "\n", "\u2029", "\n").Replace(string(s.data))
		s.lines = strings.Split(text, "\n")
	}
	if n < 1 || n > len(s.lines) {
		return "", false
	}
	return s.lines[n-1], true
}

// frame renders the line of a node and underlines it. Only what is known to be
// harmless is copied: keys, values of keys that are no secrets, and
// punctuation. Comments and continuations of multi-line values are not.
func (s *source) frame(at *yaml.Node) frame {
	text, ok := s.line(at.Line)
	if !ok {
		return frame{}
	}
	line := []rune(text)
	tokens := s.tokens(at.Line)
	if len(tokens) == 0 {
		return frame{}
	}
	var out []rune
	f := frame{length: 1}
	pos := min(max(tokens[0].Column-1, 0), len(line))
	out = append(out, lead(line[:pos])...)
	for i, n := range tokens {
		end := len(line)
		if i+1 < len(tokens) {
			end = min(max(tokens[i+1].Column-1, 0), len(line))
		}
		if pos > end {
			continue
		}
		show, rest := s.render(n, line[pos:end])
		if n == at {
			f.start, f.length = len(out), max(len(show), 1)
		}
		out = append(out, show...)
		out = append(out, gap(rest)...)
		pos = end
	}
	f.text = string(out)
	return f.clip()
}

// tokens are the scalars and aliases that start on a line, from left to right.
func (s *source) tokens(line int) []*yaml.Node {
	if s.index == nil {
		s.index = map[int][]*yaml.Node{}
		for n := range s.nodes {
			block := n.Kind == yaml.MappingNode || n.Kind == yaml.SequenceNode
			if block && n.Style&yaml.FlowStyle == 0 {
				continue // begins where its first entry does
			}
			s.index[n.Line] = append(s.index[n.Line], n)
		}
		for _, tokens := range s.index {
			slices.SortFunc(tokens, func(a, b *yaml.Node) int { return cmp.Compare(a.Column, b.Column) })
		}
	}
	return s.index[line]
}

// render returns what is shown of a token and the text after it. text starts
// at the token and ends where the next one starts.
func (s *source) render(n *yaml.Node, text []rune) (show, rest []rune) {
	how := s.nodes[n]
	if n.Kind == yaml.MappingNode || n.Kind == yaml.SequenceNode {
		return nil, text // a container starts here: only punctuation
	}
	if how == showAll {
		end := tokenEnd(n.Style, text)
		if n.Style == 0 && strings.HasPrefix(string(text), n.Value) {
			end = len([]rune(n.Value)) // in block style it may contain brackets
		}
		return []rune(printable(string(text[:end]))), text[end:]
	}
	// The end of a secret is not searched for: a mistake would show the rest.
	masked := []rune(secret.Mask)
	if how != showNever && n.Kind == yaml.ScalarNode && n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) == 0 {
		masked = []rune(printable(redact(n.Value, how == showURL)))
	}
	if strings.TrimSpace(string(text)) == "" {
		return nil, nil
	}
	if len(masked) == 0 {
		masked = []rune(`""`)
	}
	after := afterSecret(text)
	if n.Style == 0 && masked[len(masked)-1] == '}' && len(after) > 0 {
		after = after[1:] // that one closes the reference
	}
	return masked, after
}

// afterSecret keeps the closing brackets at the end of a masked token's text,
// and the separator before the next token.
func afterSecret(text []rune) []rune {
	i := len(text)
	for i > 0 && strings.ContainsRune("]}, ", text[i-1]) {
		i--
	}
	if i == 0 {
		return nil
	}
	return text[i:]
}

// lead is the beginning of a line before its first token: indentation and
// indicators, or the end of a value that began on another line.
func lead(text []rune) []rune {
	for _, r := range text {
		if !strings.ContainsRune(" \t-?[]{},", r) {
			return []rune(strings.Repeat(" ", leadingSpace(text)) + secret.Mask + " ")
		}
	}
	return []rune(printable(string(text)))
}

func leadingSpace(text []rune) int {
	n := 0
	for n < len(text) && (text[n] == ' ' || text[n] == '\t') {
		n++
	}
	return n
}

// gap keeps the punctuation between two tokens and drops comments, anchors and
// tags.
func gap(text []rune) []rune {
	var out []rune
	for i, r := range text {
		if r == '#' && (i == 0 || text[i-1] == ' ' || text[i-1] == '\t') {
			break
		}
		if strings.ContainsRune(" :,-?[]{}|>", r) {
			out = append(out, r)
		}
	}
	if strings.TrimSpace(string(out)) == "" && len(out) > 1 {
		return out[:1]
	}
	return out
}

// tokenEnd is the length of the token at the start of text, on this line.
func tokenEnd(style yaml.Style, text []rune) int {
	switch {
	case style&yaml.DoubleQuotedStyle != 0:
		for i := 1; i < len(text); i++ {
			switch text[i] {
			case '\\':
				i++
			case '"':
				return i + 1
			}
		}
		return len(text)
	case style&yaml.SingleQuotedStyle != 0:
		for i := 1; i < len(text); i++ {
			if text[i] != '\'' {
				continue
			}
			if i+1 < len(text) && text[i+1] == '\'' {
				i++
				continue
			}
			return i + 1
		}
		return len(text)
	case style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0:
		return min(1, len(text))
	}
	for i, r := range text {
		space := i+1 == len(text) || text[i+1] == ' ' || text[i+1] == '\t'
		if r == ':' && space || strings.ContainsRune(",[]{}", r) || r == '#' && i > 0 && text[i-1] == ' ' {
			return len([]rune(strings.TrimRight(string(text[:i]), " \t")))
		}
	}
	return len([]rune(strings.TrimRight(string(text), " \t")))
}

// clip keeps the neighbourhood of the underlined part of a long line.
func (f frame) clip() frame {
	line := []rune(strings.TrimRight(f.text, " "))
	if f.length > widestFrame/2 {
		f.length = widestFrame / 2
	}
	if len(line) <= widestFrame {
		f.text = string(line)
		return f
	}
	from := max(0, min(f.start-widestFrame/4, len(line)-widestFrame))
	to := min(len(line), from+widestFrame)
	text := line[from:to]
	f.start -= from
	if from > 0 {
		text = append([]rune("… "), text...)
		f.start += 2
	}
	f.text = string(text)
	if to < len(line) {
		f.text += " …"
	}
	return f
}

// brokenFrame renders a line of a file that is not YAML: the key, if this is
// one of ours, and nothing else.
func (s *source) brokenFrame(line int, known map[string]bool) (f frame, column int) {
	text, ok := s.line(line)
	if !ok || strings.TrimSpace(text) == "" {
		return frame{}, 0
	}
	runes := []rune(text)
	indent := leadingSpace(runes)
	rest := string(runes[indent:])
	f = frame{start: indent, length: 1}
	out := printable(string(runes[:indent]))
	if tab := slices.Index(runes[:indent], '\t'); tab >= 0 {
		f.start = tab
	}
	name, value, isKey := strings.Cut(rest, ":")
	dashes := name[:len(name)-len(strings.TrimLeft(name, "- "))]
	name = strings.TrimSpace(name[len(dashes):])
	switch {
	case isKey && known[name]:
		out += dashes + name + ":"
		if strings.TrimSpace(value) != "" {
			out += " " + secret.Mask
		}
	default:
		out += secret.Mask
	}
	f.text = out
	return f.clip(), f.start + 1
}
