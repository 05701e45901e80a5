// Package pointlist finds the points of package failpoint in the source.
//
// Guarantee: a point that is in the source is in the list, with its name and its kind; a
// name that is not a constant, or is used twice, is an error. So a test that goes through the list leaves none
// out.
package pointlist

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Point is one place in the source.
type Point struct {
	Name string
	File string // below the root that was searched, with slashes
	Kind string // Here, Call or Torn
}

// Whats lists what can happen at a point: values of FAILPOINT.
func (p Point) Whats() []string {
	switch p.Kind {
	case "Call":
		return []string{"kill", "kill-after", "error", "late"}
	case "Torn":
		return []string{"torn"}
	}
	return []string{"kill"}
}

// In lists the points of all packages at and below root, in the order of files and
// lines.
func In(root string) ([]Point, error) {
	var out []Point
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != root && (d.Name() == "testdata" || d.Name() == "node_modules" || strings.HasPrefix(d.Name(), ".")):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		found, err := inFile(path, filepath.ToSlash(rel))
		out = append(out, found...)
		return err
	})
	if err != nil {
		return nil, err
	}
	for i, p := range out {
		if j := slices.IndexFunc(out[:i], func(o Point) bool { return o.Name == p.Name }); j >= 0 {
			return nil, fmt.Errorf("the point %q is in %s and in %s", p.Name, out[j].File, p.File)
		}
	}
	return out, nil
}

func inFile(path, rel string) (out []Point, err error) {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		f, ok := call.Fun.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if pkg, ok := f.X.(*ast.Ident); !ok || pkg.Name != "failpoint" {
			return true
		}
		name := ""
		if lit, ok := call.Args[0].(*ast.BasicLit); ok && lit.Kind == token.STRING {
			name, _ = strconv.Unquote(lit.Value) // the parser has read it
		}
		if name == "" {
			err = fmt.Errorf("%s has a point whose name is not written out", rel)
		}
		out = append(out, Point{name, rel, f.Sel.Name})
		return true
	})
	return out, err
}
