package api

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
	"github.com/peanutsapp/peanuts-relay/internal/secret"
)

// maxArgument is the longest body that goes into an argument of curl. Linux
// takes 128 KiB for one argument (MAX_ARG_STRLEN in binfmts.h); a built-in of
// the shell, such as printf, has no such limit.
const maxArgument = 96 << 10

// curl is a script for sh that sends what attempt t sent; "" if that was no HTTP
// request. The URL and every header value that the configuration keeps secret
// are shell variables, each explained by a comment line before the command.
func (a *API) curl(t *delivery.Attempt, o *delivery.Outbound) string {
	if t.Request == nil {
		return ""
	}
	vars := variables{webhook: o.Webhook}
	var options []string
	for _, h := range a.requestHeaders(t, o) {
		options = append(options, "--header "+vars.header(h, slices.Contains(t.Request.Headers, h)))
	}
	url := vars.name("URL", "url", t.Request.URL)

	var b strings.Builder
	fmt.Fprintf(&b, "# Attempt %d of %s, made at %s.\n", t.Number, comment(o.DeliveryID), rest.At(t.Started))
	b.WriteString("# Set these variables first; the configuration says what they hold:\n")
	for _, line := range vars.comments {
		b.WriteString(line)
	}
	data := quote(string(o.Payload))
	if len(data) > maxArgument || strings.HasPrefix(string(o.Payload), "@") {
		fmt.Fprintf(&b, "printf %%s %s |\n", data)
		data = "@-"
	}
	// --globoff: brackets in a URL are not patterns. Accept and Expect would be
	// additions of curl's own.
	fmt.Fprintf(&b, "curl --silent --show-error --include --globoff --request %s \\\n", quote(t.Request.Method))
	b.WriteString("  --header 'Accept:' --header 'Expect:' \\\n")
	for _, option := range options {
		fmt.Fprintf(&b, "  %s \\\n", option)
	}
	fmt.Fprintf(&b, "  --data-binary %s \\\n  \"$%s\"\n", data, url)
	return b.String()
}

// variables gives out names of shell variables, each once, and remembers what
// to say about them.
type variables struct {
	webhook  string // helper.webhook
	taken    []string
	comments []string
}

// name returns the variable for a setting of the webhook that may be shown only
// as shown.
func (v *variables) name(suffix, setting, shown string) string {
	base := shellName(v.webhook + "_" + suffix)
	name := base
	for n := 2; slices.Contains(v.taken, name); n++ {
		name = fmt.Sprintf("%s_%d", base, n)
	}
	v.taken = append(v.taken, name)
	helper, webhook, _ := strings.Cut(v.webhook, ".")
	v.comments = append(v.comments, fmt.Sprintf("#   %s: helpers.%s.webhooks.%s.%s, shown as %s\n",
		name, comment(helper), comment(webhook), comment(setting), comment(shown)))
	return name
}

// header is one header as an argument of curl.
func (v *variables) header(h delivery.Header, own bool) string {
	if own && (strings.Contains(h.Value, secret.Mask) || strings.Contains(h.Value, "${")) {
		return quote(h.Name+": ") + `"$` + v.name(h.Name, "headers."+h.Name, h.Value) + `"`
	}
	if h.Value == "" {
		// "Name:" would remove the header, "Name;" sends it empty.
		return quote(h.Name + ";")
	}
	return quote(h.Name + ": " + h.Value)
}

// shellName is text as the name of a shell variable.
func shellName(text string) string {
	name := strings.Map(func(r rune) rune {
		switch r = unicode.ToUpper(r); {
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, text)
	if name[0] >= '0' && name[0] <= '9' {
		return "_" + name
	}
	return name
}

// quote is text as one word of sh, whatever it holds except NUL.
func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

// comment is text without anything that would end a comment line.
func comment(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)
}
