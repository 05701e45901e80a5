package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
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

// redis finds the server, or installs it on Debian: the package redis-tools has the
// program under another name, and no service that would be started.
func (s peerSource) redis() (string, error) {
	if path, err := exec.LookPath("redis-server"); err == nil {
		return path, nil
	}
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

const natsServer = "github.com/nats-io/nats-server/v2"

// shimArgs are the arguments of the shim for a queue.
func (p *peer) shimArgs(queue, store string) []string {
	args := []string{queue, "-listen", p.socket(), "-store", store}
	for i, t := range peerTargets() {
		args = append(args, "-to", fmt.Sprintf("%s,%d,%s", t.helper, t.concurrency, p.destination(i)))
	}
	return args
}

func (p *peer) secret() []string { return []string{"SHIM_SECRET=" + p.l.secret} }

// accepts says whether something listens on a Unix socket.
func accepts(socket string) bool {
	c, err := net.DialTimeout("unix", socket, time.Second)
	if err == nil {
		c.Close()
	}
	return err == nil
}

func newNATS(l *lab, src peerSource) (side, error) {
	built, err := src.buildShims()
	if err != nil {
		return nil, err
	}
	server := filepath.Join(built, "nats-server")
	version, err := moduleVersion(server, natsServer)
	if err != nil {
		return nil, err
	}
	client, err := moduleVersion(filepath.Join(built, "shim"), "github.com/nats-io/nats.go")
	if err != nil {
		return nil, err
	}
	return newPeer(l, "nats", fmt.Sprintf("nats-server %s, nats.go %s", version, client), func(p *peer) error {
		url, err := p.startNATS(server)
		if err != nil {
			return err
		}
		if err := p.run("shim", p.secret(), filepath.Join(built, "shim"), p.shimArgs("nats", url)...); err != nil {
			return err
		}
		return p.until("shim of NATS", func() bool { return accepts(p.socket()) })
	}), nil
}

// startNATS starts the server on a port of its choice, which it writes to a file.
func (p *peer) startNATS(server string) (url string, err error) {
	conf := fmt.Sprintf("listen: \"127.0.0.1:-1\"\nports_file_dir: %q\njetstream {\n  store_dir: %q\n  sync_interval: always\n}\n", p.dir, p.path("js"))
	if err := os.WriteFile(p.path("nats.conf"), []byte(conf), 0o600); err != nil {
		return "", err
	}
	if err := p.run("nats-server", nil, server, "-c", p.path("nats.conf")); err != nil {
		return "", err
	}
	ports := p.path("nats-server_" + strconv.Itoa(p.procs[0].cmd.Process.Pid) + ".ports")
	return url, p.until("nats-server", func() bool {
		var listens struct{ NATS []string }
		b, err := os.ReadFile(ports)
		if err != nil || json.Unmarshal(b, &listens) != nil || len(listens.NATS) == 0 {
			return false
		}
		url = listens.NATS[0]
		return true
	})
}

// startRedis starts the server on a Unix socket, with every write on the disk before its
// answer. Snapshots are off: the log is what recovers.
func (p *peer) startRedis(server string) (socket string, err error) {
	socket = p.path("redis.sock")
	err = p.run("redis-server", nil, server, "--port", "0", "--unixsocket", socket, "--dir", p.dir, "--daemonize", "no",
		"--appendonly", "yes", "--appendfsync", "always", "--save", "", "--maxmemory-policy", "noeviction")
	if err != nil {
		return "", err
	}
	return socket, p.until("redis-server", func() bool { return pong(socket) })
}

// pong says whether Redis has read its log and answers.
func pong(socket string) bool {
	c, err := net.DialTimeout("unix", socket, time.Second)
	if err != nil {
		return false
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return false
	}
	if _, err := c.Write([]byte("PING\r\n")); err != nil {
		return false
	}
	b := make([]byte, 7)
	n, err := c.Read(b)
	return err == nil && string(b[:n]) == "+PONG\r\n"
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

func newAsynq(l *lab, src peerSource) (side, error) {
	redis, err := src.redis()
	if err != nil {
		return nil, err
	}
	store, err := redisVersion(redis)
	if err != nil {
		return nil, err
	}
	built, err := src.buildShims()
	if err != nil {
		return nil, err
	}
	version, err := moduleVersion(filepath.Join(built, "shim"), "github.com/hibiken/asynq")
	if err != nil {
		return nil, err
	}
	return newPeer(l, "asynq", fmt.Sprintf("asynq %s, Redis %s", version, store), func(p *peer) error {
		socket, err := p.startRedis(redis)
		if err != nil {
			return err
		}
		if err := p.run("shim", p.secret(), filepath.Join(built, "shim"), p.shimArgs("asynq", socket)...); err != nil {
			return err
		}
		return p.until("shim of asynq", func() bool { return accepts(p.socket()) })
	}), nil
}

func newBullMQ(l *lab, src peerSource) (side, error) {
	redis, err := src.redis()
	if err != nil {
		return nil, err
	}
	store, err := redisVersion(redis)
	if err != nil {
		return nil, err
	}
	dir, err := src.bullMQ()
	if err != nil {
		return nil, err
	}
	node, err := exec.Command("node", "--version").Output()
	if err != nil {
		return nil, err
	}
	var pkg struct{ Version string }
	b, err := os.ReadFile(filepath.Join(dir, "node_modules", "bullmq", "package.json"))
	if err := errors.Join(err, json.Unmarshal(b, &pkg)); err != nil {
		return nil, err
	}
	what := fmt.Sprintf("BullMQ %s, node %s, Redis %s", pkg.Version, bytes.TrimSpace(node), store)
	return newPeer(l, "bullmq", what, func(p *peer) error { return p.launchBullMQ(redis, filepath.Join(dir, "worker.js")) }), nil
}

// launchBullMQ starts the worker before the ingest, so that it is there when the first
// event is.
func (p *peer) launchBullMQ(redis, program string) error {
	socket, err := p.startRedis(redis)
	if err != nil {
		return err
	}
	type to struct {
		Helper      string `json:"helper"`
		Concurrency int    `json:"concurrency"`
		URL         string `json:"url"`
	}
	var all []to
	for i, t := range peerTargets() {
		all = append(all, to{t.helper, t.concurrency, p.destination(i)})
	}
	list, err := json.Marshal(all)
	if err != nil {
		return err
	}
	env := append(p.secret(), "NODE_ENV=production", "REDIS="+socket, "LISTEN="+p.socket(), "TO="+string(list))
	for _, role := range []string{"deliver", "ingest"} {
		if err := p.run(role, env, "node", program, role); err != nil {
			return err
		}
	}
	return p.until("ingest of BullMQ", func() bool { return accepts(p.socket()) })
}
