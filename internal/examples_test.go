package internal_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestModulesOfTheirOwnPass builds and tests each as its author would. The import paths of
// the examples are not below that of this module, so that the compiler lets them see
// nothing but what is public. They are built as everything else is, so that the build cache
// serves both.
func TestModulesOfTheirOwnPass(t *testing.T) {
	modules, err := filepath.Glob("../docs/examples/*/go.mod")
	if err != nil || len(modules) == 0 {
		t.Fatalf("no example found: %v", err)
	}
	for _, mod := range append(modules, "../internal/bench/peers/go.mod") {
		dir := filepath.Dir(mod)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			for _, args := range [][]string{{"vet", "./..."}, {"test", "./..."}, {"build", "-o", t.TempDir() + string(filepath.Separator), "./..."}} {
				cmd := exec.CommandContext(t.Context(), "go", args...)
				cmd.Dir = dir
				cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=readonly")
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("go %s: %v; when the relay's own requirements have changed, go mod tidy there\n%s", args[0], err, out)
				}
			}
		})
	}
}
