package main

import (
	"errors"
	"fmt"
	"strconv"
	"syscall"
	"time"
)

// neighbourRate is how many events a second the bad webhook gets beside the measured
// flood: far more than it can take, so that its backlog grows, and few enough that
// accepting them costs the processor next to nothing.
const neighbourRate = "300"

// neighbours are the helpers whose webhooks misbehave, and how.
func neighbours() [][2]string {
	return [][2]string{{"slow", "a 5 s tarpit"}, {"refusing", "a refused connection"}, {"resetting", "a reset connection"},
		{"dripping", "an answer that drips"}, {"crashing", "a plugin that crashes"}}
}

// leg is what the healthy webhook reached in one flood.
type leg struct {
	perSecond float64
	p99       int64 // end to end, µs
}

// beside compares a leg with the mean of those before and after it.
func beside(before, l, after leg) (rate, p99 float64) {
	return 2 * l.perSecond / (before.perSecond + after.perSecond), 2 * float64(l.p99) / float64(max(1, before.p99+after.p99))
}

// measureIsolation floods the healthy webhook alone, then with a second sender whose
// events go to a bad one, alone again, and so on for each.
func measureIsolation(l *lab, n sizes, r *report) error {
	closed, release, err := refusingPort()
	if err != nil {
		return err
	}
	defer release()
	crasher, err := installCrasher(l.dir)
	if err != nil {
		return err
	}
	err = l.with(fmt.Sprintf("sinks:\n  crasher: {path: %q}\n", crasher), fmt.Sprintf(`  refusing:
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
	return err
}

func (l *lab) allNeighbours(n sizes, r *report) error {
	before, err := l.healthyLeg(n, "")
	if err != nil {
		return err
	}
	for _, bad := range neighbours() {
		with, err := l.healthyLeg(n, bad[0])
		if err != nil {
			return err
		}
		after, err := l.healthyLeg(n, "")
		if err != nil {
			return err
		}
		rate, p99 := beside(before, with, after)
		r.more = append(r.more,
			row{"healthy rate kept beside " + bad[1], fmt.Sprintf("%.0f %%", 100*rate), "90 %", "95 %", rate >= 0.9},
			row{"  end to end p99 divided by that alone", fmt.Sprintf("%.2f", p99), "-", "1.2", true})
		before = after
	}
	return nil
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
	return fmt.Sprintf("127.0.0.1:%d", in4.Port), release, nil
}

// healthyLeg floods the healthy webhook beside a bad one; "" is none.
func (l *lab) healthyLeg(n sizes, bad string) (leg, error) {
	if err := l.fresh(); err != nil {
		return leg{}, err
	}
	defer l.stopDaemon(syscall.SIGKILL)
	if err := l.warm(); err != nil {
		return leg{}, err
	}
	done := make(chan error, 1)
	if bad == "" {
		done <- nil
	} else {
		go func() {
			_, err := l.load("-n", strconv.Itoa(n.isolation/20), "-c", "4", "-rate", neighbourRate, "-helper", bad, "-max", "20s")
			done <- err
		}()
		time.Sleep(time.Second) // the bad webhook's slots are full by now
	}
	load, err := l.load("-n", strconv.Itoa(n.isolation), "-c", "16")
	if err != nil {
		return leg{}, errors.Join(err, <-done)
	}
	s, err := l.waitFor(load.Acked, 5*time.Second)
	if err := errors.Join(err, settled(s, load.Acked), <-done); err != nil {
		return leg{}, err
	}
	return leg{perSecond(s, load.StartUs), s.E2E.P99}, nil
}
