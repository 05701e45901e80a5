package queue

import (
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	// tableTail is the end of a table that opening it reads: the last block, the
	// bloom filter and the index. That of a table of 4 MiB takes 128 KiB at most.
	tableTail = 192 << 10
	// tailReaders is how many tables are asked for at a time.
	tailReaders = 4
)

// readTails asks the kernel for what opening the tables in dir will read, so that
// it comes from the disk many at a time. Badger opens three at a time, through
// maps, and the kernel reads around a page of a map that is missing as much as the
// disk's read_ahead_kb says: with 8 MiB that was every table as a whole, 5 GB for
// ten million deliveries. It is advice: an error costs time only.
func readTails(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	names := make(chan string)
	var readers sync.WaitGroup
	for range tailReaders {
		readers.Go(func() {
			for name := range names {
				readTail(name)
			}
		})
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".sst") {
			names <- filepath.Join(dir, e.Name())
		}
	}
	close(names)
	readers.Wait()
}

func readTail(name string) {
	f, err := os.Open(name)
	if err != nil {
		return
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() {
		from := max(info.Size()-tableTail, 0)
		_ = unix.Fadvise(int(f.Fd()), from, info.Size()-from, unix.FADV_WILLNEED)
	}
}
