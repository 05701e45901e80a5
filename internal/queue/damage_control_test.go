package queue

import (
	"bytes"
	"context"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/testhost"
)

// The control of every flip that is found: without comparing checksums it goes unnoticed,
// and something is wrong nevertheless.
func TestAFlipGoesUnnoticedWithoutChecksums(t *testing.T) {
	b := newSmallBase(t)
	tables := filepath.Join(dbDir, "*.sst")
	text := crashPayload(b.acked[slices.Min(slices.Collect(maps.Keys(b.acked)))])
	cases := 0
	for _, name := range b.files {
		inTable, _ := filepath.Match(tables, name)
		from := bytes.Index(b.texts[name], text)
		if from < 0 || !inTable && filepath.Ext(name) != ".mem" && filepath.Ext(name) != ".vlog" {
			continue
		}
		cases++
		dir := t.TempDir() + "/q"
		b.copyTo(t, dir)
		hurt := bytes.Clone(b.texts[name])
		hurt[from+rand.IntN(len(text)/2)] ^= 1
		if err := os.WriteFile(filepath.Join(dir, name), append(hurt, make([]byte, b.sizes[name]-len(hurt))...), 0o600); err != nil {
			t.Fatal(err)
		}
		blind, err := Fsck(context.Background(), FsckOptions{Dir: dir, stat: roomy, trusting: true})
		if err != nil || blind.Found > 0 {
			t.Errorf("%s: without checksums: %+v, %v", name, blind, err)
		}
		if r := inspect(t, dir, false); r.Found == 0 || r.LostDeliveryCount == 0 {
			t.Errorf("%s: with checksums: %+v", name, r)
		}
		if len(b.account(t, dir, nil)) == 0 {
			t.Errorf("%s: nothing is wrong with the store", name)
		}
	}
	if cases == 0 {
		t.Error("no file has the payload")
	}
	testhost.Cases(t, cases)
}
