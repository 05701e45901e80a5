// Package rest holds the JSON documents of the admin REST API as Go types:
// package api encodes them, package adminclient decodes them, and nothing else
// describes the same documents a second time.
//
// Guarantee: every document has its keys in a fixed order and always has all
// of them, except those that are marked as left out when empty. A list is
// never null. A time or a number that does not exist is null, a text that does
// not exist is "". Times are RFC 3339 in UTC with milliseconds
// ("2025-01-15T14:32:00.000Z"), durations are numbers of milliseconds with at
// most three decimals and carry the suffix _ms. Nothing in a document is a
// secret: what the configuration obtains through references is shown as those
// references, literal secrets as "********". Two documents are exceptions and
// say so: the secret that was made for a new webhook, and the former files of
// [ConfigFiles].
package rest
