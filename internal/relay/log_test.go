package relay

import (
	"bufio"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

// A receiver knows the secrets that we sent it, and may send them unasked.
func TestNothingThatAReceiverSendsUnaskedGetsIntoTheLog(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		req, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.Copy(io.Discard, req.Body)
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n%s", strings.Repeat(req.Header.Get("Authorization")+" ", 3))
		_, _ = c.Read(make([]byte, 1)) // until the relay closes it
	}()
	t.Cleanup(func() {
		l.Close()
		<-served
	})
	h := newHome(t)
	d := h.start(helperWith("http://"+l.Addr().String(), ", headers: {Authorization: Bearer unasked-for-secret}"))
	h.send("e1")
	d.row("expenses.backend", "success", hasStatus(rest.StatusSuccess))
	d.stop()
	if text := h.log.String(); strings.Contains(text, "unasked-for-secret") {
		t.Errorf("the log has the secret:\n%s", text)
	}
}

func TestTheStandardLogIsTakenWithoutWhatItQuotesAndGivenBack(t *testing.T) {
	var mine, theirs safeBuffer
	defer func(w io.Writer, flags int) { log.SetOutput(w); log.SetFlags(flags) }(log.Writer(), log.Flags())
	log.SetOutput(&theirs)
	restore := takeStandardLog(slog.New(slog.NewTextHandler(&mine, &slog.HandlerOptions{Level: slog.LevelDebug})), nil)
	log.Print("one")
	log.Printf("Unsolicited response received on idle HTTP channel starting with %q; err=<nil>", "Bearer unasked-for-secret") // net/http does
	restore()
	log.Print("two")
	if got := mine.String(); !strings.Contains(got, "text=one") || strings.Contains(got, "two") {
		t.Errorf("taken: %q", got)
	}
	if got := mine.String(); !strings.Contains(got, "Unsolicited response") || strings.Contains(got, "secret") || strings.Contains(got, "INFO") {
		t.Errorf("what a receiver sent unasked: %q", got)
	}
	if got := theirs.String(); !strings.Contains(got, "two") || strings.Contains(got, "one") {
		t.Errorf("given back: %q", got)
	}
}

// The database does when it finds what cannot be. It ended the daemon without a word.
func TestALibraryThatEndsTheProcessIsHeard(t *testing.T) {
	for name, end := range map[string]func(){
		"Fatal":   func() { log.Fatal("the roof is gone") },
		"Fatalf":  func() { log.Fatalf("the %s is gone\nmain.f()\n\tf.go:7", "roof") },
		"Fatalln": func() { log.Default().Fatalln("the roof is gone") },
	} {
		var mine safeBuffer
		restore := takeStandardLog(slog.New(slog.NewTextHandler(&mine, nil)), func() { panic("ended") })
		func() {
			defer func() {
				if recover() != "ended" {
					t.Errorf("%s: not ended by us", name)
				}
			}()
			end()
		}()
		restore()
		if got := mine.String(); !strings.Contains(got, "level=ERROR") || !strings.Contains(got, "the roof is gone") || strings.Contains(got, "f.go") {
			t.Errorf("%s: %q", name, got)
		}
	}
}
