// Package ingest is the events socket: it takes events from the programs of
// this machine over HTTP/1.1, one at a time or as a stream of lines.
//
// Guarantees:
//
//   - 202 and 200 are written only after [Store.Accept] returned, that is after
//     the event and all its deliveries are durable. Every other answer means
//     that nothing of the event was taken, except queue_stopped: a store that
//     failed cannot tell.
//   - In a stream, results come in the order of the lines, one for each line
//     that is not blank, each only after its own event is durable. Events of one
//     stream are accepted in its order. A bad line costs only itself. A line that
//     the connection cut in two is never taken.
//   - No client can make the server wait, or hold memory, without a bound: bodies,
//     lines, headers, results that are not fetched, connections and pauses all
//     have one. A client that sends everything before it reads anything does not
//     block itself as long as its results stay within their bound.
//   - Every refusal of this package is JSON and has a stable code. (Bytes that
//     are no HTTP at all are refused by net/http, in plain text.)
//
// Reading the source: server.go starts and stops, fast.go answers what nearly every
// request looks like, handler.go takes any request apart, prepare.go makes a queue's event of a body, stream.go runs a stream of
// lines, conn.go closes who stalls, failure.go has every refusal, answer.go
// writes JSON.
package ingest
