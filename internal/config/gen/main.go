// Command gen writes docs/config.md and docs/config.schema.json from the
// structs of package config.
//
// Guarantee: it writes these two files and nothing else. Run it through
// `go generate ./internal/config`, which sets the working directory.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/peanutsapp/peanuts-relay/internal/config"
)

func main() {
	docs := filepath.Join("..", "..", "docs")
	for name, content := range map[string][]byte{"config.md": config.Reference(), "config.schema.json": config.Schema()} {
		if err := os.WriteFile(filepath.Join(docs, name), content, 0o644); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}
