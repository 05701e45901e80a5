package process

import "strconv"

// Read is how many bytes of a process's output were read.
func Read(p *Process) uint64 { return p.run.out.read.Load() }

// MiB is so many MiB, in bytes.
func MiB(n string) uint64 {
	mib, err := strconv.ParseUint(n, 10, 32)
	if err != nil {
		panic(err)
	}
	return mib << 20
}
