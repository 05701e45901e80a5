package main

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
	"syscall"
	"time"
)

// neighbourRate is how many events a second the other webhook gets beside the measured
// flood: far more than a bad one can take, so that its slots are full at once and its backlog
// grows.
const neighbourRate = "300"

// neighbours are the helpers whose webhooks misbehave, and how.
func neighbours() [][2]string {
	return [][2]string{{"slow", "a 5 s tarpit"}, {"refusing", "a refused connection"}, {"resetting", "a reset connection"},
		{"dripping", "an answer that drips"}, {"crashing", "a plugin that crashes"}}
}

// measureIsolation floods one webhook while another gets 300 events/s: in turns one that is
// well and one that is not. Sender, acceptance and receiver of those 300 take their part
// of the processors either way, so that what differs is what the relay lets a bad webhook do
// to another.
func measureIsolation(l *lab, n sizes, r *report) error {
	closed, release, err := refusingPort()
	if err != nil {
		return err
	}
	defer release()
	if err := installCrasher(l.dir, 0); err != nil {
		return err
	}
	return l.with(fmt.Sprintf("sinks:\n  crasher: {path: %q}\n", crasherPath(l.dir)), fmt.Sprintf(`  well:
    secret: %[2]s
    webhooks: {main: {url: "http://%[1]s/ok/well"}}
  refusing:
    secret: %[2]s
    webhooks: {main: {url: "http://%[3]s/ok/refusing"}}
  resetting:
    secret: %[2]s
    webhooks: {main: {url: "http://%[1]s/reset/0/x"}}
  dripping:
    secret: %[2]s
    webhooks: {main: {url: "http://%[1]s/drip/0/x"}}
  crashing:
    webhooks: {main: {sink: crasher}}
`, l.recvAddr, l.secret, closed), func() error { return l.allNeighbours(n, r) })
}

func (l *lab) allNeighbours(n sizes, r *report) error {
	if err := l.warmed(); err != nil {
		return err
	}
	defer l.stopDaemon(syscall.SIGKILL)
	r.heading("Beside a bad neighbour ÷ beside one that is well, 300 events/s each")
	for _, bad := range neighbours() {
		legs, err := alternate(n.pairs, l.besideNeighbour(n, bad[0]), l.besideNeighbour(n, "well"))
		if err != nil {
			return fmt.Errorf("beside %s: %w", bad[1], err)
		}
		legs = undisturbed(legs)
		rate := ratios(rates(legs[0]), rates(legs[1]))
		late := ratios(each(legs[0], e2eP99), each(legs[1], e2eP99))
		r.add(bad[1]+", "+rounds(legs, n.pairs)+": rate kept; lowest", "%.0f %%; %.0f %%", least(" %", 90, 95), 100*rate.median, 100*rate.lowest)
		r.add("  end to end p99 divided; highest", "%.2f; %.2f", most("", math.NaN(), 1.2), late.median, late.highest)
	}
	return nil
}

// besideNeighbour floods the measured webhook while another helper's gets its events, and
// then discards what waits for that.
func (l *lab) besideNeighbour(n sizes, helper string) turn {
	flood := l.beside(500*time.Millisecond, l.flood(n.steep), "-c", "4", "-rate", neighbourRate, "-helper", helper)
	legs := 0
	return func() (leg, error) {
		if legs++; helper == "crashing" {
			if err := l.revive(legs); err != nil {
				return leg{}, err
			}
		}
		out, err := flood()
		if err != nil {
			return out, err
		}
		return out, l.discard(helper + ".main")
	}
}

// revive replaces the plugin that crashes: the relay suspends one that ends too often, and
// would leave it alone in the legs after that.
func (l *lab) revive(version int) error {
	if err := installCrasher(l.dir, version); err != nil {
		return err
	}
	return l.adminDo(http.MethodPost, "/v1/reload", nil)
}

// discard drops what waits for a webhook, and waits until nothing does but what is in flight.
func (l *lab) discard(webhook string) error {
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err := l.adminDo(http.MethodDelete, "/v1/webhooks/"+webhook+"/deliveries", nil); err != nil {
			return err
		}
		var w struct {
			Counts struct{ Pending int64 } `json:"counts"`
		}
		if err := l.adminDo(http.MethodGet, "/v1/webhooks/"+webhook, &w); err != nil {
			return err
		}
		if w.Counts.Pending <= 8 { // its concurrency
			return nil
		}
	}
	return fmt.Errorf("%s still has deliveries that wait, a minute after they were discarded", webhook)
}

// refusingPort is an address that nobody else gets and that refuses connections.
func refusingPort() (addr string, release func(), err error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", nil, err
	}
	release = func() { _ = syscall.Close(fd) }
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		release()
		return "", nil, err
	}
	sa, err := syscall.Getsockname(fd)
	in4, ok := sa.(*syscall.SockaddrInet4)
	if err != nil || !ok {
		release()
		return "", nil, fmt.Errorf("no address of a bound socket: %w", err)
	}
	return "127.0.0.1:" + strconv.Itoa(in4.Port), release, nil
}
