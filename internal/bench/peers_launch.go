package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

const natsServer = "github.com/nats-io/nats-server/v2"

// startShim starts the shim on a queue.
func (p *peer) startShim(built, queue, store string) error {
	args := []string{queue, "-listen", p.socket(), "-store", store}
	for _, t := range peerTargets() {
		args = append(args, "-to", fmt.Sprintf("%s,%d,%s", t.helper, t.concurrency, p.url(t)))
	}
	if err := p.run("shim", p.secret(), filepath.Join(built, "shim"), args...); err != nil {
		return err
	}
	return p.listens("shim of " + queue)
}

// listens waits until events are taken.
func (p *peer) listens(what string) error {
	return p.until(what, func() bool { return accepts(p.socket()) })
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
		return p.startShim(built, "nats", url)
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

func newAsynq(l *lab, src peerSource) (side, error) {
	redis, store, err := src.redis()
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
		return p.startShim(built, "asynq", socket)
	}), nil
}

func newBullMQ(l *lab, src peerSource) (side, error) {
	redis, store, err := src.redis()
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
	for _, t := range peerTargets() {
		all = append(all, to{t.helper, t.concurrency, p.url(t)})
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
	return p.listens("ingest of BullMQ")
}
