package sinks

// heapRoom is the least, in bytes, that may be allocated between two collections of
// garbage. A sink uses a few MiB, so that Go would collect after each 4 MiB: a hundred
// times a second in a flood, at the price of a third of the sink's processor time.
const heapRoom = 24 << 20

// leaveRoom returns memory that counts as in use while it is kept, and so moves the
// collections apart by its size; nobody ever touches it, so that it takes up none of the
// machine's. Unlike a larger GOGC it adds the same to a large heap as to a small one.
// GOGC or GOMEMLIMIT in the environment is somebody's decision: then it is empty.
func leaveRoom(getenv func(string) string) []byte {
	if getenv("GOGC") != "" || getenv("GOMEMLIMIT") != "" {
		return nil
	}
	return make([]byte, heapRoom)
}
