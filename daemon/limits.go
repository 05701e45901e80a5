package main

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/peanutsapp/peanuts-relay/internal/cli"
)

// need is a limit of the kernel for this process that can be too low for any use.
type need struct {
	resource int
	least    uint64
	what     string // "this process may …", with the limit in place of %d
	setting  string // of systemd, and what is right in it
	shell    string // of ulimit
}

// needs is measured: below these limits a start fails, or the first load ends what
// started. The database has some 40 files open and needs others while it tidies up;
// each connection is one. Its files are mapped twice their size, 64 MiB, and the Go
// runtime reserves more than a gigabyte of addresses for its tables.
func needs() []need {
	return []need{
		{unix.RLIMIT_NOFILE, 256, "open %d files", "LimitNOFILE=65536", "-n 65536"},
		{unix.RLIMIT_FSIZE, 256 << 20, "make files of %d bytes", "LimitFSIZE=infinity", "-f unlimited"},
		{unix.RLIMIT_AS, 4 << 30, "use %d bytes of addresses", "LimitAS=infinity, and MemoryMax= to limit memory", "-v unlimited"},
	}
}

// enough is asked before a daemon opens its first file: later the lack of one would
// be told as a file that cannot be read, or by a trace of the runtime.
func enough(limit func(resource int, lim *unix.Rlimit) error) error {
	for _, n := range needs() {
		var lim unix.Rlimit
		// The os package has raised the limit of files as far as it may be raised.
		if limit(n.resource, &lim) != nil || lim.Cur >= n.least {
			continue
		}
		return cli.WithExit(cli.ExitConfig, fmt.Errorf("this process may "+n.what+" at most, and needs %d", lim.Cur, n.least),
			fmt.Sprintf("raise the limit: %s in the unit of systemd, or ulimit %s before the start", n.setting, n.shell))
	}
	return nil
}
