package queue

import (
	"flag"
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDirEnv); dir != "" {
		crashChild(dir)
		return
	}
	if dir := os.Getenv(restoreDirEnv); dir != "" {
		restoreChild(dir)
		return
	}
	if dir := os.Getenv(damagedEnv); dir != "" {
		openDamaged(dir)
		return
	}
	// Every check of the model opens a real database; -rapid.checks on the
	// command line asks for more.
	if err := flag.Set("rapid.checks", "10"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}
