package http1

import (
	"crypto/tls"
	"io"
	"net"
	"testing"
	"time"
)

func TestAnIdleConnectionIsAliveUntilTheOtherEndSaysOtherwise(t *testing.T) {
	for name, end := range map[string]func(*net.TCPConn){
		"closed":      func(c *net.TCPConn) { c.Close() },
		"half-closed": func(c *net.TCPConn) { _ = c.CloseWrite() },
		"reset":       reset,
		"unsolicited": func(c *net.TCPConn) { _, _ = io.WriteString(c, "HTTP/1.1 408 Request Timeout\r\n\r\n") },
	} {
		t.Run(name, func(t *testing.T) {
			ours, theirs := link(t)
			for range 3 {
				if !ours.alive() {
					t.Fatal("an idle connection is dead")
				}
			}
			end(theirs)
			eventually(t, "the connection stays alive", func() bool { return !ours.alive() })
		})
	}
}

func TestAnIdleConnectionWhoseDeadlinePassedIsAlive(t *testing.T) {
	ours, theirs := link(t)
	ours.Interrupt()
	if !ours.alive() {
		t.Error("it is dead")
	}
	_ = ours.SetDeadline(time.Now().Add(patience))
	_, _ = io.WriteString(theirs, "x")
	if n, err := ours.Read(make([]byte, 2)); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}

func TestOnlyOurOwnEndIsLookedAt(t *testing.T) {
	ours, _ := link(t)
	ours.Close()
	if ours.alive() {
		t.Error("a closed connection is alive")
	}
}

func TestAConnectionWithoutASocketIsLookedAtAsWell(t *testing.T) {
	nc, other := net.Pipe()
	defer nc.Close()
	c := NewConn(nc)
	if NewSocket(nc) != nil || !c.alive() || !c.alive() {
		t.Error("a pipe is dead")
	}
	go func() { _, _ = io.WriteString(other, "x") }()
	if n, err := c.Read(make([]byte, 1)); n != 1 || err != nil {
		t.Errorf("read %d, %v", n, err)
	}
	other.Close()
	if c.alive() {
		t.Error("a closed pipe is alive")
	}
	c.Abort()
}

func TestUnderTLSWhatIsNoAnswerIsProcessed(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		// Session tickets of TLS 1.3 wait to be read.
		ours, theirs := tlsLink(t, version)
		for range 3 {
			if !ours.alive() {
				t.Fatalf("%x: an idle connection is dead", version)
			}
		}
		if _, err := io.WriteString(theirs, "unsolicited"); err != nil {
			t.Fatal(err)
		}
		eventually(t, "unsolicited bytes do not matter", func() bool { return !ours.alive() })

		ours, theirs = tlsLink(t, version)
		_ = theirs.CloseWrite() // close_notify
		eventually(t, "a farewell does not matter", func() bool { return !ours.alive() })

		ours, theirs = tlsLink(t, version)
		theirs.NetConn().Close()
		eventually(t, "the end of TCP does not matter", func() bool { return !ours.alive() })
	}
}

// Half a record has come: the check must not lose it.
func TestUnderTLSAConnectionCarriesOnAfterTheCheck(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		ours, theirs := tlsLink(t, version)
		for _, text := range []string{"first", "second", "third"} {
			if !ours.alive() {
				t.Fatal("dead")
			}
			go func() { _, _ = io.WriteString(theirs, text) }()
			got := make([]byte, len(text))
			if _, err := io.ReadFull(ours, got); err != nil || string(got) != text {
				t.Fatalf("%q, %v", got, err)
			}
			if _, err := io.WriteString(ours, text); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(theirs, got); err != nil || string(got) != text {
				t.Fatalf("%q, %v", got, err)
			}
		}
	}
}
