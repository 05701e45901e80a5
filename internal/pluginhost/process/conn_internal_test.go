package process

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
)

// HTTP/2, as little of it as the liar needs.
const (
	frameData, frameHeaders, frameReset, frameSettings, frameGoAway = 0, 1, 3, 4, 7

	flagEnd       = 1
	refusedStream = 7
	preface       = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
)

// liar reads requests to their end and then says that it never looked at them.
type liar struct {
	away     bool // with GOAWAY for the whole connection, else with REFUSED_STREAM
	requests atomic.Int64
}

func (l *liar) serve(t *testing.T, listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		if err := l.speak(conn); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
			t.Logf("liar: %v", err)
		}
		conn.Close()
	}
}

func (l *liar) speak(conn net.Conn) error {
	if _, err := io.ReadFull(conn, make([]byte, len(preface))); err != nil {
		return err
	}
	if err := frame(conn, frameSettings, 0, 0, nil); err != nil {
		return err
	}
	for {
		head := make([]byte, 9)
		if _, err := io.ReadFull(conn, head); err != nil {
			return err
		}
		size := int64(head[0])<<16 | int64(head[1])<<8 | int64(head[2])
		if _, err := io.CopyN(io.Discard, conn, size); err != nil {
			return err
		}
		kind, flags, stream := head[3], head[4], binary.BigEndian.Uint32(head[5:])
		switch {
		case kind == frameSettings && flags&flagEnd == 0: // the same bit acknowledges
			if err := frame(conn, frameSettings, flagEnd, 0, nil); err != nil {
				return err
			}
		case kind == frameData && flags&flagEnd != 0:
			l.requests.Add(1)
			if l.away {
				return frame(conn, frameGoAway, 0, 0, make([]byte, 8)) // no stream was looked at, no error
			}
			if err := frame(conn, frameReset, 0, stream, []byte{0, 0, 0, refusedStream}); err != nil {
				return err
			}
		}
	}
}

func frame(w io.Writer, kind, flags byte, stream uint32, payload []byte) error {
	b := []byte{0, 0, byte(len(payload)), kind, flags}
	b = binary.BigEndian.AppendUint32(b, stream)
	_, err := w.Write(append(b, payload...))
	return err
}

// TestADeliverIsSentOnce is about grpc's transparent retries, which no option turns off.
func TestADeliverIsSentOnce(t *testing.T) {
	for _, row := range []struct {
		name string
		away bool
	}{{"refused stream", false}, {"go away", true}} {
		t.Run(row.name, func(t *testing.T) {
			if n := lieTo(t, row.away, grpc.WithDefaultCallOptions()); n != 1 {
				t.Errorf("it was sent %d times", n)
			}
			// Without our option it would be: the test can fail.
			if n := lieTo(t, row.away, grpc.WithDefaultCallOptions(grpc.MaxRetryRPCBufferSize(256<<10))); n != 2 {
				t.Errorf("without the option it was sent %d times: this test shows nothing", n)
			}
		})
	}
}

func lieTo(t *testing.T, away bool, more grpc.DialOption) (requests int64) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "liar")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	l := &liar{away: away}
	served := make(chan struct{})
	go func() {
		l.serve(t, listener)
		close(served)
	}()
	p := &Process{opts: Options{Limits: Limits{}.withDefaults()}, run: &run{socket: socket, child: &child{exited: make(chan struct{})}}, done: make(chan struct{})}
	conn, err := grpc.NewClient("passthrough:///plugin", append(append(p.dialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials())), more)...)
	if err != nil {
		t.Fatal(err)
	}
	if err := ready(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	_, err = sinkpb.NewSinkClient(conn).Deliver(t.Context(), &sinkpb.DeliverRequest{Instance: "i", Deliveries: []*sinkpb.Delivery{{Id: "d"}}})
	if status.Code(err) != codes.Unavailable {
		t.Errorf("the call ended with %v", err)
	}
	if err := errors.Join(conn.Close(), listener.Close()); err != nil {
		t.Error(err)
	}
	select {
	case <-served:
	case <-time.After(30 * time.Second):
		t.Error("the liar goes on")
	}
	return l.requests.Load()
}

func TestTheBrokerIsRefused(t *testing.T) {
	conn, err := grpc.NewClient("passthrough:///nobody", append((&Process{opts: Options{Limits: Limits{}.withDefaults()}}).dialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = conn.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/plugin.GRPCBroker/StartStream")
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("a stream of the broker ended with %v", err)
	}
}
