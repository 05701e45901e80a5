// Package packagetest is a machine of its own for tests that install the package: a small
// Debian whose first process is a real systemd, in a container without a network.
//
// Guarantee: nothing that happens in one reaches this machine or another such machine:
// each has its own file system (an overlay over one that is made once and kept in the
// user's cache directory), processes, control groups, network and users. It is gone when
// the test ends, and when the test's process is killed. Where a machine cannot be had the
// test is skipped with the reason, and fails when CI=true.
package packagetest
