// Package internal_test checks rules of the repository itself: every package
// says what it guarantees, and the arrows between packages point one way.
package internal_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/peanutsapp/peanuts-relay"

// imports says what each package may import of this module, and which packages
// of other modules only it may import. A package that is not listed is an
// error: adding one means deciding where it stands.
//
// Arrows point from deciding to doing to knowing.
var imports = map[string][]string{
	"daemon": {"internal/backup", "internal/cli", "internal/relay", "internal/config", "internal/queue"},

	// sinks is public: whoever writes a plugin imports it and nothing else of this module.
	"sinks":               {"internal/sinkpb", "internal/suggest"},
	"internal/sinkpb":     {},
	"internal/sinkpb/gen": {},

	"internal/pluginhost":         {"internal/delivery", "internal/event", "internal/pluginhost/process", "internal/secret", "internal/signing", "internal/sinkpb", "internal/suggest", "sinks"},
	"internal/pluginhost/process": {"internal/pluginfile", "internal/sinkpb", "sinks"},
	"internal/pluginfile":         {},
	"internal/zoo":                {"internal/sinkpb", "sinks"},
	"sinks/sinktest":              {"internal/sinkpb", "internal/pluginhost/process", "sinks"},

	"internal/cli": {"internal/backup", "internal/config", "internal/config/history", "internal/configtest", "internal/adminclient", "internal/signing", "internal/event", "internal/secret", "internal/rest", "internal/pluginhost/process", "internal/sinkpb", "sinks/sinktest", "internal/plugincheck", "internal/pluginhost", "internal/delivery", "internal/doctor", "internal/egress", "internal/httpsink", "internal/where"},
	// A plugin is what a third party could have written: it imports sinks and nothing else of
	// this module. What stands for its service in tests imports nothing.
	"plugins/zapier":            {"sinks"},
	"plugins/zapier/zapiertest": {},
	"plugins/slack":             {"sinks"},
	"plugins/slack/slacktest":   {},
	"internal/cli/clitest":      {},
	"internal/relay":            {"internal/api", "internal/web", "internal/backup", "internal/config", "internal/config/history", "internal/config/watch", "internal/configtest", "internal/webhookedit", "internal/reload", "internal/delivery", "internal/dispatch", "internal/egress", "internal/event", "internal/failpoint", "internal/httpsink", "internal/ingest", "internal/queue", "internal/rest", "internal/retry", "internal/signing", "internal/unixsock", "internal/plugincheck", "internal/pluginhost", "internal/secret", "internal/watchdog", "sinks", "internal/where", "internal/notice"},
	// Plugins are what a third party could have written: they know the public package.
	"plugins/sheets":            {"sinks"},
	"plugins/sheets/sheetstest": {},

	"internal/config":         {"internal/secret", "internal/event", "internal/signing", "internal/egress", "internal/pluginfile"},
	"internal/reload":         {"internal/config", "internal/config/history", "internal/config/watch", "internal/failpoint", "internal/rest"},
	"internal/config/gen":     {"internal/config"},
	"internal/config/history": {"internal/config", "internal/failpoint"},
	// watch knows paths and no content, so that it can be driven without a configuration.
	"internal/config/watch": {},

	"internal/configtest":  {"internal/config", "internal/delivery", "internal/event", "internal/httpsink", "internal/signing"},
	"internal/plugincheck": {"internal/config", "internal/pluginhost", "internal/secret"},
	"internal/webhookedit": {"internal/config", "internal/rest"},

	"internal/doctor": {"internal/adminclient", "internal/config", "internal/delivery", "internal/egress", "internal/event", "internal/httpsink", "internal/rest"},

	"internal/notice":   {"internal/delivery", "internal/queue"},
	"internal/ingest":   {"internal/delivery", "internal/event", "internal/failpoint", "internal/id", "internal/queue", "internal/unixsock"},
	"internal/dispatch": {"internal/delivery", "internal/failpoint", "internal/id", "internal/planted", "internal/queue", "internal/retry"},
	"internal/httpsink": {"internal/delivery", "internal/egress", "internal/httpsink/http1", "internal/secret", "internal/signing", "sinks"},
	"internal/api":      {"internal/backup", "internal/delivery", "internal/event", "internal/id", "internal/queue", "internal/rest", "internal/secret", "internal/unixsock", "internal/where"},
	// The page is made of the documents of the API, through its client, and of nothing else.
	"internal/web":         {"internal/adminclient", "internal/rest", "internal/secret"},
	"internal/adminclient": {"internal/rest"},
	"internal/rest":        {},

	// http1 knows connections and HTTP, and nothing of deliveries.
	"internal/httpsink/http1": {},

	"internal/queue":         {"internal/backup", "internal/delivery", "internal/failpoint", "internal/id", "internal/planted", "internal/queue/journal", "internal/queue/rawdb"},
	"internal/queue/journal": {"internal/failpoint"},
	// rawdb knows files and rows, and nothing of what they mean.
	"internal/queue/rawdb": {},
	"internal/retry":       {"internal/delivery", "internal/planted"},
	"internal/signing":     {"internal/delivery", "internal/planted", "internal/secret"},
	"internal/backup":      {},
	"internal/event":       {"internal/id", "internal/suggest"},
	"internal/egress":      {},
	"internal/unixsock":    {"internal/failpoint"},
	"internal/delivery":    {},
	"internal/secret":      {},
	"internal/id":          {},
	"internal/watchdog":    {},
	"internal/suggest":     {},
	"internal/where":       {"internal/suggest"},

	// What these hold is in no normal build.
	"internal/failpoint":           {},
	"internal/failpoint/pointlist": {},
	"internal/planted":             {},

	"internal/bench":          {"internal/bench/overhead", "internal/queue", "sinks"},
	"internal/torture":        {},
	"internal/bench/overhead": {"internal/delivery", "internal/dispatch", "internal/event", "internal/pluginhost", "internal/queue", "internal/retry", "internal/secret", "internal/signing", "sinks"},

	"internal/disktest":    {"internal/testhost"},
	"internal/browsertest": {"internal/testhost"},
	"internal/packagetest": {"internal/testhost"},
	"internal/testhost":    {},
	"internal/docstest":    {},
	"internal/hostiletest": {},
	"internal/secrettest":  {},
}

// owners names the one place that may import a module, so that a change of
// library touches one package.
var owners = map[string][]string{
	"github.com/dgraph-io/badger":      {"internal/queue", "internal/queue/rawdb"},
	"github.com/dgraph-io/ristretto":   {"internal/queue"},
	"github.com/knadh/koanf":           {"internal/config"},
	"go.yaml.in/yaml":                  {"internal/config", "internal/webhookedit", "internal/docstest"},
	"github.com/go-viper/mapstructure": {"internal/config"},
	"github.com/fsnotify/fsnotify":     {"internal/config/watch"},
	"github.com/spf13/cobra":           {"internal/cli"},
	"github.com/prometheus":            {"internal/api", "internal/relay"},
	"code.dny.dev/ssrf":                {"internal/egress"},
	"github.com/coreos/go-systemd/v22": {"internal/cli", "internal/unixsock"},
	"github.com/santhosh-tekuri":       {"sinks/sinktest", "internal/pluginhost"},
	"github.com/itchyny/gojq":          {"internal/where"},
	"github.com/rogpeppe/go-internal":  {"internal/cli/clitest"},
	"github.com/hashicorp/go-plugin":   {"sinks", "internal/pluginhost/process", "internal/zoo"},
	"github.com/hashicorp/go-hclog":    {"sinks", "internal/pluginhost/process"},
	"google.golang.org/grpc":           {"sinks", "internal/sinkpb", "internal/pluginhost/process", "internal/zoo", "sinks/sinktest", "internal/pluginhost"},
	"google.golang.org/protobuf":       {"sinks", "internal/sinkpb", "internal/sinkpb/gen", "internal/pluginhost/process", "internal/zoo", "sinks/sinktest", "internal/pluginhost"},
	"google.golang.org/api":            {"plugins/sheets"},
	"cloud.google.com/go":              {"plugins/sheets"},
	"pgregory.net/rapid":               {},
	"go.uber.org/goleak":               {},
}

// goFile is one parsed file of the module.
type goFile struct {
	dir, name string // slash-separated, relative to the root
	test      bool
	ast       *ast.File
	lines     int
	fset      *token.FileSet
}

func parseModule(t *testing.T) []goFile {
	t.Helper()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	var out []goFile
	err = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if n := d.Name(); n == "testdata" || n == "node_modules" || n == "bin" || (strings.HasPrefix(n, ".") && p != root) {
				return filepath.SkipDir
			}
			if _, err := os.Stat(filepath.Join(p, "go.mod")); err == nil && p != root {
				return filepath.SkipDir // a module of its own
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") {
			return nil
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, p, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		out = append(out, goFile{path.Dir(rel), rel, strings.HasSuffix(rel, "_test.go"), f, fset.Position(f.End()).Line, fset})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestArrowsPointOneWay holds the code to both tables, and the tables to the
// code: what they allow and nobody uses would let an arrow in unseen.
func TestArrowsPointOneWay(t *testing.T) {
	type arrow struct{ from, to string }
	used, packages := map[arrow]bool{}, map[string]bool{}
	for _, f := range parseModule(t) {
		if f.dir == "internal" {
			continue // this test
		}
		packages[f.dir] = true
		allowed, listed := imports[f.dir]
		if !listed {
			t.Errorf("%s: package %s is not in the import table", f.name, f.dir)
			continue
		}
		for _, spec := range f.ast.Imports {
			p, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			if f.test {
				continue // tests may reach across; the shipped program may not
			}
			if rest, ours := strings.CutPrefix(p, module+"/"); ours {
				used[arrow{f.dir, rest}] = true
				if !slices.Contains(allowed, rest) {
					t.Errorf("%s imports %s, which the import table does not allow", f.name, rest)
				}
			}
			for prefix, who := range owners {
				if p != prefix && !strings.HasPrefix(p, prefix+"/") {
					continue
				}
				used[arrow{f.dir, prefix}] = true
				if !slices.Contains(who, f.dir) {
					t.Errorf("%s imports %s; only %v may", f.name, p, who)
				}
			}
		}
	}
	for from, allowed := range imports {
		if !packages[from] {
			t.Errorf("the import table has package %s, which does not exist", from)
		}
		for _, to := range allowed {
			if !used[arrow{from, to}] {
				t.Errorf("the import table lets %s import %s, which it does not", from, to)
			}
		}
	}
	for prefix, who := range owners {
		for _, from := range who {
			if !used[arrow{from, prefix}] {
				t.Errorf("the table of owners lets %s import %s, which it does not", from, prefix)
			}
		}
	}
}

func TestEveryPackageSaysWhatItGuarantees(t *testing.T) {
	docs := map[string]string{}
	for _, f := range parseModule(t) {
		if !f.test {
			docs[f.dir] += f.ast.Doc.Text()
		}
	}
	for dir, doc := range docs {
		switch {
		case doc == "":
			t.Errorf("%s has no package documentation", dir)
		case strings.HasPrefix(dir, "internal/") && !strings.Contains(strings.ToLower(doc), "guarantee"):
			t.Errorf("%s does not say what it guarantees", dir)
		}
	}
}

// TestSizesStayReadable keeps files under 500 lines, functions under 60 and
// structs under 15 fields, unless a comment there says why.
func TestSizesStayReadable(t *testing.T) {
	for _, f := range parseModule(t) {
		if ast.IsGenerated(f.ast) {
			continue
		}
		if f.lines > 500 && !f.test && !strings.Contains(fileComments(f), "This file is long") {
			t.Errorf("%s has %d lines; split it by noun, or say in a comment: This file is long because …", f.name, f.lines)
		}
		if f.test {
			continue
		}
		for _, d := range f.ast.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				n := f.fset.Position(d.End()).Line - f.fset.Position(d.Pos()).Line
				if n > 60 && !strings.Contains(d.Doc.Text(), "long") {
					t.Errorf("%s: %s has %d lines; split it, or say in its comment why it is long", f.name, d.Name.Name, n)
				}
				if d.Name.Name == "init" && d.Recv == nil {
					t.Errorf("%s has an init function", f.name)
				}
			case *ast.GenDecl:
				checkStructs(t, f, d)
			}
		}
	}
}

func checkStructs(t *testing.T, f goFile, d *ast.GenDecl) {
	for _, spec := range d.Specs {
		ts, ok := spec.(*ast.TypeSpec)
		if !ok {
			continue
		}
		st, ok := ts.Type.(*ast.StructType)
		if !ok {
			continue
		}
		n := 0
		for _, field := range st.Fields.List {
			n += max(1, len(field.Names))
		}
		var doc strings.Builder
		doc.WriteString(d.Doc.Text() + ts.Doc.Text() + ts.Comment.Text())
		for _, c := range f.ast.Comments {
			if c.Pos() > ts.Pos() && c.End() < ts.End() {
				doc.WriteString(c.Text())
			}
		}
		if n > 15 && len(strings.Fields(doc.String())) < 8 {
			t.Errorf("%s: struct %s has %d fields and no comment that says why", f.name, ts.Name.Name, n)
		}
	}
}

func fileComments(f goFile) string {
	var b strings.Builder
	for _, c := range f.ast.Comments {
		b.WriteString(c.Text())
	}
	return b.String()
}

func TestScriptsAreExecutable(t *testing.T) {
	scripts, err := filepath.Glob("../scripts/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range append(scripts, "../.ci/run") {
		info, err := os.Stat(p)
		if err != nil {
			t.Error(err)
			continue
		}
		if !strings.Contains(filepath.Base(p), ".") && info.Mode()&0o100 == 0 {
			t.Errorf("%s is not executable", p)
		}
	}
}

// TestLinksLeadSomewhere follows every relative link of the documentation.
func TestLinksLeadSomewhere(t *testing.T) {
	pages, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	sinks, err := filepath.Glob("../docs/*/*.md")
	if err != nil {
		t.Fatal(err)
	}
	pages = append(pages, sinks...)
	link := regexp.MustCompile(`\]\(([^)#\s]+)[^)]*\)`)
	followed := 0
	for _, page := range append(pages, "../README.md", "../docs/examples/sink-sqlite/README.md", "../docs/examples/dashboard/README.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range link.FindAllSubmatch(text, -1) {
			to := string(match[1])
			if strings.Contains(to, "://") {
				continue
			}
			followed++
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), to)); err != nil {
				t.Errorf("%s links to %s: %v", page, to, err)
			}
		}
	}
	if followed < 10 {
		t.Errorf("only %d links were found", followed)
	}
}

// TestTheArchitectureNamesEveryPackage keeps its table complete.
func TestTheArchitectureNamesEveryPackage(t *testing.T) {
	text, err := os.ReadFile("../docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	for dir := range imports {
		name := strings.TrimPrefix(dir, "internal/")
		if !strings.Contains(string(text), "`"+name+"`") && !strings.Contains(string(text), "`"+dir+"`") && !strings.Contains(name, "/") {
			t.Errorf("docs/architecture.md does not name package %s", dir)
		}
	}
}

// TestEveryCommandTakesItsVersionFromTheLinker: scripts/build sets main.version, and what
// a plugin describes itself with has to be it.
func TestEveryCommandTakesItsVersionFromTheLinker(t *testing.T) {
	takes := map[string]bool{}
	for _, f := range parseModule(t) {
		if f.test || f.ast.Name.Name != "main" || path.Dir(f.dir) != "plugins" {
			continue
		}
		takes[f.dir] = takes[f.dir] || false
		ast.Inspect(f.ast, func(n ast.Node) bool {
			field, ok := n.(*ast.KeyValueExpr)
			if !ok {
				return true
			}
			if name, ok := field.Key.(*ast.Ident); ok && name.Name == "Version" {
				ast.Inspect(field.Value, func(n ast.Node) bool {
					v, ok := n.(*ast.Ident)
					takes[f.dir] = takes[f.dir] || ok && v.Name == "version"
					return true
				})
			}
			return true
		})
	}
	if len(takes) < 3 {
		t.Fatalf("%d plugins", len(takes))
	}
	for dir, ok := range takes {
		if !ok {
			t.Errorf("%s describes itself with a version of its own", dir)
		}
	}
}
