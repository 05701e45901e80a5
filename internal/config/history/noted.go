package history

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// notedDir has, in the default state directory, one file for each main file whose
// history is elsewhere. Its name is the history's, its content one path.
const notedDir = "known"

// maxNoted bounds the path (PATH_MAX, limits.h).
const maxNoted = 4096

// Note writes down, in stateDir, that the queue of mainFile is in queueDir: files
// that are broken may not say so any more. Nothing is written when it is there
// already. Only the daemon's user can read it.
func Note(stateDir, mainFile, queueDir string) error {
	if noted, _ := Noted(stateDir, mainFile); noted == queueDir {
		return nil
	}
	dir := filepath.Join(stateDir, notedDir)
	if err := makeDirs(dir); err != nil {
		return fmt.Errorf("note where the queue is: %w", err)
	}
	f, err := os.CreateTemp(dir, ".new-")
	if err != nil {
		return fmt.Errorf("note where the queue is: %w", err)
	}
	_, err = io.WriteString(f, queueDir+"\n")
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, place(mainFile)))
	}
	if err != nil {
		return fmt.Errorf("note where the queue is: %w", errors.Join(err, os.Remove(f.Name())))
	}
	return syncDir(dir)
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Noted is what Note wrote down last. ok is false when there is nothing of use;
// what belongs to another user than this one and root is not, nor what lies in the
// working directory because no state directory is known.
func Noted(stateDir, mainFile string) (queueDir string, ok bool) {
	if !filepath.IsAbs(stateDir) {
		return "", false
	}
	f, err := os.OpenFile(filepath.Join(stateDir, notedDir, place(mainFile)), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", false
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || ownedByUs(info) != nil {
		return "", false
	}
	text, err := io.ReadAll(io.LimitReader(f, maxNoted+1))
	path, complete := strings.CutSuffix(string(text), "\n")
	if err != nil || !complete || !filepath.IsAbs(path) {
		return "", false
	}
	return path, true
}
