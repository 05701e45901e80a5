package delivery

import "time"

// Limits is how a sink wants to be called. The zero value asks for nothing.
type Limits struct {
	Concurrency int           // calls at a time; 0 = as the webhook says; else the smaller of both
	Batch       int           // deliveries in one call, of a sink that takes several; less than 2 is one
	BatchBytes  int           // bytes of payload in one call, one delivery excepted; 0, or more than 3 MiB, is 3 MiB
	Linger      time.Duration // how long a call waits for deliveries after its first; at most a second
	PerSecond   float64       // calls per second on average; 0 = no limit
	Burst       int           // how many of them may come at once; 0 = 1
	Ordered     bool          // deliveries of one entry one after the other, in the order of acceptance
	State       bool          // the sink keeps something for each entry, see Outbound.EntryState
}
