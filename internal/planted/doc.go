// Package planted has bugs, one for each promise of this program, to show that the tests
// notice: each is switched on by a build tag of its own, and by nothing else.
//
// Guarantee: in a normal build all constants here are false, so that the compiler leaves
// out what they guard.
package planted
