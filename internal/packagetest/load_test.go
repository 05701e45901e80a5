package packagetest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Events and their answers, as load sees them.
type book struct {
	accepted []string // ids, each answered 202
	refused  []string // ids, each with what came instead
}

// senders hand in events until they are stopped.
type senders struct {
	mu   sync.Mutex
	book book // guarded by mu
	all  sync.WaitGroup
	end  context.CancelFunc
}

// load has several senders hand in events. Each has to be answered by the relay that is
// there, was there, or will be. Half of the senders make a connection for each event, as
// curl does, the others keep theirs.
func load(m *Machine) *senders {
	const senderCount = 4
	ctx, cancel := context.WithCancel(context.Background())
	s := &senders{end: cancel}
	for sender := range senderCount {
		s.all.Go(func() {
			client := newClient(m, sender%2 == 0)
			defer client.CloseIdleConnections()
			for n := 0; ctx.Err() == nil; n++ {
				id := fmt.Sprintf("evt_%d_%d", sender, n)
				err := sendWith(client, id)
				s.mu.Lock()
				if err == nil {
					s.book.accepted = append(s.book.accepted, id)
				} else {
					s.book.refused = append(s.book.refused, id+": "+err.Error())
				}
				s.mu.Unlock()
			}
		})
	}
	return s
}

// goOn waits until some more events were accepted.
func (s *senders) goOn(t *testing.T) {
	t.Helper()
	accepted := func() int {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.book.accepted)
	}
	enough := accepted() + 100
	if !until(func() bool { return accepted() >= enough }) {
		t.Errorf("only %d events were accepted, not %d", accepted(), enough)
	}
}

// stop ends the load and says what became of it.
func (s *senders) stop() book {
	s.end()
	s.all.Wait()
	return s.book
}

func newClient(m *Machine, keep bool) *http.Client {
	socket := m.Path("/run/peanuts-relay/events.sock")
	return &http.Client{Timeout: Patience, Transport: &http.Transport{DisableKeepAlives: !keep,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		}}}
}

// send hands in one event; anything but 202 is an error.
func send(m *Machine, id string) error { return sendWith(newClient(m, false), id) }

func sendWith(client *http.Client, id string) error {
	body := `{"event":"entry.created","helper":"expenses","id":"` + id + `","entry":{"id":"entry-` + id + `","data":{"amount":42.5}}}`
	response, err := client.Post("http://relay/v1/events", "application/json", strings.NewReader(body))
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusAccepted {
		return fmt.Errorf("%s %s", response.Status, bytes.TrimSpace(answer))
	}
	return nil
}

const receivedFile = "/root/received"

// startReceiver starts a receiver in the machine that verifies what it gets.
func startReceiver(m *Machine) {
	m.Run("systemd-run", "--quiet", "--unit=receiver", "--property=StandardOutput=append:"+receivedFile, "--property=StandardError=journal",
		"peanuts-relay", "receive", "--json", "--secret", secret)
	m.Eventually("listening on", "journalctl", "--no-pager", "--unit=receiver")
}

// received are the ids of the events that arrived and were verified, with how often.
func received(t *testing.T, m *Machine) map[string]int {
	t.Helper()
	f, err := os.Open(m.Path(receivedFile))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	arrived := map[string]int{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		var line struct {
			EventID  string `json:"event_id"`
			Status   int    `json:"status"`
			Verified *bool  `json:"verified"`
		}
		if json.Unmarshal(lines.Bytes(), &line) != nil {
			continue // the last one is being written
		}
		if line.Verified == nil || !*line.Verified {
			t.Errorf("%s arrived with a signature that is not valid: %s", line.EventID, lines.Text())
		}
		arrived[line.EventID]++
	}
	return arrived
}

// missing waits until all that was accepted has arrived, and returns what has not.
func missing(t *testing.T, m *Machine, b book) []string {
	t.Helper()
	var lost []string
	until(func() bool {
		arrived := received(t, m)
		lost = slices.DeleteFunc(slices.Clone(b.accepted), func(id string) bool { return arrived[id] > 0 })
		return len(lost) == 0
	})
	return lost
}
