//go:build linux

package testhost

import (
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestANetworkOfItsOwnHasALoopbackInterfaceOnly(t *testing.T) {
	if OwnNetwork(t) {
		return
	}
	list, err := net.Interfaces()
	if err != nil || len(list) != 1 || list[0].Flags&(net.FlagLoopback|net.FlagUp) != net.FlagLoopback|net.FlagUp {
		t.Errorf("interfaces %+v, %v", list, err)
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if c, err := net.Dial("tcp4", "192.0.2.1:80"); err == nil {
		c.Close()
		t.Error("another machine was reached")
	}
}

func TestWhatFailsInANetworkOfItsOwnFails(t *testing.T) {
	if os.Getenv(failEnv) != "" {
		if !OwnNetwork(t) {
			t.Fatal("this is the failure")
		}
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("a network of its own needs root")
	}
	cmd := exec.Command(os.Args[0], "-test.v", "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), failEnv+"=1")
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "this is the failure") {
		t.Errorf("%v\n%s", err, out)
	}
}
