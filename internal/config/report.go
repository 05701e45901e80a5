package config

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"
)

// Severities of a [Finding].
const (
	SeverityError   = "error"
	SeverityWarning = "warning"
)

// Codes of a [Finding]: stable, for programs.
const (
	codeUnreadable      = "unreadable_file"
	codeNotAFile        = "not_a_file"
	codeTooLarge        = "too_large"
	codeNotUTF8         = "not_utf8"
	codeEmptyFile       = "empty_file"
	codeIgnoredFile     = "ignored_file"
	codeSecondDocument  = "second_document"
	codeSyntax          = "yaml_syntax"
	codeAlias           = "yaml_alias"
	codeTag             = "yaml_tag"
	codeDuplicateKey    = "duplicate_key"
	codeUnknownKey      = "unknown_key"
	codeMissingKey      = "missing_key"
	codeMisplacedKey    = "misplaced_key"
	codeWrongType       = "wrong_type"
	codeAmbiguous       = "ambiguous_number"
	codeBadValue        = "bad_value"
	codeOutOfRange      = "out_of_range"
	codeTooMany         = "too_many"
	codeBadID           = "bad_id"
	codeBadReference    = "bad_reference"
	codeUnsetReference  = "unset_reference"
	codeUnreadableRef   = "unreadable_reference"
	codeBadPath         = "bad_path"
	codeBadAddress      = "bad_address"
	codeOpenMetrics     = "open_metrics"
	codeUnknownGroup    = "unknown_group"
	codeBadURL          = "bad_url"
	codeScheme          = "unsupported_scheme"
	codeUserinfo        = "url_userinfo"
	codeForbiddenAddr   = "forbidden_address"
	codePlainHTTP       = "plain_http"
	codeDuplicateURL    = "duplicate_url"
	codeUnknownEvent    = "unknown_event"
	codeNoEvents        = "no_events"
	codeNoHelpers       = "no_helpers"
	codeBadHeader       = "bad_header"
	codeReservedHeader  = "reserved_header"
	codeDuplicateHeader = "duplicate_header"
	codeBadSignature    = "bad_signature"
	codeMissingSecret   = "missing_secret"
	codeEmptySecret     = "empty_secret"
	codeBadSecret       = "bad_secret"
	codeShortSecret     = "short_secret"
	codePaddedSecret    = "padded_secret"
	codeLiteralSecret   = "literal_secret"
	codeUnknownSink     = "unknown_sink"
	codeBadPlugin       = "bad_plugin"
	codeBadTLS          = "bad_tls"
	codeOpenKey         = "open_key"
	codeUnverified      = "unverified_tls"
	codeBadTest         = "bad_test"
	codeInternal        = "internal"
)

// maxPrinted bounds what [Report.WriteText] prints: a wrong indentation near the
// top of a file otherwise scrolls the cause away.
const maxPrinted = 20

// Finding is one thing that is wrong, or looks wrong, in the configuration. It
// never contains the value of a secret.
type Finding struct {
	Severity   string `json:"severity"` // SeverityError or SeverityWarning
	Code       string `json:"code"`
	File       string `json:"file"`
	Line       int    `json:"line"`       // 1-based; 0 = the file as a whole
	Column     int    `json:"column"`     // 1-based, in characters; 0 = the line as a whole
	Path       string `json:"path"`       // JSON Pointer (RFC 6901); "" = the document
	Message    string `json:"message"`    // what is wrong
	Suggestion string `json:"suggestion"` // what to do; may be ""
	AtKey      bool   `json:"-"`          // for Add: the key at the path is wrong, not its value

	frame      frame
	order      int  // of the file
	structural bool // the JSON Schema finds it too
}

// Report is what [Load] found out. It keeps what was read in memory.
type Report struct {
	// Findings in the order of the files and positions.
	Findings []Finding
	// Files are the main file and the drop-ins, in the order they were merged, as
	// findings call them.
	Files []string
	// Sources are those of Files that could be read, as they were read, also when
	// they have errors. They may contain literal secrets.
	Sources []File
	// References are the other files that the configuration depends on: those
	// of ${file:} and ${cred:}, and the PEM files. Of files with errors it may be
	// only a part.
	References []string
	// Digest is the SHA-256, in hex, over names and contents of Files and of
	// References: equal digests mean an equal configuration, as long as the
	// environment stays the same. What could not be read counts by the reason.
	Digest string

	root *place // the merged files, for Add; nil when there are none
}

// InvalidError says that a configuration has errors.
type InvalidError struct {
	Errors int     // how many
	First  Finding // the first of them
}

func (e *InvalidError) Error() string {
	s := fmt.Sprintf("invalid configuration: %s: %s", e.First.position(), e.First.Message)
	if e.Errors > 1 {
		s += fmt.Sprintf(" (and %d more)", e.Errors-1)
	}
	return s
}

// Err is nil when there are no errors (warnings do not count), else an
// [*InvalidError].
func (r *Report) Err() error {
	e := &InvalidError{}
	for _, f := range r.Findings {
		if f.Severity != SeverityError {
			continue
		}
		if e.Errors == 0 {
			e.First = f
		}
		e.Errors++
	}
	if e.Errors == 0 {
		return nil
	}
	return e
}

func (r *Report) sort() {
	slices.SortStableFunc(r.Findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.order, b.order), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}

// Add places a further finding at the key that path names, or at the nearest one
// above it that the files have: it sets File, Line, Column, Path and the source
// frame of f. An empty severity is an error. Message and Suggestion must not
// contain a secret. Not safe for concurrent use with anything else of the Report.
func (r *Report) Add(f Finding, path ...string) {
	f.Severity = cmp.Or(f.Severity, SeverityError)
	f.Path = pointer(path)
	switch {
	case r.root != nil:
		at, exact := r.root.lookup(path)
		f.File, f.order = at.src.name, at.src.order
		if at != r.root {
			f.frameAt(at, f.AtKey || !exact)
		}
	case len(r.Files) > 0:
		f.File = r.Files[0]
	}
	r.Findings = append(r.Findings, f)
	r.sort()
}

// frameAt sets line, column and frame to those of a value or, when onKey is set,
// of its key.
func (f *Finding) frameAt(at *place, onKey bool) {
	node := at.val
	if at.alias != nil {
		node = at.alias
	}
	// A map or list in block style begins on a later line than its key.
	if (onKey || node == nil || node.Kind == yaml.MappingNode || node.Kind == yaml.SequenceNode) && at.key != nil {
		node = at.key
	}
	if node == nil || node.Line == 0 {
		return
	}
	f.Line, f.Column = node.Line, max(node.Column, 1)
	f.frame = at.src.frame(node)
}

// Position is where the value of a key stands, or the nearest one above it that is
// there: line and column as of a Finding. "" without files.
func (r *Report) Position(path ...string) (file string, line, column int) {
	if r.root == nil {
		return "", 0, 0
	}
	at, exact := r.root.lookup(path)
	f := Finding{}
	f.frameAt(at, !exact)
	return at.src.name, f.Line, f.Column
}

func (f *Finding) position() string {
	switch {
	case f.Line == 0:
		return f.File
	case f.Column == 0:
		return fmt.Sprintf("%s:%d", f.File, f.Line)
	}
	return fmt.Sprintf("%s:%d:%d", f.File, f.Line, f.Column)
}

// WriteText prints the findings for a person, at most 20: errors first claim a
// place, the order stays that of the positions. It prints nothing when there
// are none.
func (r *Report) WriteText(w io.Writer, color bool) error {
	printed := r.printed()
	for i, f := range printed {
		if i > 0 {
			if _, err := io.WriteString(w, "\n"); err != nil {
				return err
			}
		}
		if _, err := io.WriteString(w, f.text(color)); err != nil {
			return err
		}
	}
	if more := unprinted(r.Findings, printed); more != "" {
		_, err := fmt.Fprintf(w, "\nand %s\n", more)
		return err
	}
	return nil
}

// Text is what [Report.WriteText] prints without colour, "" when there are no
// findings.
func (r *Report) Text() string {
	var b strings.Builder
	_ = r.WriteText(&b, false) // a strings.Builder does not fail
	return b.String()
}

// unprinted counts what of all was left out, by severity: "3 more errors
// and 12 more warnings", "" for nothing.
func unprinted(all, printed []Finding) string {
	left := map[string]int{}
	for _, f := range all {
		left[f.Severity]++
	}
	for _, f := range printed {
		left[f.Severity]--
	}
	var parts []string
	for _, severity := range []string{SeverityError, SeverityWarning} {
		switch n := left[severity]; {
		case n == 1:
			parts = append(parts, "1 more "+severity)
		case n > 1:
			parts = append(parts, fmt.Sprintf("%d more %ss", n, severity))
		}
	}
	return strings.Join(parts, " and ")
}

func (r *Report) printed() []Finding {
	errors := 0
	for _, f := range r.Findings {
		if f.Severity == SeverityError {
			errors++
		}
	}
	warnings := maxPrinted - min(errors, maxPrinted)
	errors = min(errors, maxPrinted)
	var out []Finding
	for _, f := range r.Findings {
		left := &warnings
		if f.Severity == SeverityError {
			left = &errors
		}
		if *left > 0 {
			*left--
			out = append(out, f)
		}
	}
	return out
}

// WriteJSON prints all findings as a JSON array.
func (r *Report) WriteJSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if r.Findings == nil {
		return enc.Encode([]Finding{})
	}
	return enc.Encode(r.Findings)
}

func (f *Finding) text(color bool) string {
	paint := func(code, s string) string {
		if !color {
			return s
		}
		return "\x1b[" + code + "m" + s + "\x1b[0m"
	}
	tone := "1;31"
	if f.Severity == SeverityWarning {
		tone = "1;33"
	}
	var b strings.Builder
	b.WriteString(paint(tone, f.Severity+":") + " " + f.Message + "\n")
	number := ""
	if f.Line > 0 {
		number = fmt.Sprint(f.Line)
	}
	margin := strings.Repeat(" ", max(len(number), 1))
	b.WriteString(margin + paint("34", "-->") + " " + printable(f.position()) + "\n")
	bar := paint("34", "|")
	if f.frame.text != "" {
		b.WriteString(margin + " " + bar + "\n")
		b.WriteString(paint("34", number) + " " + bar + " " + f.frame.text + "\n")
		marks := strings.Repeat(" ", f.frame.start) + strings.Repeat("^", f.frame.length)
		b.WriteString(margin + " " + bar + " " + paint(tone, marks))
		if f.Suggestion != "" {
			b.WriteString(" " + f.Suggestion)
		}
		b.WriteByte('\n')
		return b.String()
	}
	if f.Suggestion != "" {
		b.WriteString(margin + " = " + f.Suggestion + "\n")
	}
	return b.String()
}

// printable replaces what would move the cursor or colour the terminal: the
// file is input, also for the terminal of whoever runs `check`.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case !unicode.IsPrint(r):
			return '\uFFFD'
		}
		return r
	}, s)
}

// quote puts a word of the file into a message: printable and short.
func quote(s string) string {
	const most = 64
	if r := []rune(s); len(r) > most {
		s = string(r[:most]) + "…"
	}
	return `"` + printable(s) + `"`
}
