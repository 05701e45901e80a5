// Package watchdog tells a service manager that the daemon makes progress, and stops
// telling it when the daemon hangs.
//
// Guarantees:
//
//   - The watchdog is fed only after every part has shown, since the last time, that it
//     goes round. That the process lives is no reason to feed it.
//   - A hang is told, in the log and to the service manager, before the watchdog's time
//     is over, with what hangs and for how long.
//   - What a restart cannot mend is no hang: see [Part.Storage]. It is told as well, and
//     the watchdog is fed.
//   - No goroutine is left when Run returns, but those of parts that never answer.
//
// # Storage that does not answer
//
// A thread that is inside the kernel and cannot be interrupted, because a disk does not
// answer, cannot be killed either: systemd would wait for it, give up, and start a new
// process that waits for the lock of the data directory, or for the same disk. Meanwhile
// the old one can at least say what is wrong, and answer who asks. When the disk answers
// again it goes on; when the disk reports an error the daemon ends by itself. So such a
// hang never ends in a restart. Storage that is only slow, and moves, is given ten minutes:
// a restart would have to do the same work again, and more.
package watchdog
