package sinktest_test

import (
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/peanutsapp/peanuts-relay/sinks/sinktest"
)

// TestTheExamplePasses keeps the example true.
func TestTheExamplePasses(t *testing.T) { sinktest.Run(t, plugin.Server, options()) }

// TestASinkBehindAConnectionIsChecked uses nothing that only this module has.
func TestASinkBehindAConnectionIsChecked(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := plugin.Server()
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	defer func() {
		server.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	passed := 0
	err = sinktest.Check(t.Context(), conn, options(), func(r sinktest.Result) {
		switch r.Status {
		case sinktest.Failed:
			t.Errorf("%s: %q", r.Check, r.Details)
		case sinktest.Passed:
			passed++
		}
	})
	if err != nil || passed < 30 {
		t.Errorf("%d checks passed, %v", passed, err)
	}
}
