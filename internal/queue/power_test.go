//go:build linux

package queue

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/disktest"
	"github.com/peanutsapp/peanuts-relay/internal/testhost"
)

// powerCuts is how often each kind of power cut is tried.
func powerCuts(short int) int {
	if n, err := strconv.Atoi(os.Getenv("QUEUE_POWER_CUTS")); err == nil {
		return n
	}
	if testing.Short() {
		return 1
	}
	return short
}

// cutOnce cuts the power while a child works.
func cutOnce(t *testing.T, chance *rand.Rand, disk *disktest.Disk, dir, mode string, acked map[uint64]string) {
	t.Helper()
	c := startCrashChild(t, dir, mode)
	c.follow(acked, time.Duration(chance.IntN(200)+100)*time.Millisecond, func() {
		disk.CutUnder(c.cmd.Process)
		c.cmd.Process.Kill()
	})
	disk.Unmount()
	disk.Mount()
}

func TestNothingAcknowledgedIsLostByAPowerCut(t *testing.T) {
	for _, c := range []struct{ kind, mode string }{{"ext4", ""}, {"xfs", ""}, {"ext4", crashLeave}} {
		t.Run(c.kind+c.mode, func(t *testing.T) {
			disk := disktest.New(t, c.kind, "", 1<<30)
			dir := filepath.Join(disk.Dir, "above", "q")
			acked := map[uint64]string{}
			cuts, chance := powerCuts(2), testhost.Chance(t)
			for range cuts {
				cutOnce(t, chance, disk, dir, c.mode, acked)
			}
			settle(t, dir, acked, everything)
			t.Logf("%d power cuts, %d acknowledged events", cuts, len(acked))
			testhost.Cases(t, cuts)
		})
	}
}

// The first start makes files and directories; a power cut may meet any of them.
func TestAPowerCutWhileTheStoreIsMadeLeavesOneThatOpens(t *testing.T) {
	disk := disktest.New(t, "ext4", "", 1<<30)
	cuts, chance := powerCuts(3), testhost.Chance(t)
	testhost.Cases(t, cuts)
	for n := range cuts {
		dir := filepath.Join(disk.Dir, "above-"+strconv.Itoa(n), "q")
		c := exec.Command(os.Args[0])
		c.Env = append(os.Environ(), crashDirEnv+"="+dir)
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Duration(chance.IntN(60)) * time.Millisecond)
		disk.CutUnder(c.Process)
		c.Process.Kill()
		c.Wait() // killed: the error is expected
		disk.Unmount()
		disk.Mount()
		for _, problem := range crashAccount(t, dir, nil, stays) {
			t.Error(problem)
		}
	}
}

// While days pass, are copied forward and dropped, and while space is given
// back, what is pending stays.
func TestAPowerCutInTheMiddleOfDroppingAndCollectingKeepsWhatIsPending(t *testing.T) {
	disk := disktest.New(t, "ext4", "", 1<<30)
	dir := filepath.Join(disk.Dir, "q")
	acked := map[uint64]string{}
	cuts, chance := powerCuts(2), testhost.Chance(t)
	for range cuts {
		cutOnce(t, chance, disk, dir, crashChurn, acked)
	}
	settle(t, dir, acked, stays)
	t.Logf("%d power cuts, %d acknowledged events", cuts, len(acked))
	testhost.Cases(t, cuts)
}

// The control: a store that acknowledges without syncing must be caught by the same
// test.
func TestTheAccountNoticesAStoreThatDoesNotSync(t *testing.T) {
	disk := disktest.New(t, "ext4", "", 1<<30)
	dir := filepath.Join(disk.Dir, "q")
	h := &harness{t: t, opts: Options{Dir: dir, stat: roomy}}
	h.open()
	h.close()
	acked := map[uint64]string{}
	cutOnce(t, testhost.Chance(t), disk, dir, crashUnsynced, acked)
	wrong := strings.Join(crashAccount(t, dir, acked, everything), "\n")
	lost := strings.Count(wrong, "has no delivery")
	if len(acked) == 0 || lost == 0 {
		t.Errorf("%d events were acknowledged and none was lost:\n%s", len(acked), wrong)
	}
	t.Logf("%d acknowledged events, %d deliveries lost, as they must be", len(acked), lost)
	testhost.Account(t, len(acked), lost)
}
