package sinks_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
	"github.com/peanutsapp/peanuts-relay/sinks"
)

// generations is a plugin whose every Open is a sink that says which it is, waits while
// it is told to, and notes its Close.
type generations struct {
	opened  atomic.Int32
	hold    chan struct{} // a delivery "hold" waits for it
	started chan struct{} // tells that it does

	mu     sync.Mutex
	closed []int32
}

func newGenerations() *generations {
	return &generations{hold: make(chan struct{}), started: make(chan struct{}, 10)}
}

func (g *generations) plugin() sinks.Plugin[none] {
	return sinks.Plugin[none]{Open: func(context.Context, sinks.Env, none) (sinks.Sink, error) {
		n := g.opened.Add(1)
		return sink{
			deliver: func(_ context.Context, d *sinks.Delivery) (sinks.Receipt, error) {
				if d.ID == "hold" {
					g.started <- struct{}{}
					<-g.hold
				}
				return sinks.Receipt{Message: fmt.Sprint(n)}, nil
			},
			close: func() error {
				g.mu.Lock()
				defer g.mu.Unlock()
				g.closed = append(g.closed, n)
				return errors.New("closing is hard")
			},
		}, nil
	}}
}

func (g *generations) ended() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return fmt.Sprint(g.closed)
}

// holding starts a delivery that goes on until hold is closed.
func (g *generations) holding(t *testing.T, client sinkpb.SinkClient) (result chan string) {
	t.Helper()
	result = make(chan string, 1)
	go func() {
		r, err := client.Deliver(context.Background(), &sinkpb.DeliverRequest{Instance: "a", Deliveries: deliveries("hold")})
		if err != nil {
			result <- err.Error()
			return
		}
		result <- r.GetResults()[0].GetMessage()
	}()
	<-g.started
	return result
}

func TestAReplacedSinkIsClosedAfterItsLastDelivery(t *testing.T) {
	quiet(t)
	g := newGenerations()
	client := serve(t, g.plugin())
	configure(t, client, "a", "{}")
	under := g.holding(t, client)
	replaced := make(chan error, 1)
	go func() {
		_, err := client.Configure(context.Background(), &sinkpb.ConfigureRequest{Instance: "a", SettingsJson: []byte("{}")})
		replaced <- err
	}()
	for g.opened.Load() < 2 {
		<-time.After(time.Millisecond)
	}
	for {
		r := deliver(t, client, "a", &sinkpb.Delivery{Id: "d1"})
		if r.GetMessage() == "2" {
			break
		}
	}
	if g.ended() != "[]" {
		t.Errorf("closed %s while a delivery was under way", g.ended())
	}
	close(g.hold)
	if got := <-under; got != "1" {
		t.Errorf("the delivery under way was answered by %q", got)
	}
	if err := <-replaced; err != nil || g.ended() != "[1]" {
		t.Errorf("%v, closed %s", err, g.ended())
	}
	for range 2 {
		if _, err := client.Close(t.Context(), &sinkpb.CloseRequest{Instance: "a"}); err != nil || g.ended() != "[1 2]" {
			t.Errorf("%v, closed %s", err, g.ended())
		}
	}
}

func TestDrainFinishesWhatIsUnderWayAndRefusesTheRest(t *testing.T) {
	quiet(t)
	g := newGenerations()
	client := serve(t, g.plugin())
	configure(t, client, "a", "{}")
	configure(t, client, "b", "{}")
	under := g.holding(t, client)

	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := client.Drain(ctx, &sinkpb.DrainRequest{}); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("%v", err)
	}
	drained := make(chan error, 1)
	go func() {
		_, err := client.Drain(context.Background(), &sinkpb.DrainRequest{})
		drained <- err
	}()
	for {
		_, err := client.Deliver(t.Context(), &sinkpb.DeliverRequest{Instance: "b", Deliveries: deliveries("a")})
		if status.Code(err) == codes.Unavailable {
			break
		}
	}
	if _, err := client.Configure(t.Context(), &sinkpb.ConfigureRequest{Instance: "c"}); status.Code(err) != codes.Unavailable {
		t.Errorf("%v", err)
	}
	if r, err := client.Health(t.Context(), &sinkpb.HealthRequest{}); err != nil || !r.GetHealthy() {
		t.Errorf("%v, %v", r, err)
	}
	select {
	case err := <-drained:
		t.Fatalf("drained with a delivery under way: %v", err)
	default:
	}
	close(g.hold)
	if got := <-under; got != "1" {
		t.Errorf("the delivery under way was answered with %q", got)
	}
	if err := <-drained; err != nil {
		t.Fatal(err)
	}
	if got := len(strings.Fields(g.ended())); got != 3 {
		t.Errorf("closed %s", g.ended())
	}
}
