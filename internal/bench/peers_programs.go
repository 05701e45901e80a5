package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// peerSource is where the peers' module is and where their programs go.
type peerSource struct{ source, built string }

// step runs a program that prepares a peer; the error has the first and the last that it said.
func step(limit time.Duration, dir string, env []string, program string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	c := exec.CommandContext(ctx, program, args...)
	c.Dir, c.Env, c.WaitDelay = dir, append(os.Environ(), env...), 5*time.Second
	if out, err := c.CombinedOutput(); err != nil {
		said := strings.Join(strings.Fields(string(out)), " ")
		if len(said) > 500 {
			said = said[:350] + " ... " + said[len(said)-150:]
		}
		return fmt.Errorf("%s: %w: %s", filepath.Base(program), err, said)
	}
	return nil
}

// buildShims builds the shim and the NATS server.
func (s peerSource) buildShims() (built string, err error) {
	if built, err = filepath.Abs(s.built); err != nil {
		return "", err
	}
	if err := os.MkdirAll(built, 0o755); err != nil {
		return "", err
	}
	return built, step(10*time.Minute, s.source, []string{"GOWORK=off", "GOFLAGS=-mod=readonly"}, "go", "build", "-o", built+"/", "./shim", natsServer)
}

// redis finds the server, or installs it, and asks for its version.
func (s peerSource) redis() (program, version string, err error) {
	if program, err = exec.LookPath("redis-server"); err != nil {
		if program, err = s.installRedis(); err != nil {
			return "", "", err
		}
	}
	version, err = redisVersion(program)
	return program, version, err
}

// installRedis installs the server on Debian: the package redis-tools has the program
// under another name, and no service that would be started.
func (s peerSource) installRedis() (string, error) {
	const program = "/usr/bin/redis-check-rdb"
	if _, err := os.Stat(program); err != nil {
		if _, err := exec.LookPath("apt-get"); err != nil || os.Geteuid() != 0 {
			return "", errors.New("redis-server is not installed, and apt-get as root is not there to install it")
		}
		quiet := []string{"DEBIAN_FRONTEND=noninteractive"}
		install := []string{"install", "-qy", "--no-install-recommends", "redis-tools"}
		if step(5*time.Minute, "", quiet, "apt-get", install...) != nil {
			err := step(5*time.Minute, "", quiet, "apt-get", "update", "-q")
			if err = errors.Join(err, step(5*time.Minute, "", quiet, "apt-get", install...)); err != nil {
				return "", fmt.Errorf("redis-server is not installed: %w", err)
			}
		}
	}
	link, err := filepath.Abs(filepath.Join(s.built, "redis-server"))
	if err != nil {
		return "", err
	}
	if err := errors.Join(os.MkdirAll(s.built, 0o755), os.RemoveAll(link), os.Symlink(program, link)); err != nil {
		return "", err
	}
	return link, nil
}

// bullMQ copies the program and installs what its lock file says.
func (s peerSource) bullMQ() (dir string, err error) {
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			return "", errors.New(program + " is not installed")
		}
	}
	if dir, err = filepath.Abs(filepath.Join(s.built, "bullmq")); err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	same := true
	for _, name := range []string{"package.json", "package-lock.json", "worker.js"} {
		b, err := os.ReadFile(filepath.Join(s.source, "bullmq", name))
		if err != nil {
			return "", err
		}
		old, err := os.ReadFile(filepath.Join(dir, name))
		same = same && err == nil && (name == "worker.js" || bytes.Equal(old, b))
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			return "", err
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "node_modules", ".package-lock.json")); err == nil && same {
		return dir, nil
	}
	return dir, step(5*time.Minute, dir, nil, "npm", "ci", "--no-audit", "--no-fund", "--loglevel=error")
}

// redisVersion is the version that the server prints: "Redis server v=7.0.15 sha=…".
func redisVersion(server string) (string, error) {
	out, err := exec.Command(server, "--version").Output()
	if err != nil {
		return "", err
	}
	for f := range strings.FieldsSeq(string(out)) {
		if v, ok := strings.CutPrefix(f, "v="); ok {
			return v, nil
		}
	}
	return "", fmt.Errorf("%s says no version: %.100s", server, out)
}
