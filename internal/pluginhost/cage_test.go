package pluginhost

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/secret"
	"github.com/peanutsapp/peanuts-relay/internal/zoo"
)

// patience is how long a condition is waited for.
const patience = 60 * time.Second

// cage is a host with one animal, and a healthy plugin beside it that has to go on
// delivering all the time.
type cage struct {
	*testing.T
	host    *Host
	log     *lockedBuffer
	dir     string // of the executables
	sockets string
	file    File // of the animal

	beside    atomic.Int64 // deliveries of the healthy one
	stopBeing func()
}

func newCage(t *testing.T, behaviour string, o Options) *cage {
	t.Helper()
	dir, err := os.MkdirTemp("", "zoo")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	c := &cage{T: t, log: &lockedBuffer{}, dir: dir, sockets: filepath.Join(dir, "s")}
	o.Logger = slog.New(slog.NewJSONHandler(c.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	o.SocketDir, o.Version = c.sockets, "9.9"
	c.host = New(o)
	c.file = File{Sink: zoo.Name(behaviour), Path: zoo.Install(t, dir, behaviour)}
	c.stopBeing = func() {}
	t.Cleanup(c.close)
	return c
}

// withNeighbour starts the healthy plugin.
func (c *cage) withNeighbour() *cage {
	c.Helper()
	i := c.open(File{Sink: zoo.Name("batch"), Path: zoo.Install(c, c.dir, "batch")}, "healthy.hook", nil)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			a := &delivery.Attempt{}
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			i.Deliver(ctx, outbound(fmt.Sprint("beside", n)), a)
			cancel()
			if a.Outcome != delivery.Delivered {
				c.Errorf("the neighbour's delivery: %s", shown(a))
				return
			}
			c.beside.Add(1)
			time.Sleep(5 * time.Millisecond)
		}
	})
	c.stopBeing = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
	})
	return c
}

// neighbourGoesOn waits for further deliveries of the healthy plugin.
func (c *cage) neighbourGoesOn() {
	c.Helper()
	before := c.beside.Load()
	c.await("the neighbour delivers", func() bool { return c.beside.Load() >= before+5 })
}

// close stops everything and looks for what is left.
func (c *cage) close() {
	c.stopBeing()
	if err := c.host.Stop(context.Background()); err != nil {
		c.Error(err)
	}
	if _, err := os.Stat(c.sockets); err == nil {
		c.Error("the directory of the sockets is still there")
	}
	mark := []byte("=" + c.sockets + "/")
	environs, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		c.Error(err)
	}
	for _, path := range environs {
		if env, err := os.ReadFile(path); err == nil && bytes.Contains(env, mark) {
			c.Errorf("process %s is left", filepath.Dir(path))
		}
	}
	if c.Failed() {
		lines := strings.Split(c.log.String(), "\n")
		for _, line := range lines[max(0, len(lines)-40):] {
			c.Logf("%.600s", line)
		}
	}
}

func (c *cage) await(what string, ok func() bool) {
	c.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			c.Fatalf("waited in vain until %s; status %+v", what, c.host.Status())
		}
	}
}

func (c *cage) open(f File, webhook string, settings *zoo.Settings) *Instance {
	c.Helper()
	i, found, err := c.host.Open(context.Background(), options(f, webhook, settings))
	if err != nil || i == nil {
		c.Fatalf("Open: %v, %v", found, err)
	}
	return i
}

const token = "tok-0123456789-zoo"

func options(f File, webhook string, settings *zoo.Settings) InstanceOptions {
	o := InstanceOptions{File: f, Webhook: webhook, Secrets: func([]byte) []secret.String { return []secret.String{secret.New(token)} }}
	text := map[string]any{"token": token}
	if settings != nil && settings.Record != "" {
		text["record"] = settings.Record
	}
	o.Settings, _ = json.Marshal(text) // of strings
	return o
}

// zooOutbound is a delivery whose data steers the animal.
func zooOutbound(id, data string) *delivery.Outbound {
	o := outbound(id)
	o.Payload = bytes.Replace(o.Payload, []byte(`{"amount":42.5}`), []byte(data), 1)
	return o
}

func attempt(i *Instance, o *delivery.Outbound, limit time.Duration) *delivery.Attempt {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	a := &delivery.Attempt{}
	i.Deliver(ctx, o, a)
	return a
}

// shown is an attempt in a line.
func shown(a *delivery.Attempt) string {
	return fmt.Sprintf("%s %s: %.300s%.300s (%d bytes of body)", a.Outcome, a.Code, a.Error, a.Message, len(a.Body))
}

// ofAnimal is the status of the animal's plugin.
func (c *cage) ofAnimal() Status {
	for _, s := range c.host.Status() {
		if s.Sink == c.file.Sink {
			return s
		}
	}
	return Status{}
}
