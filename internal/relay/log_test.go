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

// net/http prints what a receiver sends unasked, and a receiver knows the
// secrets that we sent it.
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
	text := await(t, "the report of net/http", func() (string, error) { return h.log.String(), nil },
		func(s string) bool { return strings.Contains(s, "Unsolicited response") })
	if strings.Contains(text, "unasked-for-secret") {
		t.Errorf("the log has the secret:\n%s", text)
	}
	if strings.Contains(text, `level=INFO msg="library reports"`) || !strings.Contains(text, `level=DEBUG msg="library reports"`) {
		t.Errorf("the report is not at Debug:\n%s", text)
	}
	d.stop()
}

func TestTheStandardLogIsGivenBack(t *testing.T) {
	var mine, theirs safeBuffer
	defer func(w io.Writer, flags int) { log.SetOutput(w); log.SetFlags(flags) }(log.Writer(), log.Flags())
	log.SetOutput(&theirs)
	restore := takeStandardLog(slog.New(slog.NewTextHandler(&mine, &slog.HandlerOptions{Level: slog.LevelDebug})))
	log.Print("one")
	restore()
	log.Print("two")
	if got := mine.String(); !strings.Contains(got, "text=one") || strings.Contains(got, "two") {
		t.Errorf("taken: %q", got)
	}
	if got := theirs.String(); !strings.Contains(got, "two") || strings.Contains(got, "one") {
		t.Errorf("given back: %q", got)
	}
}
