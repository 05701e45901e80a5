// Package dispatch runs the lanes: it claims pending deliveries from the
// store, hands each to its webhook's sink and records what became of it.
//
// Guarantees:
//
//   - A delivery is never in flight twice at the same time, and whatever is
//     pending in the store on a lane that is not held is attempted: now, or when
//     its time has come.
//   - Rows stay in the store while they are in flight. Only [Store.Complete]
//     moves them, so a crash at any point repeats a delivery at worst.
//   - Lanes do not wait for each other. A lane has at most Target.Concurrency
//     calls of its sink under way, and fewer when the sink wants fewer, at the
//     pace that the sink wants, and a bounded number of deliveries in memory.
//   - An attempt sees one [Target] from its beginning to its end. Apply switches
//     all lanes at one instant, cancels nothing, and closes a sink after its last
//     attempt.
//   - In an ordered lane no attempt of a delivery begins before the outcome of
//     every earlier one of its entry is durable, retries included, whatever is
//     retried by an operator or replayed excepted. Entries do not wait for each other.
//   - A dispatcher that is idle for a second runs one goroutine, which sleeps
//     until the next time that is known; nothing polls.
//   - What the daemon's own shutdown cuts short uses up no attempt.
//   - A sink that says that it is held is not called. What comes back from it
//     meanwhile, because it was never sent, uses up no attempt.
//   - What is claimed for a batch and not sent when the lane closes or the daemon
//     stops goes back as if it had not been claimed. Each delivery of a batch has
//     an outcome of its own. One that met the death of its sink's process is
//     never in a batch with others.
//
// # Lanes in memory
//
// A lane holds a short window of its rows: a ring of ready ones, loaded in the
// order of acceptance behind a cursor; a list of waiting ones whose time has
// come, behind a cursor of its own; and a list of those that an operator or a
// replay brought back. New deliveries are handed over in memory as long as the
// ring has room; otherwise the lane is spilled and reads them back later.
//
// A scan of the store may return a row whose completion is on its way to the
// disk. Therefore a lane keeps, for every sequence that it has in a list, in
// flight or completed but not yet committed, an entry in its set of owned
// sequences; scans skip those. An entry leaves the set when the store has
// reported the commit (see [Dispatcher.Changed]), and never while a scan is
// under way, since that scan may look at an older snapshot.
//
// In an ordered lane take passes on only what may be claimed (entries.go). A ready
// delivery holds its entry from then on until the lane lets go of it; what comes
// behind it is kept beside the ring or parked in the store. Before a claim the
// store is asked whether something that waits for a retry is in the way. Only
// ready deliveries are ever held back. docs/queue.md has the whole protocol.
//
// A held lane keeps nothing in memory but the set of what is in flight, and so
// does one whose deliveries are being dropped: the rows are the store's alone
// then. When it is let go it starts again from the store's low-water mark.
//
// # Batches
//
// A worker makes one call at a time. Where the sink takes several deliveries it
// claims them one after the other, under the target of the first, until the call
// is full or the sink's linger is over; the lane's other workers leave it what
// it has room for, so that at most one waits. Deliveries that come one by one do
// not wake it before they fill the call.
package dispatch
