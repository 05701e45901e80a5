//go:build !race

package ingest

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
)

// exchange sends a request and reads until the answer has the text end so many times. It
// allocates nothing.
func exchange(t *testing.T, c net.Conn, request, buf, end []byte, times int) {
	if _, err := c.Write(request); err != nil {
		t.Fatal(err)
	}
	for n := 0; ; {
		m, err := c.Read(buf[n:])
		if err != nil {
			t.Fatal(err)
		}
		n += m
		if bytes.Count(buf[:n], end) == times {
			return
		}
	}
}

// What an event costs from the socket to the queue and back: three are the event's own, see
// package event. The race detector allocates more.
func TestAnEventAllocatesLittleOnItsWayThroughTheSocket(t *testing.T) {
	s := benchServer(t)
	c := s.dial(t)
	request, buf := []byte(post(benchEvent(1))), make([]byte, 64<<10)
	got := testing.AllocsPerRun(2000, func() { exchange(t, c, request, buf, []byte("}\n"), 1) })
	const most = 4
	if got > most {
		t.Errorf("%v allocations an event, want at most %v", got, most)
	}
}

func TestALineOfAStreamAllocatesLittle(t *testing.T) {
	s := benchServer(t)
	const lines = 500
	var body strings.Builder
	for i := range lines {
		body.WriteString(benchEvent(i) + "\n")
	}
	c := s.dial(t)
	request, buf := []byte(postAs(typeNDJSON, body.String())), make([]byte, 1<<20)
	wrote := make(chan error, 1)
	got := testing.AllocsPerRun(50, func() {
		go func() {
			_, err := c.Write(request)
			wrote <- err
		}()
		n := 0
		for !bytes.HasSuffix(buf[:n], []byte("\r\n0\r\n\r\n")) {
			m, err := c.Read(buf[n:])
			if err != nil {
				t.Fatal(err)
			}
			n += m
		}
		if err := <-wrote; err != nil && err != io.EOF {
			t.Fatal(err)
		}
		if got := bytes.Count(buf[:n], []byte(`"status":202`)); got != lines {
			t.Fatalf("%d results", got)
		}
	}) / lines
	const most = 4.2
	if got > most {
		t.Errorf("%v allocations a line, want at most %v", got, most)
	}
}
