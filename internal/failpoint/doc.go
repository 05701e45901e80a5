// Package failpoint names the moments at which a process may die and the calls that
// may fail: before and after each step that makes something durable or tells somebody
// of it. Tests die there on purpose.
//
// Guarantee: a normal build pays nothing for it. Without the build tag "failpoints" each
// call here is inlined to nothing, or to the call that it stands before, and no name of
// a point is in the program; a test looks at both. With the tag nothing happens either, as
// long as the environment does not say so:
//
//	FAILPOINT=name=what@n
//
// at the n-th time that the process comes there (1 when it is left out). What happens:
//
//	kill        the process kills itself, before the call
//	kill-after  it kills itself after the call: done, and nobody was told
//	error       the call is not made, and reported as failed
//	late        the call is made, and reported as failed
//	torn        half of what is to be written is written, then it kills itself
//	hang        who comes there, before the call, goes no further; nobody else is held up
//
// A line on standard error says that the point was reached. Points are placed with
// [Here], [Call] and [Torn], with their names as constants.
package failpoint
