// Package sinks is how a sink for Peanuts Relay is written: what carries deliveries to a
// service, as a program of its own that the relay starts. It is all that a sink needs of
// the relay.
//
// Guarantee: within one major version of the module this package only grows, and a
// plugin that was built with an older one goes on working with a newer relay.
//
// # A sink
//
// A sink is a program called peanuts-sink-<name> whose main calls [Serve] with a
// [Plugin]: its name, the type of its settings, and how to open it. Opened it is a
// [Sink], which has one method:
//
//	Deliver(ctx context.Context, d *Delivery) (Receipt, error)
//
// The example of [Serve] is a whole one. The relay starts one process for all webhooks of
// a sink, and opens a Sink for each webhook, again whenever its settings change.
//
// # Outcomes
//
// Deliver tries once, and its error says what became of it: nil is delivered, [Skip] that
// there was nothing to do, [Reject] that it will never work, [RateLimited] that the
// service wants a pause, [Misconfigured] that somebody has to change the settings or
// something over there, and any other error that it may work later. A sink never retries
// and never waits by itself: the relay does, by one schedule that its operator sets, and
// survives restarts with it.
//
// A request that was written and got no answer may have been heard. Return the error: the
// same delivery comes again with the same [Delivery].ID. So let the service see that id (as
// an idempotency key, in a hidden column, in a unique index), and say
// [Capabilities].Idempotent when the same id has no second effect.
//
// [Env.HTTP] is a client with sensible limits, and [FromResponse] makes the outcome of an
// answer. The [Receipt] is what people see of it.
//
// # Settings
//
// The settings are a struct. Its fields and tags become the JSON Schema that the relay
// checks a configuration with, at the very line of the file ([Schema] lists the tags), and
// [Decode] reads them strictly. Give whatever grants access the type [Secret] or [URL],
// which do not print. What tags cannot say, a method Validate of the type does, see
// [Validator]. When Open finds a setting wrong it returns a [SettingError] for it.
//
// # State and order
//
// Deliveries come in any order and several at a time. [Capabilities] change that:
// OrderedPerEntry brings those of one entry one after the other, retries included;
// MaxConcurrency: 1 brings one call at a time. UsesState makes the relay keep up to 4 KiB
// for each entry, [Receipt].State, and send them with its next delivery: the id of what a
// create made over there is found again by the update. [Delivery].Sequence tells which of
// two deliveries is newer, whatever the clocks of their senders say.
//
// # Batches
//
// A [BatchSink] with Capabilities.MaxBatch takes many deliveries at once, each with a
// result of its own: for services that count requests, and for anything that syncs.
//
// # Logging
//
// [Env.Logger] goes to the log of the relay with the name of the sink and the webhook. Plain
// lines on standard error get there too. Log what an operator can act upon, and neither
// payloads nor secrets; the secrets of the settings, and the path and query of URLs in
// errors, are masked in what a sink logs and answers, but do not count on it: only what was
// not taken apart is recognised. More than a few hundred lines a second are dropped.
//
// A panic in a method is a retry with the code "panic" and its stack in the log; the
// process lives, and of a batch only the delivery at fault is tried again. What it
// panicked with is in the log only if the Go runtime made it, for it may hold a payload. A
// panic in a goroutine of the sink's own, or [os.Exit], ends the process,
// and the relay starts it again.
//
// # Testing
//
// The command peanuts-relay sinks new writes a sink to begin with, its test included. A Sink is an ordinary value: open it with the zero [Env] and settings from [Decode], and
// call Deliver. [Plugin.Server] is the sink as the relay sees it. Package sinktest, beside
// this one, is the suite that every sink should pass. Let the address of the service be a
// setting, so that tests can bring their own.
//
// # Shipping
//
// Build it statically (CGO_ENABLED=0), put it into the directory that plugins.dir names or
// name its path under sinks in the relay's configuration, owned by root and writable by
// nobody else, and say `sink: <name>` at a webhook. `peanuts-relay check` asks the
// sink about the settings. A running relay takes a new executable over at its next reload: it
// starts the new one first and lets the old one finish.
//
// The contract that this package speaks for you is in docs/sink.proto; sinks in other
// languages are described in docs/writing-a-sink.md.
package sinks
