// Package sinktest is the specification of a sink in executable form: a suite of checks
// that every sink has to pass, in Go or in any other language.
//
// Guarantee: a sink that passes does what the relay relies on. A check that fails says
// what it saw, what it wanted and what goes wrong without it; one that cannot be made is
// skipped with the reason. Every wait has an end.
package sinktest
