package cli

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/peanutsapp/peanuts-relay/internal/secret"
	"github.com/peanutsapp/peanuts-relay/internal/signing"
)

// secretVariable keeps secrets out of the list of processes.
const secretVariable = "PEANUTS_RELAY_SECRET" // #nosec G101 -- a name

// secretFlags name the secrets to verify with.
type secretFlags struct {
	values, files []string
}

func (f *secretFlags) register(c *cobra.Command) {
	flags := c.Flags()
	flags.StringArrayVar(&f.values, "secret", nil, "`SECRET` to verify with; others can see it in the list of processes; repeatable")
	flags.StringArrayVar(&f.files, "secret-file", nil, "`FILE` that holds a secret; repeatable; default $"+secretVariable)
}

// secrets collects them; one final newline of a file is stripped, as in the
// configuration.
func (a *app) secrets(f *secretFlags) ([]secret.String, error) {
	var found []secret.String
	for _, v := range f.values {
		if v == "" {
			return nil, usagef("", "--secret is empty")
		}
		found = append(found, secret.New(v))
	}
	for _, name := range f.files {
		content, err := readBounded(name, 64<<10)
		if err != nil {
			return nil, fileFault(err, "read secret")
		}
		text := strings.TrimSuffix(strings.TrimSuffix(string(content), "\n"), "\r")
		if text == "" {
			return nil, failf("", "the secret file %s is empty", name)
		}
		found = append(found, secret.New(text))
	}
	if v := a.env(secretVariable); len(found) == 0 && v != "" {
		found = append(found, secret.New(v))
	}
	return found, nil
}

func readBounded(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAllBounded(f, limit)
}

func readAllBounded(r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("longer than %s", byteSize(limit))
	}
	return b, err
}

type verifyFlags struct {
	secret  secretFlags
	headers []string
	file    string
	anyTime bool
}

func (a *app) verifyCommand() *cobra.Command {
	f := &verifyFlags{}
	c := a.command(&cobra.Command{
		Use:   "verify",
		Short: "checks the signature of a request over its raw body",
		Long: `checks the signature of a request over its raw body. The scheme is seen from the
headers. Exit status 0 when every signature is valid, 1 when one is not, and then
says what is probably wrong`,
		Example: `peanuts-relay verify --secret s3cret --header 'X-Peanuts-Signature: sha256=6b1f…' -f body.json
PEANUTS_RELAY_SECRET=s3cret peanuts-relay verify --header 'X-Webhook-Signature: 6b1f…' < body.json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.verify(cmd, f) },
	})
	f.secret.register(c)
	flags := c.Flags()
	flags.StringArrayVarP(&f.headers, "header", "H", nil, "`'NAME: VALUE'` of the request; repeatable")
	flags.StringVarP(&f.file, "file", "f", "-", "`FILE` with the raw body, - for standard input")
	flags.BoolVar(&f.anyTime, "any-time", false, "accept an old timestamp of scheme standard, for a stored request")
	return c
}

func (a *app) verify(cmd *cobra.Command, f *verifyFlags) error {
	secrets, err := a.secrets(&f.secret)
	if err != nil {
		return err
	}
	if len(secrets) == 0 {
		return usagef("give --secret, --secret-file or $"+secretVariable+"; "+seeHelp(cmd), "no secret to verify with")
	}
	headers := http.Header{}
	for _, h := range f.headers {
		name, value, ok := strings.Cut(h, ":")
		if name = strings.TrimSpace(name); !ok || name == "" {
			return usagef(seeHelp(cmd), "--header %q: want 'NAME: VALUE'", h)
		}
		headers.Add(name, strings.TrimSpace(value))
	}
	specs := signatureSpecs(headers)
	if len(specs) == 0 {
		return usagef("give the header that carries it, for example --header 'X-Peanuts-Signature: sha256=…'", "no signature among the headers")
	}
	body, err := a.requestBody(f.file)
	if err != nil {
		return err
	}
	in := signing.VerifyInput{Headers: headers, Body: body, Secrets: secrets, Now: a.Now()}
	if f.anyTime {
		in.Tolerance = -1
	}
	st, valid := a.outStyle(), true
	for _, spec := range specs {
		in.Spec = spec
		if err := signing.Verify(in); err != nil {
			valid = false
			fmt.Fprintf(a.Out, "%s %s\n", st.bad("invalid:"), oneLine(schemeError(spec, err)))
			continue
		}
		fmt.Fprintf(a.Out, "%s %s, scheme %s, %s\n", st.good("valid:"), spec.Header, spec.Scheme, plural(len(body), "byte", "bytes"))
	}
	if !valid {
		return exitQuietly(ExitFailure)
	}
	return nil
}

func (a *app) requestBody(name string) ([]byte, error) {
	if name == "-" {
		body, err := readAllBounded(a.In, maxInput)
		if err != nil {
			return nil, fmt.Errorf("read the body from standard input: %w", err)
		}
		return body, nil
	}
	body, err := readBounded(name, maxInput)
	if err != nil {
		return nil, fileFault(err, "read body")
	}
	return body, nil
}

// schemeError is what Verify says, with the scheme before it.
func schemeError(spec signing.Spec, err error) string {
	return "scheme " + string(spec.Scheme) + ": " + err.Error()
}

// signatureSpecs tells from the headers which signatures a request carries. A
// renamed one is found as long as its name ends in "-signature". The one of a
// rotation's other secret counts when it stands alone.
func signatureSpecs(headers http.Header) []signing.Spec {
	var specs []signing.Spec
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		lower := strings.ToLower(name)
		base, isOther := strings.CutSuffix(lower, strings.ToLower(signing.PreviousSuffix))
		if isOther && headers.Get(base) != "" {
			continue
		}
		prefix, isSignature := strings.CutSuffix(base, "-signature")
		if !isSignature {
			continue
		}
		value := headers.Get(name)
		spec := signing.Spec{Scheme: signing.Hex, Header: name}
		switch {
		case headers.Get(prefix+"-id") != "" && headers.Get(prefix+"-timestamp") != "", strings.HasPrefix(value, "v1,"), strings.Contains(value, " v1,"):
			spec.Scheme, spec.Header = signing.Standard, lower // as its specification spells it
		case strings.HasPrefix(value, "sha256="), strings.EqualFold(base, signing.HeaderPeanuts) && len(value) != 64:
			spec.Scheme = signing.Peanuts
		}
		specs = append(specs, spec)
	}
	return specs
}
