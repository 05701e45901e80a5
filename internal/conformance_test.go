package internal_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"testing"
)

// conformance says which tests run the suite of package sinktest on which sink: in process
// (Run) and as a program that is started (RunBinary).
var conformance = map[string]struct {
	file             string
	inProcess, boxed string // names of tests; inProcess "" = it is not written in Go
}{
	"http":                      {"internal/httpsink/plugin_test.go", "TestItIsASink", "TestTheProgramIsASink"},
	"plugins/zapier":            {"plugins/zapier/conformance_test.go", "TestItIsASink", "TestTheProgramIsASink"},
	"plugins/sheets":            {"plugins/sheets/conformance_test.go", "TestItIsASink", "TestTheProgramIsASink"},
	"plugins/slack":             {"plugins/slack/conformance_test.go", "TestItIsASink", "TestTheProgramIsASink"},
	"docs/examples/sink-sqlite": {"docs/examples/sink-sqlite/suite_test.go", "TestTheSinkPassesTheSuite", "TestTheBinaryPassesTheSuite"},
	"docs/examples/sink-python": {"sinks/sinktest/python_test.go", "", "TestThePythonExamplePasses"},
}

// TestEverySinkIsHeldToTheSuite fails when a sink that ships, or an example, has no test
// that runs the suite.
func TestEverySinkIsHeldToTheSuite(t *testing.T) {
	sinks := []string{"http"}
	for _, pattern := range []string{"plugins/*", "docs/examples/sink-*"} {
		dirs, err := filepath.Glob(filepath.Join("..", pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, dir := range dirs {
			if info, err := os.Stat(dir); err == nil && info.IsDir() {
				sinks = append(sinks, filepath.ToSlash(dir[len("../"):]))
			}
		}
	}
	for _, sink := range sinks {
		row, known := conformance[sink]
		if !known {
			t.Errorf("no test runs the suite on %s", sink)
			continue
		}
		calls := suiteCalls(t, filepath.Join("..", row.file))
		if row.inProcess != "" && !calls[row.inProcess]["Run"] {
			t.Errorf("%s: %s does not run the suite in process", sink, row.inProcess)
		}
		if !calls[row.boxed]["RunBinary"] {
			t.Errorf("%s: %s does not run the suite on the program", sink, row.boxed)
		}
	}
	if len(sinks) != len(conformance) {
		t.Errorf("the sinks are %q, of %d the tests are known", sinks, len(conformance))
	}
}

// suiteCalls are the tests of a file, each with what it calls of package sinktest, or
// within it.
func suiteCalls(t *testing.T, path string) map[string]map[string]bool {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	own := file.Name.Name == "sinktest"
	calls := map[string]map[string]bool{}
	for _, decl := range file.Decls {
		f, isFunc := decl.(*ast.FuncDecl)
		if !isFunc {
			continue
		}
		found := map[string]bool{}
		ast.Inspect(f, func(n ast.Node) bool {
			call, isCall := n.(*ast.CallExpr)
			if !isCall {
				return true
			}
			switch fun := call.Fun.(type) {
			case *ast.SelectorExpr:
				if x, isName := fun.X.(*ast.Ident); isName && x.Name == "sinktest" {
					found[fun.Sel.Name] = true
				}
			case *ast.Ident:
				if own {
					found[fun.Name] = true
				}
			}
			return true
		})
		calls[f.Name.Name] = found
	}
	return calls
}
