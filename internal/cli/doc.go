// Package cli is the command line of peanuts-relay: one file per command, a
// thin layer over the configuration, the events socket and the admin socket.
//
// Guarantee: data goes to standard output and everything else to standard
// error; every listing is available as the JSON document that the daemon
// answered; an error says what failed, on what, and what to do; the exit status
// is one of the Exit constants. Nothing here knows how the daemon works: what
// serves is handed in as [Deps].Serve.
package cli
