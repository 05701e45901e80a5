// Package relay puts the parts together and takes them apart again. It is the
// only package, besides the command line, that sees the configuration, and the
// only one that knows all parts.
//
// Guarantee: either everything that the configuration names runs, or Run
// returns an error that says what did not. The events socket answers from the
// moment it exists: while the store cannot be opened for want of space it
// answers 507 and the daemon goes on trying. On the way out no event is
// accepted that was not answered, attempts in flight are finished or returned
// to pending, and the store is closed last.
package relay
