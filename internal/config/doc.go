// Package config reads the configuration file, its drop-ins and what they refer
// to, and either returns a complete, checked [Config] or says, all at once and
// with file, line and column, what is wrong.
//
// Guarantee: [Load] never panics, reads nothing that is not a regular file, reads
// every file once and with a bound, changes nothing, and never prints the value
// of a secret: neither a literal one nor what a reference such as ${env:NAME}
// stood for, also not when the file is so broken that it cannot be parsed. A
// Config it returns obeys every rule of docs/config.md, so that nobody after it
// has to check again. What it read, the files that others only refer to included, is
// in the Config and in the digest of the [Report], so that one reload never sees two
// versions of a file. Files that are given as bytes ([Options].Files) are read by
// the same rules, and the disk is then not asked for them.
//
// [Diff] finds every difference in effect between two configurations and nothing
// else, by the names of the keys, and never shows a value. [StateDirs] says where
// a daemon whose files are broken has to look for its state.
//
// The structs of keys.go are the only description of the file: the decoder, the
// defaults, the JSON Schema, the reference, the redacted view and the differences
// are derived from them.
package config

//go:generate go run ./gen
