// Package web is the listener on TCP: the page for people, and the REST routes for
// programs that are not on the server.
//
// Guarantee: nothing but whether the daemon lives and is ready is told to, and nothing is
// changed by, whoever has not shown the token: programs in the header Authorization, with
// every request; people once, for a session that ends. The session opens the pages and
// never the REST routes, so no other site can use it there; what a page changes takes a
// form of that very session, from the same origin. A request for a host that is not
// allowed, which is what DNS rebinding sends, gets nowhere. Guessing is slowed down, and
// connections, bodies, sessions and waits are bounded.
//
// The pages are made of the documents of package rest alone, as the REST routes answer
// them: there is no second way to the data. Whatever they show is escaped by html/template
// where it stands, and a content security policy without exceptions stands behind that.
// They work without script; the script that there is fetches the same page again when
// something changed.
package web
