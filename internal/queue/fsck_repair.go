package queue

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/queue/journal"
)

// repair builds a store of what can be read beside the former one, checks it, and
// puts it in place. Nothing of the former one is changed before that, and nothing of
// it is ever deleted.
func (f *fsck) repair(ctx context.Context) error {
	if err := f.roomToRepair(); err != nil {
		return err
	}
	building := filepath.Join(f.o.Dir, buildingDir)
	if err := os.RemoveAll(building); err != nil { // of a repair that was interrupted
		return fmt.Errorf("remove an unfinished repair: %w", err)
	}
	at := time.Now().UTC().Format("20060102T150405.000000Z")
	aside := filepath.Join(f.o.Dir, quarantinePrefix+at)
	for _, dir := range []string{building, filepath.Join(building, dbDir), aside} {
		if err := makeDir(dir); err != nil {
			return err
		}
	}
	f.report.Quarantine = aside
	b, err := f.build(ctx, building, aside)
	if err != nil {
		return fmt.Errorf("build the repaired queue: %w", err)
	}
	f.o.crash("built")
	if err := f.checkRepaired(ctx, building); err != nil {
		return err
	}
	f.report.Repaired, f.report.BroughtBack = true, b.broughtBack
	f.report.LostDeliveryCount -= b.broughtBack
	f.report.LostDeliveries = slices.DeleteFunc(f.report.LostDeliveries, func(id string) bool { return b.back[id] })
	if err := f.writeReport(aside); err != nil {
		return err
	}
	if err := syncAs(f.o.Dir, building); err != nil {
		return fmt.Errorf("make the repaired queue durable: %w", err)
	}
	f.o.crash("durable")
	if err := os.Rename(building, filepath.Join(f.o.Dir, repairedPrefix+at)); err != nil { // the commit point
		return fmt.Errorf("put the repaired queue in place: %w", err)
	}
	if err := journal.SyncDir(f.o.Dir); err != nil {
		return fmt.Errorf("put the repaired queue in place: %w", err)
	}
	f.o.crash("decided")
	if err := finishSwap(f.o.Dir); err != nil {
		return err
	}
	endWell(f.o.Dir)
	return nil
}

// roomToRepair asks for as much space as the store takes now, and some.
func (f *fsck) roomToRepair() error {
	var size int64
	for _, name := range storeFiles() {
		err := filepath.WalkDir(filepath.Join(f.o.Dir, name), func(_ string, e os.DirEntry, err error) error {
			if err != nil {
				return nil // a missing file takes no room
			}
			if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
				size += info.Size()
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	st, err := f.o.stat(f.o.Dir)
	if err != nil {
		return fmt.Errorf("look at the disk: %w", err)
	}
	const spare = 128 << 20
	if st.free < size+spare {
		return &SpaceError{What: "disk space", Path: f.o.Dir, Free: st.free, Need: size + spare}
	}
	return nil
}

// checkRepaired makes sure that what takes the former store's place is sound.
func (f *fsck) checkRepaired(ctx context.Context, dir string) error {
	g := newFsck(FsckOptions{Dir: dir, Progress: func(int64, int64) {}, stat: f.o.stat, crash: f.o.crash})
	if err := g.check(ctx); err != nil {
		return fmt.Errorf("check the repaired queue: %w", err)
	}
	for _, p := range g.report.Problems {
		return fmt.Errorf("the repaired queue is not sound, the former one was left as it is: %s: %s", p.Where, p.What)
	}
	return nil
}

func (f *fsck) writeReport(aside string) error {
	text, err := json.MarshalIndent(f.report, "", "  ")
	if err == nil {
		err = os.WriteFile(filepath.Join(aside, "report.json"), append(text, '\n'), 0o600)
	}
	if err == nil {
		err = syncAs(f.o.Dir, aside)
	}
	if err != nil {
		return fmt.Errorf("write the report of the repair: %w", err)
	}
	return nil
}
