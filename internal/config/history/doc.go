// Package history keeps on the disk which configurations ran, with the files as
// they were, so that a daemon can start with the last one that worked and an
// operator can look back.
//
// Guarantee: when [Log.Append] returns nil, the entry and all its files are on
// the disk, and stay through kill -9 and a power cut. When it fails, or a crash
// comes in between, the history holds what it held before, with the new entry or
// without it, never a part of one. Nothing that is read back is ever other than
// what was appended: every entry and every file is checked against its SHA-256.
// A damaged entry costs itself and no other; it is set aside, told of in
// [Log.Warnings], and never fatal. Only the owner can read anything here, and no
// symbolic link in the directory is followed. What is kept is bounded, see
// [Log.Append]. Nothing runs between two calls.
//
// # On the disk
//
//	<queue.dir>/config/            0700
//	  <16 hex digits>/             0700, one history for each main file, named by
//	                               the beginning of the SHA-256 of its path
//	    entry-<number>-<generation>    one entry: a line with the SHA-256 of the
//	                                   rest, then JSON
//	    file-<64 hex digits>           one configuration file, named by its SHA-256,
//	                                   shared by all entries that have it
//	    new-<...>                      being written, or left by a crash
//	    damaged-entry-<...>            set aside, the newest 8
//
// There is no index, so that none can be damaged or fall behind: the names in
// the directory are the list. Numbers grow with every entry.
//
// # Order of writes
//
//  1. each file that is not there yet: written as new-, synced, renamed;
//  2. the directory is synced: the files must be there before who refers to them;
//  3. the entry: written as new-, synced, renamed;
//  4. the directory is synced. Commit point: a crash before the rename leaves the
//     old history and files that nobody refers to; after it the new history;
//  5. entries that are too many are removed, then files that nobody refers to any
//     more. A power cut may bring back such an entry without its files: it is
//     older than all that stay, is too many again, and goes at the next Open.
//
// What a crash leaves behind is removed by the next [Open] or Append.
package history
