package watchdog

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// listen makes a socket in a directory whose path is short enough.
func listen(t *testing.T) (net.Listener, string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "watchdog")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "socket")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, path
}

func notFull() bool { return false }

// turn calls the part once and reports what it said, or that it says nothing.
func turn(t *testing.T, p Part) (err error, answered bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	said := make(chan error, 1)
	go func() { said <- p.Turn(ctx, func(string) {}) }()
	select {
	case err := <-said:
		return err, ctx.Err() == nil
	case <-time.After(30 * time.Second):
		t.Fatal("it does not heed its context")
		return nil, false
	}
}

func TestASocketWhoseServerAcceptsGoesRound(t *testing.T) {
	l, path := listen(t)
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if n, err := conn.Read(make([]byte, 10)); n > 0 || err == nil {
				t.Errorf("it was asked for something: %d bytes, %v", n, err)
			}
			conn.Close()
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := Socket("events", path, notFull).Turn(ctx, func(string) {}); err != nil || ctx.Err() != nil {
		t.Errorf("%v, %v", err, ctx.Err())
	}
	l.Close()
	<-served
}

func TestASocketWhoseServerDoesNotAcceptHangs(t *testing.T) {
	_, path := listen(t)
	if err, answered := turn(t, Socket("events", path, notFull)); answered {
		t.Errorf("it went round: %v", err)
	}
}

func TestASocketThatIsFullIsKnown(t *testing.T) {
	_, path := listen(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := Socket("events", path, func() bool { return true }).Turn(ctx, func(string) {}); err != nil || ctx.Err() != nil {
		t.Errorf("%v, %v", err, ctx.Err())
	}
}

func TestASocketThatIsNotThereIsNoHang(t *testing.T) {
	if err, answered := turn(t, Socket("events", filepath.Join(t.TempDir(), "none"), notFull)); err != nil || !answered {
		t.Errorf("%v, %v", err, answered)
	}
}
