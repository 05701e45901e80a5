package cli

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"text/template"

	"github.com/spf13/cobra"
)

// scaffold are the files of a new sink.
//
//go:embed scaffold/*.tmpl
var scaffold embed.FS

type sinksNewFlags struct {
	module, dir, replace string
}

func (a *app) sinksNewCommand() *cobra.Command {
	f := &sinksNewFlags{}
	c := a.command(&cobra.Command{
		Use:   "new NAME",
		Short: "writes a sink to begin with: a Go module that builds, with its test",
		Long: `writes a sink to begin with: a Go module that builds, sends each event to an address,
and passes the suite that sinks test runs. It refuses to write into a directory that
holds anything`,
		Example: `peanuts-relay sinks new acme
peanuts-relay sinks new acme --module github.com/example/peanuts-sink-acme --dir ./acme`,
		Args: wantArgs(1, 1, "a name, such as acme"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.sinksNew(cmd, f, args[0]) },
	})
	c.Flags().StringVar(&f.module, "module", "", "`PATH` of the Go module; default example.com/peanuts-sink-NAME")
	c.Flags().StringVar(&f.dir, "dir", "", "`DIR` to write to; default ./peanuts-sink-NAME")
	c.Flags().StringVar(&f.replace, "replace", "", "`DIR` of the relay's source to build against, where its module cannot be downloaded")
	return c
}

func (a *app) sinksNew(cmd *cobra.Command, f *sinksNewFlags, name string) error {
	if !regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`).MatchString(name) {
		return usagef(seeHelp(cmd), "%q is no name for a sink: want lower-case letters, digits and -, at most 63", name)
	}
	program := "peanuts-sink-" + name
	if f.module == "" {
		f.module = "example.com/" + program
	}
	if !regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._~/-]*$`).MatchString(f.module) {
		return usagef(seeHelp(cmd), "--module %q is no path of a Go module", f.module)
	}
	if f.dir == "" {
		f.dir = program
	}
	if f.replace != "" {
		replace, err := relaySource(f.replace)
		if err != nil {
			return err
		}
		f.replace = replace
	}
	if err := os.MkdirAll(f.dir, 0o755); err != nil { // #nosec G301 -- a directory of source code
		return fileFault(err, "make directory")
	}
	if there, err := os.ReadDir(f.dir); err != nil {
		return fileFault(err, "read directory")
	} else if len(there) > 0 {
		return failf("name another directory with --dir", "%s holds something already: %s", f.dir, there[0].Name())
	}
	values := map[string]string{"Name": name, "Program": program, "Module": f.module, "Version": releaseVersion(a.deps.Version), "Replace": f.replace}
	if err := writeScaffold(f.dir, values); err != nil {
		return fileFault(err, "write sink")
	}
	fmt.Fprintf(a.Out, "%s\n", f.dir)
	fmt.Fprintf(a.Err, `Next:
  cd %s
  go mod tidy
  go test ./...
  CGO_ENABLED=0 go build -trimpath -o %s .
  peanuts-relay sinks test ./%s --settings settings.yaml
`, f.dir, program, program)
	return nil
}

// relaySource is a directory with the relay's module, as go.mod names it.
func relaySource(dir string) (string, error) {
	text, err := readBounded(filepath.Join(dir, "go.mod"), 1<<20)
	if err != nil {
		return "", fileFault(err, "read the relay's source")
	}
	if !strings.HasPrefix(string(text), "module github.com/peanutsapp/peanuts-relay\n") {
		return "", failf("it is the directory with the relay's own go.mod", "%s is not the relay's source", dir)
	}
	dir, err = filepath.Abs(dir)
	if err != nil {
		return "", fileFault(err, "find the relay's source")
	}
	return strconv.Quote(dir), nil
}

// releaseVersion is what a go.mod can require: a released version, else "".
func releaseVersion(version string) string {
	v := "v" + strings.TrimPrefix(version, "v")
	if !regexp.MustCompile(`^v\d+\.\d+\.\d+$`).MatchString(v) {
		return ""
	}
	return v
}

func writeScaffold(dir string, values map[string]string) error {
	templates, err := template.ParseFS(scaffold, "scaffold/*.tmpl")
	if err != nil {
		return err
	}
	for _, t := range templates.Templates() {
		name := strings.TrimSuffix(t.Name(), ".tmpl")
		if name == "gitignore" {
			name = ".gitignore"
		}
		var b bytes.Buffer
		if err := t.Execute(&b, values); err != nil {
			return err
		}
		// Never over a file that came there meanwhile.
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644) // #nosec G302 -- source code, as open as an editor makes it
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("%s exists", filepath.Join(dir, name))
		}
		if err != nil {
			return err
		}
		if _, err := f.Write(b.Bytes()); err != nil {
			return errors.Join(err, f.Close())
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}
