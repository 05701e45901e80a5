package ingest

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/queue"
)

// instantStore acknowledges at once: what is left is the price of the socket.
type instantStore struct{ seq atomic.Uint64 }

func (s *instantStore) StoreID() uint64              { return 1 }
func (s *instantStore) LaneName(l queue.Lane) string { return "" }
func (s *instantStore) Accept(_ context.Context, evs []*queue.Event) error {
	for _, ev := range evs {
		ev.Seq = s.seq.Add(1)
	}
	return nil
}

func benchEvent(n int) string {
	return fmt.Sprintf(`{"event":"entry.created","timestamp":"2025-01-15T14:32:00.000Z","helper":{"id":"h","name":"Daily Expenses","command":"/expenses"},"entry":{"id":"entry-%08d","data":{"amount":42.5,"category":"Food & Dining","description":"Team lunch at Olive Garden","date":"2025-01-15"},"created_at":"2025-01-15T14:32:00.000Z"},"user":{"id":"user-1"}}`, n)
}

func benchServer(b testing.TB) *served {
	catalog := oneWebhook()
	return serve(b, Options{Store: new(instantStore), Catalog: func() *Catalog { return catalog }})
}

func BenchmarkSingle(b *testing.B) {
	s := benchServer(b)
	request := []byte(post(benchEvent(1)))
	b.ReportAllocs()
	b.SetBytes(int64(len(request)))
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		c := s.dial(b)
		r := bufio.NewReader(c)
		for pb.Next() {
			c.Write(request)
			resp, err := http.ReadResponse(r, nil)
			if err != nil || resp.StatusCode != 202 {
				b.Error(resp, err)
				return
			}
			io.Copy(io.Discard, resp.Body)
		}
	})
}

func BenchmarkNDJSON(b *testing.B) {
	s := benchServer(b)
	const lines = 1000
	var body strings.Builder
	for i := range lines {
		body.WriteString(benchEvent(i) + "\n")
	}
	request := []byte(postAs(typeNDJSON, body.String()))
	b.ReportAllocs()
	b.SetBytes(int64(len(request)))
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		c := s.dial(b)
		r := bufio.NewReader(c)
		var results bytes.Buffer
		for pb.Next() {
			go c.Write(request)
			resp, err := http.ReadResponse(r, nil)
			if err != nil || resp.StatusCode != 200 {
				b.Error(resp, err)
				return
			}
			results.Reset()
			results.ReadFrom(resp.Body)
			if n := bytes.Count(results.Bytes(), []byte(`"status":202`)); n != lines {
				b.Errorf("%d results", n)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)*lines/b.Elapsed().Seconds(), "events/s")
}
