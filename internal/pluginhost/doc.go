// Package pluginhost runs the sink plugins, and delivers through them.
//
// Guarantee: whatever a plugin does, an attempt ends soon after its context, with an
// outcome; what it costs the host is bounded; other plugins notice nothing. A delivery
// that a plugin cannot have seen uses up no attempt, and one that was in flight when the
// plugin's process died is told apart from one that failed. What a plugin says gets into
// an attempt, the log, a status or an error only masked, cleaned and cut. After
// [Host.Stop] no process, socket, descriptor or goroutine is left.
//
// # Who owns what
//
// A binary is one executable file, held open: its identity is what was checked, and a
// restart executes that very file, whatever the path names meanwhile. It has at most one
// process at a time (a run), which serves all webhooks of the sink. An [Instance] is one
// webhook under one configuration within a binary. Whoever opens an instance, or inspects
// a file that is another one by now, gets a new binary beside the old one; the old one
// ends when its last instance is closed. So an upgrade is a new binary, and one that does
// not work leaves the old one serving.
//
//	Host ──▶ binary (file, supervisor, history) ──▶ run (process, gate)
//	            ▲ held by                              ▲
//	            ├── Instance (webhook, settings) ──────┘ configured in
//	            └── Plugin   (somebody who asks)
//
// # The states of a binary
//
// One goroutine, the supervisor, makes every change of state:
//
//		            ┌──────────── the next start is due, or somebody asks ───────────┐
//		            ▼                                                                │
//		new ──▶ starting ──all configured──▶ ready ──process ends──▶ backoff ────────┤
//		            │                          │   └──5 ends in 10 min──▶ suspended ─┘
//		            └──any step fails──────────┼──▶ backoff or suspended
//		                                       │
//		     no holder for a while, or Stop ───┴──▶ draining ──▶ stopped
//
//	  - starting: the process is executed, described, and given every instance. Any failure
//	    kills its group and counts as an end. An instance whose call of Configure fails by
//	    itself is left out and tried again later, as long as another one works.
//	  - ready: deliveries go to the process. It is asked for its health; the third miss in a
//	    row kills it, after it was made to write its stacks.
//	  - backoff: the next start waits for a random time below a bound that doubles from 0.5 s
//	    to 60 s, and is back at the beginning after five minutes in ready.
//	  - suspended: one start every five minutes, until a process was ready for five minutes.
//	  - draining: nothing new goes to the process; what is in flight may finish, the process
//	    is asked to drain and to end, and made to.
//	  - stopped: the file is closed and the binary forgotten. Nobody sees this state.
//
// In every state but ready all instances are held with plugin_down. In ready an instance
// is held with misconfigured when the plugin refuses its settings, or died of them three
// times, and with plugin_down while it is not configured.
//
// # Locks
//
// Host.mu guards the list of binaries, binary.mu everything in a binary and its
// instances, gate.mu the calls of one process. They are taken in the order Host, binary;
// the gate's is taken alone. No lock is held during a call of the plugin, a look at the
// disk (but for Identity, which is known) or [Options].Changed. Held and Limits take no lock at all: they read
// one pointer that is swapped under binary.mu, so the dispatcher may ask under its own.
//
// # What a failure means
//
//	not ready, or the time was spent waiting   Interrupted, plugin_down: nothing was sent
//	the process died                           Crashed, with its crash report as the body
//	the host ended the process on purpose      Interrupted
//	no answer in time                          Retry, timeout
//	an answer that cannot be used              Retry, no_result, for the deliveries concerned
//	the daemon stops                           Interrupted
//
// A delivery that has been in flight at a crash goes alone: no other call is in the
// process meanwhile, so that one delivery that kills its plugin is found, and no innocent
// one fails for it.
package pluginhost
