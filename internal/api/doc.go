// Package api is the admin REST API: what runs, the delivery log, the fate of
// every event, and the operator's hands on it (retry, replay, drop, test).
//
// Guarantee: the handler decides nothing about deliveries; it asks the store
// and the dispatcher and tells what they said. Every answer is a document of
// package rest, every error too. Requests are decoded strictly: an unknown
// parameter or key is an error that names it, never ignored. Every read, wait,
// body, page, connection and subscriber is bounded, so that a client of the
// admin socket cannot slow deliveries down: one request looks at a bounded
// number of rows, metrics are made from counters and one seek for each webhook,
// and a slow reader of the stream loses changes and is told how many. No
// answer holds a secret: what may be shown is decided by whoever makes the
// [Catalog] and the attempts' records. The two exceptions, a secret that was just
// made and the files of a former configuration, are those of package rest.
package api
