// Package reload takes changed configuration files over while the daemon runs.
//
// Guarantee: what runs is one configuration as a whole, and it is what the files
// say, or Status says that it is not, since when and why. Files that are refused
// change nothing. Requests that come while a reload is under way are answered by
// the next one, which reads the files after they came; however many come, one
// reload follows. A configuration takes effect in one step that cannot fail: all
// that can fail has happened before.
package reload
