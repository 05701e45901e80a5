package packagetest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

// distVariable names, in the environment of this process, the directory for what
// scripts/package makes.
const distVariable = "PEANUTS_PACKAGETEST_DIST"

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "peanuts-package-")
	if err != nil {
		panic(err)
	}
	os.Setenv(distVariable, dir)
	goleak.VerifyTestMain(m, goleak.Cleanup(func(status int) {
		os.RemoveAll(dir)
		os.Exit(status)
	}))
}

// Two versions made of the same sources.
const (
	formerVersion = "v1.0.0"
	nextVersion   = "v1.1.0"
)

// files are the .deb and the .tar.gz of a version, which the first test that asks builds.
// No two tests of this package run at the same time.
func files(t *testing.T, version string) (deb, archive string) {
	t.Helper()
	dir := filepath.Join(os.Getenv(distVariable), version)
	if _, err := os.Stat(dir); err != nil {
		if err := buildPackage(dir, version); err != nil {
			t.Fatal(err)
		}
	}
	one := func(pattern string) string {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil || len(found) != 1 {
			t.Fatalf("%s: %v, %v", pattern, found, err)
		}
		return found[0]
	}
	return one("*.deb"), one("*.tar.gz")
}

func buildPackage(dir, version string, env ...string) error {
	cmd := exec.Command("../../scripts/package")
	cmd.Env = append(append(os.Environ(), env...), "VERSION="+version, "DIST="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("scripts/package: %w\n%s", err, out)
	}
	return nil
}

// upload copies a file of this machine into the directory /root of that one.
func upload(t *testing.T, m *Machine, file string) (path string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	path = "/root/" + filepath.Base(file)
	m.Put(path, string(data), 0o644)
	return path
}

// install installs a version with apt, as an operator would, and returns what that said.
func install(t *testing.T, m *Machine, version string) string {
	t.Helper()
	deb, _ := files(t, version)
	return apt(m, "install", upload(t, m, deb))
}

func apt(m *Machine, args ...string) string {
	m.t.Helper()
	return m.Run(append([]string{"apt-get", "--yes", "--quiet=2", "--option=Dpkg::Use-Pty=0"}, args...)...)
}

// helperFile is a drop-in with one webhook, to the receiver that startReceiver starts.
const helperFile = `helpers:
  expenses:
    secret: ${file:/etc/peanuts-relay/expenses.secret}
    webhooks:
      backend:
        url: http://127.0.0.1:9000/
        retry: {schedule: [1s, 1s, 2s, 2s, 5s, 5s, 10s, 10s, 10s, 10s]}
`

const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// configure puts the webhook into the configuration and has it taken over.
func configure(t *testing.T, m *Machine) {
	t.Helper()
	m.Put("/etc/peanuts-relay/expenses.secret", secret, 0o640)
	m.Run("chgrp", "peanuts-relay", "/etc/peanuts-relay/expenses.secret")
	m.Put("/etc/peanuts-relay/conf.d/10-expenses.yaml", helperFile, 0o644)
	m.Run("systemctl", "reload", Service)
}

// boot is a machine with the former version and one webhook.
func boot(t *testing.T) *Machine {
	t.Helper()
	m := Boot(t)
	install(t, m, formerVersion)
	configure(t, m)
	return m
}

// says fails the test for each of the texts that is not in what was said.
func says(t *testing.T, said string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(said, text) {
			t.Errorf("%q is not in\n%s", text, said)
		}
	}
}
