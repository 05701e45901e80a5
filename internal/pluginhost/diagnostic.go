package pluginhost

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
	"github.com/peanutsapp/peanuts-relay/sinks"
)

// Diagnostic is one finding about settings: masked, in one line each.
type Diagnostic = sinks.Diagnostic

const (
	maxDiagnostics  = 200
	diagnosticsSize = 1 << 20 // bytes of an answer
	maxPointer      = 1 << 10
	maxSummary      = 500
	maxDetail       = 1 << 10
)

func hasError(list []Diagnostic) bool {
	return slices.ContainsFunc(list, func(d Diagnostic) bool { return !d.Warning })
}

func isUnknownCall(err error) bool { return status.Code(err) == codes.Unimplemented }

// diagnostics are what a plugin found.
func (b *binary) diagnostics(list []*sinkpb.Diagnostic) []Diagnostic {
	var out []Diagnostic
	for _, d := range list {
		found := Diagnostic{
			Path:    d.GetPath(),
			Summary: b.text(d.GetSummary(), maxSummary),
			Detail:  b.text(d.GetDetail(), maxDetail),
			Warning: d.GetSeverity() == sinkpb.Severity_SEVERITY_WARNING,
		}
		if !isPointer(found.Path) {
			if path := b.text(found.Path, 100); path != "" {
				found.Summary = path + ": " + found.Summary
			}
			found.Path = ""
		}
		found.Path = b.mask.Load().Text(found.Path)
		if found.Summary == "" {
			found.Summary = "the plugin refuses it without saying why"
		}
		out = append(out, found)
	}
	return out
}

// isPointer reports whether s is a JSON Pointer (RFC 6901) that can be shown.
func isPointer(s string) bool {
	return s == "" || s[0] == '/' && len(s) <= maxPointer && utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// summary is what the errors among the findings say, in one line.
func summary(list []Diagnostic) string {
	var parts []string
	for _, d := range list {
		if d.Warning {
			continue
		}
		part := d.Summary
		if d.Path != "" {
			part = d.Path + ": " + part
		}
		if d.Detail != "" {
			part += ": " + d.Detail
		}
		parts = append(parts, part)
		if len(parts) == 3 {
			break
		}
	}
	return strings.Join(parts, "; ")
}
