// Package sinks is how a sink for Peanuts Relay is written: what carries deliveries to
// a service, as a program of its own that the relay starts.
//
// Guarantee: within one major version of the module this package only grows, and a
// plugin that was built with an older one goes on working with a newer relay.
package sinks
