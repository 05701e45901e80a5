// Package sinkpb is the contract between the relay and its sink plugins as it
// travels: sink.proto and the code that is generated from it.
//
// Guarantee: version 1 of the contract only grows; sink.binpb is what has been
// published, and a test compares. [Codec] is a faster way to the same bytes: tests compare
// it with protobuf's own in both directions, and a new field of the two messages that it
// knows fails a test until it knows that, too. Nobody but package sinks and the host converts
// from and to these types.
package sinkpb

//go:generate go run ./gen
