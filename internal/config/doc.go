// Package config reads the configuration file, its drop-ins and what they refer
// to, and either returns a complete, checked [Config] or says, all at once and
// with file, line and column, what is wrong.
//
// Guarantee: [Load] never panics, reads nothing that is not a regular file, reads
// every file once and with a bound, changes nothing, and never prints the value
// of a secret: neither a literal one nor what a reference such as ${env:NAME}
// stood for, also not when the file is so broken that it cannot be parsed. A
// Config it returns obeys every rule of docs/config.md, so that nobody after it
// has to check again.
//
// The structs of keys.go are the only description of the file: the decoder, the
// defaults, the JSON Schema, the reference and the redacted view are derived
// from them.
package config

//go:generate go run ./gen
