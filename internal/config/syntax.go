package config

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// document parses the file into its only document.
func (p *nodeParser) document() (*yaml.Node, bool) {
	const empty = "the file is empty"
	lines := &lineReader{data: p.src.data}
	dec := yaml.NewDecoder(lines)
	var doc, second yaml.Node
	err := decode(dec, &doc)
	switch {
	case errors.Is(err, io.EOF):
		p.file(codeEmptyFile, empty, "an empty file may be one that is still being written; remove it if it is not needed")
		return nil, false
	case err != nil:
		p.syntax(err, lines.line)
		return nil, false
	case len(doc.Content) == 0 || isNull(doc.Content[0]):
		p.file(codeEmptyFile, empty, "")
		return nil, false
	}
	if err := decode(dec, &second); !errors.Is(err, io.EOF) {
		at := &yaml.Node{Line: lines.line}
		if err == nil && len(second.Content) > 0 {
			at = second.Content[0]
		}
		p.src.note(at, showNever)
		p.report(Finding{Code: codeSecondDocument, Message: "the file has a second YAML document", Suggestion: "put it into a drop-in of its own in conf.d"}, &place{src: p.src, val: at}, nil, false)
	}
	return doc.Content[0], true
}

// decode keeps a panic of the YAML library from stopping a daemon that merely
// reads a changed file.
func decode(dec *yaml.Decoder, n *yaml.Node) (err error) {
	defer func() {
		if recover() != nil {
			err = errors.New("yaml: the parser failed")
		}
	}()
	return dec.Decode(n)
}

// lineReader hands out one line per call, so that the number of lines read
// tells where the YAML reader stopped: its own errors give the line on which the
// surrounding block began, or one too few.
type lineReader struct {
	data []byte
	line int
}

func (r *lineReader) Read(b []byte) (int, error) {
	if len(r.data) == 0 {
		return 0, io.EOF
	}
	n := bytes.IndexByte(r.data, '\n') + 1
	if n == 0 {
		n = len(r.data)
	}
	whole := n <= len(b)
	n = copy(b, r.data[:n])
	r.data = r.data[n:]
	if whole {
		r.line++
	}
	return n, nil
}

var (
	yamlLine   = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)
	quoted     = regexp.MustCompile(`'[^']*'`)
	badAnchor  = regexp.MustCompile(`unknown anchor '([^']+)'`)
	parserSays = regexp.MustCompile(`^did not find expected (key|node|'-'|',' or|<)`)
)

// syntax reports that the file is not YAML. The library quotes names of anchors,
// which a secret that begins with & or * becomes.
func (p *nodeParser) syntax(err error, stopped int) {
	text := err.Error()
	line := 1
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		if n, err := strconv.Atoi(m[1]); err == nil {
			line = n
		}
		text = text[len(m[0]):]
	}
	suggestion := ""
	switch {
	case badAnchor.MatchString(text):
		line = p.lineOf("*" + badAnchor.FindStringSubmatch(text)[1])
		text = "unknown anchor"
		suggestion = "a value that begins with * or & must be quoted"
	case parserSays.MatchString(text):
		line = stopped
	case strings.Contains(text, "control characters are not allowed"):
		text, line = "control characters are not allowed", stopped
	}
	if strings.Contains(text, "incompatible YAML document") {
		suggestion = "remove the line that begins with %YAML"
	}
	if strings.Contains(text, "cannot start any token") {
		if l, ok := p.src.line(line); ok && strings.Contains(l[:leadingSpaceBytes(l)], "\t") {
			suggestion = "YAML is indented with spaces, not tabs"
		} else {
			suggestion = "quote values that begin with a special character"
		}
	}
	text = quoted.ReplaceAllStringFunc(text, func(s string) string {
		if len(s) <= 3 {
			return s // the library's own: ':' or '-'
		}
		return "…"
	})
	f := Finding{Code: codeSyntax, Message: "not valid YAML: " + printable(text), Suggestion: suggestion, Line: line}
	f.frame, f.Column = p.src.brokenFrame(line, keyNames())
	p.report(f, &place{src: p.src}, nil, false)
}

func leadingSpaceBytes(s string) int { return len(s) - len(strings.TrimLeft(s, " \t")) }

func (p *nodeParser) lineOf(text string) int {
	before, _, ok := strings.Cut(string(p.src.data), text)
	if !ok {
		return 1
	}
	return 1 + strings.Count(before, "\n")
}

// keyNames are the names of all keys of the model.
func keyNames() map[string]bool {
	names := map[string]bool{}
	var walk func(*key)
	walk = func(k *key) {
		names[k.name] = true
		for _, f := range k.fields {
			walk(f)
		}
		if k.elem != nil {
			walk(k.elem)
		}
	}
	walk(model())
	delete(names, "")
	return names
}
