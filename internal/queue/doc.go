// Package queue is the durable queue: every accepted event, every delivery and
// every attempt, in one Badger database and the journal before it.
//
// Guarantees:
//
//   - Durable before yes. When [Store.Accept] returns, the events that it did
//     not refuse and all their deliveries are on disk, synced.
//   - Nothing is lost in between. Every accepted delivery is in exactly one
//     place: ready, waiting, returning, or finished as success or failed. What
//     was accepted is always the sum of these, and the sums are written in the
//     group that changes the rows and shown after it.
//   - The payload that was accepted is the payload that is read, byte for
//     byte; a row that does not match its checksum is set aside, counted and
//     logged, and its delivery ends as failed with the code "damaged".
//   - The first storage error is the last thing that happens: nothing is
//     acknowledged after it, every caller hears [ErrStopped], and the process
//     must end and open the store anew.
//   - A delivery whose webhook left the configuration waits for it to come back.
//     It ends as failed only when the webhook is missing, and its time over, in
//     the very transaction that ends it; [Options].Busy spares what is being
//     attempted.
//   - What a sink keeps for an entry is what the last durable success of the entry
//     said: it is written in that transaction.
//   - In an ordered lane a delivery that is behind another one of its entry stays
//     there until that one has ended: whatever ends it calls the next in the same
//     transaction. Lanes without order pay nothing for that.
//   - A burst of one helper does not delay another: groups are short as long as single
//     events come, and in each the helpers that wait take turns. The events of one call
//     keep their order.
//   - An audit and a backup are of one moment, take memory that does not grow with the
//     store, and hold nobody up. A restored store is whole or not there, and gives out
//     no id that the one it is a copy of gave out for something else.
//   - No clock orders anything. Setting the wall clock by a year delays,
//     repeats or wipes nothing.
//   - Reading costs the same however much was delivered before and however
//     much is pending, and an idle store does nothing at all.
//
// # The life of a row
//
//	Accept            r  ready, in the order of acceptance; e  the event, once
//	attempt fails     w  waiting until its due time, d finds it by id; a  the attempt
//	attempt succeeds  h  finished, class 0, with the last attempt inside
//	gives up, Drop    h  finished, class 1; the event's record is kept with it
//	parked            f  following, behind the head of its entry; o finds them in order
//	head ends         w  the next follower, due now
//	Requeue, replay   p  returning: due now, outside the order of acceptance
//	webhook removed   stays where it is; after [RemovedKeep] h, class 1
//	retention         whole days of e, h, a, i and x go; what is pending is
//	                  copied to today's bucket first
//
// # Commit points
//
// One goroutine, the committer, writes (commit.go). Everything that a group
// changes is one record of the journal, or one transaction of the database, with one
// sync, so there are only these moments:
//
//  1. Before the commit of a group nothing of it exists and nobody was
//     answered. A crash here: the sender got no answer and repeats, or an
//     outcome is forgotten and the delivery is attempted again under the same
//     id.
//  2. After the commit and before the answers everything exists. A crash here:
//     the sender repeats; an idempotency key makes it the first answer, and
//     without one it is a second event, as with any lost answer.
//  3. Outcomes wait at most 10 ms for a group. A crash here: the delivery is
//     attempted again under the same id.
//  4. Retention copies what is pending out of a day, in several transactions,
//     then drops the day, then notes that. A crash between any two: the pass
//     is planned anew; rows point at a record that exists at every moment,
//     because the copy and the row that refers to it are one transaction, and
//     the drop comes after all of them.
//  5. A replay moves deliveries and its cursor in the same transaction. A crash
//     repeats none and skips none.
//  6. Many deliveries end at once, because an operator drops them or their webhook
//     did not come back, in several transactions. A crash between any two: those
//     before it are finished, the others pending, and the next start goes on.
//  7. What a former sink of a webhook kept is discarded in several transactions. A
//     crash between any two: it is not read any more, and the rest goes later.
//  8. The database gets what the journal has in transactions that also say how far they
//     reach (unapplied.go). A crash before one: the next start repeats it from the
//     journal, where nothing is overwritten before. A crash after one: it is not
//     repeated.
//  9. FORMAT is written before the database exists, and again when its first
//     rows are durable. A crash between: the first rows are written again;
//     nothing can have been accepted. The journal is made before the second.
//
// # Reading the source
//
// types.go (what callers see), open.go, commit.go (the loop and the one
// Commit), group.go, unapplied.go, points.go, recover.go, marks.go, accept.go, intake.go, fifo.go, gather.go, complete.go, order.go, park.go, entrystate.go, recent.go, read.go, locate.go, lookup.go, list.go,
// giveup.go, lifecycle.go, expire.go, limits.go, replay.go, retention.go,
// space.go, compactors.go, builders.go, resident.go, tails.go, guard.go, clock.go, quarantine.go, verify.go, snapshot.go, audit.go, audit_sums.go, account.go, backup.go, restore.go,
// statefiles.go, starts.go, witness.go, lanenames.go; fsck.go, fsck_rows.go, fsck_census.go, fsck_compare.go, fsck_repair.go, fsck_build.go, fsck_swap.go;
// keys.go and codec*.go are the format. docs/queue.md has the format and what
// must and should hold about Badger's behaviour.
package queue
