//go:build linux

package history

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/disktest"
	"github.com/peanutsapp/peanuts-relay/internal/testhost"
)

// The power of a real file system goes while a child appends as fast as it can.
func TestNothingAppendedIsLostByAPowerCut(t *testing.T) {
	cuts := 2
	if n, err := strconv.Atoi(os.Getenv("HISTORY_POWER_CUTS")); err == nil {
		cuts = n
	}
	for _, kind := range []string{"ext4", "xfs"} {
		t.Run(kind, func(t *testing.T) {
			disk := disktest.New(t, kind, "", 512<<20)
			dir := filepath.Join(disk.Dir, "queue", "config")
			var acked uint64
			chance := testhost.Chance(t)
			for range cuts {
				acked = max(acked, endOnce(t, dir, true, time.Duration(chance.Int64N(int64(200*time.Millisecond))), func(p *os.Process) {
					disk.CutUnder(p)
					p.Kill()
				}))
				disk.Unmount()
				disk.Mount()
				l := openLog(t, dir)
				if err := check(l); err != nil {
					t.Fatal(err)
				}
				if l.Generation() < acked {
					t.Fatalf("generation %d was acknowledged, %d is the last", acked, l.Generation())
				}
				noRemains(t, l, dir)
				if err := l.Close(); err != nil {
					t.Fatal(err)
				}
			}
			if acked < uint64(cuts) {
				t.Errorf("only %d were acknowledged", acked)
			}
			t.Logf("%d power cuts, %d generations", cuts, acked)
			testhost.Cases(t, cuts)
			testhost.Account(t, int(acked), 0) // a loss ends the test above
		})
	}
}
