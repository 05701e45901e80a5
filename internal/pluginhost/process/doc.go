// Package process runs one sink plugin as a process of the operating system, and speaks
// to it through hashicorp/go-plugin.
//
// Guarantee: whatever the program does, it costs its host a bounded amount of memory, time
// and log, and ends when it is told to. Every call that waits has a limit. After
// [Process.Done] there is no process of its group, no zombie, socket, descriptor or
// goroutine left. When this process ends in whatever way, SIGKILL included, the plugin
// ends too, with what it had started, and its sockets are removed.
//
// # What is executed
//
// [Open] checks a file and everything on the way to it and keeps it open; what is executed
// is that descriptor, under whatever path. The plugin gets an allow-list of variables, no
// secrets, and "/" as its directory.
//
// # Around go-plugin
//
// go-plugin dials, and nothing else is left to it:
//
//   - its parser of log lines panics on {"@message":5}: it sees no standard error;
//   - a certificate in the handshake makes it dereference nil, and it dials whatever address
//     it reads: it sees a handshake that was validated and written anew;
//   - its Start holds a lock for up to a minute, and its Kill waits for ever for a plugin
//     that does not answer, or for a grandchild that holds standard error: its Start is
//     given a process that already runs, and its Kill one that is already gone;
//   - its broker opens whatever the plugin names: the call is refused before it is sent.
//
// A request is sent at most once: grpc repeats one by itself when the server says that it
// did not look at it, unless it has kept no copy. See dialOptions.
//
// # How a process ends with its host
//
// The kernel kills it when the thread that started it ends (Pdeathsig); one goroutine
// keeps that thread for as long as the process lives. Standard input is a pipe that ends
// with the host, which is what a program in another language can rely on as well. What
// the plugin had started itself, and the socket, are left to a guard: a shell that waits
// for the end of the host, then kills the group and whatever was given the same directory
// for sockets. [Sweep] does the same at the next start, should the guard be gone too. A
// process that has left the group and cleared its environment is not found by anybody but
// the service manager.
package process
