package internal_test

import (
	"go/ast"
	"maps"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// notFuzzed says why a decoder has no fuzz target that reaches it.
var notFuzzed = map[string]string{
	"internal/configtest.decode":          "compares what a test of a webhook received; both sides come from the user's own terminal",
	"sinks/sinktest.decodeJSON":           "of the examples of a plugin's author, in the author's own test",
	"plugins/sheets/sheetstest.parseMask": "stands for the service in tests",
}

// alsoDecoders read bytes from outside or from the disk and have other names.
var alsoDecoders = []string{
	"internal/queue/journal.Recover", "internal/queue.readMarker", "internal/httpsink/http1.Do",
	"internal/ingest.next", "internal/signing.Verify", "internal/pluginhost.compileSchema",
}

// tools are packages of tests and measurements: nothing from outside gets there.
var tools = []string{"internal", "internal/bench", "internal/bench/overhead", "internal/docstest", "internal/hostiletest", "internal/testhost", "internal/disktest",
	"internal/zoo", "internal/failpoint", "internal/torture", "internal/sinkpb/gen", "internal/config/gen", "internal/cli/clitest"}

// goFunc is a function, a method or a fuzz target. Methods of one name in one package
// are one.
type goFunc struct {
	decoder bool
	calls   map[string]bool // as far as names tell
}

// TestEveryDecoderIsFuzzed: a function that decodes or parses text or bytes is reached
// by a fuzz target, or says above why not. What is reached is told by names: more than
// is called may count, never less.
func TestEveryDecoderIsFuzzed(t *testing.T) {
	all := map[string]*goFunc{}
	for _, f := range parseModule(t) {
		readFuncs(f, all)
	}
	reached, targets := map[string]bool{}, 0
	var visit func(name string)
	visit = func(name string) {
		if fn := all[name]; fn != nil && !reached[name] {
			reached[name] = true
			for next := range fn.calls {
				visit(next)
			}
		}
	}
	for name := range all {
		if strings.HasPrefix(path.Base(name)[strings.LastIndex(path.Base(name), ".")+1:], "Fuzz") {
			targets++
			visit(name)
		}
	}
	if targets < 40 {
		t.Errorf("only %d fuzz targets were found", targets)
	}
	for _, name := range alsoDecoders {
		if all[name] == nil {
			t.Errorf("%s does not exist", name)
			continue
		}
		all[name].decoder = true
	}
	decoders := 0
	for _, name := range slices.Sorted(maps.Keys(all)) {
		why, excused := notFuzzed[name]
		switch {
		case !all[name].decoder:
			if excused {
				t.Errorf("%s is excused and no decoder", name)
			}
			continue
		case excused && (reached[name] || why == ""):
			t.Errorf("%s is excused, and fuzzed or without a reason", name)
		case !excused && !reached[name]:
			t.Errorf("%s decodes, and no fuzz target reaches it", name)
		}
		decoders++
	}
	for name := range notFuzzed {
		if all[name] == nil {
			t.Errorf("%s is excused and does not exist", name)
		}
	}
	if decoders < 60 {
		t.Errorf("only %d decoders were found", decoders)
	}
	t.Attr("cases", strconv.Itoa(decoders))
	t.Logf("%d decoders, %d fuzz targets", decoders, targets)
}

// readFuncs adds the functions of a file.
func readFuncs(f goFile, all map[string]*goFunc) {
	imported := map[string]string{}
	for _, spec := range f.ast.Imports {
		p, _ := strconv.Unquote(spec.Path.Value)
		if dir, ours := strings.CutPrefix(p, module+"/"); ours {
			name := path.Base(dir)
			if spec.Name != nil {
				name = spec.Name.Name
			}
			imported[name] = dir
		}
	}
	for _, d := range f.ast.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok {
			continue
		}
		at := f.dir + "." + fn.Name.Name
		if all[at] == nil {
			all[at] = &goFunc{calls: map[string]bool{}}
		}
		all[at].decoder = all[at].decoder || (!f.test && !slices.Contains(tools, f.dir) && decodes(fn))
		if fn.Body == nil {
			continue
		}
		ast.Inspect(fn.Body, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.Ident:
				all[at].calls[f.dir+"."+n.Name] = true
			case *ast.SelectorExpr:
				if x, ok := n.X.(*ast.Ident); ok && imported[x.Name] != "" {
					all[at].calls[imported[x.Name]+"."+n.Sel.Name] = true
					return false
				}
				for _, dir := range imported { // a method of a type from there, perhaps
					all[at].calls[dir+"."+n.Sel.Name] = true
				}
			}
			return true
		})
	}
}

// decodes reports whether a function's name and parameters say that it does.
func decodes(fn *ast.FuncDecl) bool {
	if !regexp.MustCompile(`^(decode|parse|Decode|Parse)([A-Z]|$)`).MatchString(fn.Name.Name) {
		return false
	}
	return slices.ContainsFunc(fn.Type.Params.List, func(p *ast.Field) bool {
		switch x := p.Type.(type) {
		case *ast.Ident:
			return x.Name == "string"
		case *ast.ArrayType:
			elem, ok := x.Elt.(*ast.Ident)
			return ok && x.Len == nil && elem.Name == "byte"
		case *ast.SelectorExpr:
			return x.Sel.Name == "RawMessage"
		}
		return false
	})
}

// TestEveryFuzzTargetHasACorpus: what is committed is what every push runs, as files or
// in the target itself.
func TestEveryFuzzTargetHasACorpus(t *testing.T) {
	for _, f := range parseModule(t) {
		for _, d := range f.ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || !f.test || !strings.HasPrefix(fn.Name.Name, "Fuzz") {
				continue
			}
			files, err := filepath.Glob(filepath.Join("..", f.dir, "testdata", "fuzz", fn.Name.Name, "*"))
			if err != nil {
				t.Fatal(err)
			}
			seeds := len(files)
			ast.Inspect(fn.Body, func(n ast.Node) bool {
				if sel, ok := n.(*ast.SelectorExpr); ok && sel.Sel.Name == "Add" {
					seeds++
				}
				if call, ok := n.(*ast.Ident); ok && call.Name == "addFields" {
					seeds++
				}
				return true
			})
			if seeds == 0 {
				t.Errorf("%s.%s has no corpus", f.dir, fn.Name.Name)
			}
		}
	}
}
