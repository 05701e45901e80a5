//go:build linux

package main

import (
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/adminclient"
	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
	"github.com/peanutsapp/peanuts-relay/internal/testhost"
)

// badNetwork is a receiver that is reached over networks of different kinds, each a
// port of the loopback interface.
type badNetwork struct {
	*receiver
	ports map[string]string // of loss, reset, hole and slow
}

// newBadNetwork makes the networks: of one 30 % of the packets are lost, in both
// directions; one answers one in ten with a reset; one is a black hole until it is
// mended; one carries 256 kbit/s.
func newBadNetwork(t *testing.T) *badNetwork {
	t.Helper()
	b := &badNetwork{receiver: newReceiver(t), ports: map[string]string{}}
	for _, kind := range []string{"loss", "reset", "hole", "slow"} {
		s := httptest.NewServer(b.receiver)
		t.Cleanup(func() {
			s.CloseClientConnections() // one that was reset at the other end only looks busy here
			s.Close()
		})
		_, b.ports[kind], _ = net.SplitHostPort(s.Listener.Addr().String())
	}
	testhost.Run(t, "ip", "link", "set", "lo", "mtu", "1500")
	testhost.Run(t, "tc", "qdisc", "add", "dev", "lo", "root", "handle", "1:", "htb")
	testhost.Run(t, "tc", "class", "add", "dev", "lo", "parent", "1:", "classid", "1:3", "htb", "rate", "256kbit", "burst", "4kb")
	rules := []string{"add table inet bad", "add chain inet bad out { type filter hook output priority 0 ; }", "add chain inet bad hole", "add rule inet bad out jump hole"}
	for _, end := range []string{"dport", "sport"} {
		rules = append(rules,
			"add rule inet bad out tcp "+end+" "+b.ports["loss"]+" numgen random mod 100 < 30 drop",
			"add rule inet bad out tcp "+end+" "+b.ports["reset"]+" numgen random mod 100 < 10 reject with tcp reset",
			"add rule inet bad hole tcp "+end+" "+b.ports["hole"]+" drop",
			"add rule inet bad out tcp "+end+" "+b.ports["slow"]+" meta priority set 1:3")
	}
	testhost.Run(t, "nft", strings.Join(rules, "\n"))
	return b
}

// mend lets packets through the black hole.
func (b *badNetwork) mend(t *testing.T) {
	t.Helper()
	testhost.Run(t, "nft", "flush chain inet bad hole")
}

// timeouts of the attempts, by the network that they go over. Control has the same
// network as loss, and no retries.
func networkTimeouts() map[string]time.Duration {
	return map[string]time.Duration{"loss": 2 * time.Second, "reset": time.Second, "hole": time.Second / 2, "slow": 10 * time.Second, "control": 300 * time.Millisecond}
}

// webhooks has one for each network, with retries that come soon.
func (b *badNetwork) webhooks() string {
	var text strings.Builder
	for kind, timeout := range networkTimeouts() {
		port, schedule := b.ports[kind], strings.TrimSuffix(strings.Repeat("300ms, ", 20), ", ")
		if kind == "control" {
			port, schedule = b.ports["loss"], ""
		}
		fmt.Fprintf(&text, "      %s: {url: \"http://127.0.0.1:%s/%[1]s\", concurrency: 16, retry: {timeout: %[3]s, schedule: [%[4]s]}}\n", kind, port, timeout, schedule)
	}
	return text.String()
}

// Packets are lost, connections are reset at any moment, nothing comes back at all
// for a while, or everything takes long. All of it arrives in the end, by retries;
// the control has none, and loses.
func TestABadNetworkLosesNothing(t *testing.T) {
	if testhost.OwnNetwork(t) {
		return
	}
	for range times(t, "DAEMON_NETWORK_ROUNDS", 1) {
		t.Run("round", badNetworkRound)
	}
}

func badNetworkRound(t *testing.T) {
	const events = 30
	b := newBadNetwork(t)
	defer testhost.Run(t, "tc", "qdisc", "del", "dev", "lo", "root")
	defer testhost.Run(t, "nft", "delete table inet bad")
	s := newSite(t, "", b.webhooks())
	l := newLedger()
	p := s.up()
	before := s.resources(p)
	var next atomic.Int64
	for range events {
		if status := s.send(t.Context(), l, int(next.Add(1))); status != http.StatusAccepted {
			t.Fatalf("an event was answered %d", status)
		}
	}
	until(t, "a delivery to fall into the black hole", func() bool {
		page, err := s.admin.Deliveries(t.Context(), adminclient.DeliveryQuery{Webhook: "crash.hole", Limit: events})
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(page.Deliveries, func(d rest.Delivery) bool { return d.Attempts > 0 && d.Code == string(delivery.CodeTimeout) })
	})
	b.mend(t)
	s.settle()
	s.accountForNetworks(l, b)
	// Sixteen connections of each webhook may wait for the next delivery.
	idle := 16 * len(networkTimeouts())
	until(t, "the daemon to let go of what it held", func() bool {
		now := s.resources(p)
		return now["goroutines"] <= before["goroutines"]+idle && now["descriptors of socket"] <= before["descriptors of socket"]+idle && now["children"] == before["children"]
	})
	p.stop()
	verifyStore(t, s.data)
}

// accountForNetworks settles accounts with the networks that had retries, and looks
// at every attempt.
func (s *site) accountForNetworks(l *ledger, b *badNetwork) {
	s.t.Helper()
	listed := s.listing()
	b.mu.Lock()
	seen := maps.Clone(b.seen)
	wrong := slices.Clone(b.wrong)
	b.mu.Unlock()
	maps.DeleteFunc(seen, func(_ string, a *arrival) bool { return a.webhook == "crash.control" })
	acked, control := map[int]answer{}, 0
	attempts, late := 0, 0
	for n, a := range l.acked {
		for _, d := range a.Deliveries {
			d, err := s.admin.Delivery(s.t.Context(), d.ID)
			if err != nil {
				s.t.Fatal(err)
			}
			kind := strings.TrimPrefix(d.Webhook, "crash.")
			for _, one := range d.Log {
				attempts++
				if one.Duration.Duration() > networkTimeouts()[kind]+time.Second {
					late++
				}
			}
			switch {
			case kind == "control" && d.Status == rest.StatusFailed:
				control++
			case kind != "control" && d.Status != rest.StatusSuccess:
				wrong = append(wrong, fmt.Sprintf("delivery %s over %s is %s after %d attempts: %s", d.ID, kind, d.Status, d.Attempts, d.Error))
			}
		}
		a.Deliveries = slices.DeleteFunc(slices.Clone(a.Deliveries), func(d struct{ ID, Webhook string }) bool { return d.Webhook == "crash.control" })
		acked[n] = a
	}
	more, lost := account(acked, seen, listed, len(networkTimeouts())-1)
	for _, problem := range append(append(wrong, more...), l.wrong...) {
		s.t.Error(problem)
	}
	if control == 0 {
		s.t.Error("the control lost nothing: this network is not bad")
	}
	// A machine that was away for a second makes attempts late by that.
	if late > attempts/50 {
		s.t.Errorf("%d of %d attempts ended more than a second after their time", late, attempts)
	}
	s.t.Logf("%d events, %d deliveries, %d attempts, %d late, %d lost; without retries %d lost", len(acked), len(listed), attempts, late, lost, control)
	s.t.Attr("cases", strconv.Itoa(len(networkTimeouts())-1))
	s.t.Attr("acked", strconv.Itoa(len(acked)))
	s.t.Attr("lost", strconv.Itoa(lost))
}
