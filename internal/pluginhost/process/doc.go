// Package process runs one sink plugin as a process of the operating system, and speaks
// to it through hashicorp/go-plugin.
//
// Guarantee: whatever the program does, it costs its host a bounded amount of memory, time
// and log, and ends when it is told to. Every call that waits has a limit; after [Process.Done]
// no process of its group, no zombie, socket, descriptor or goroutine is left. When this
// process ends in whatever way, SIGKILL included, the plugin ends too.
package process
