package pluginhost

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/zoo"
)

// BenchmarkDeliver counts deliveries through a plugin that does nothing, one by one and
// in batches of 50, by two callers for each processor.
func BenchmarkDeliver(b *testing.B) {
	for _, behaviour := range []string{"healthy", "batch"} {
		b.Run(behaviour, func(b *testing.B) {
			dir, err := os.MkdirTemp("", "zoo")
			if err != nil {
				b.Fatal(err)
			}
			defer os.RemoveAll(dir)
			h := New(Options{SocketDir: filepath.Join(dir, "s")})
			defer h.Stop(b.Context())
			f := File{Sink: zoo.Name(behaviour), Path: zoo.Install(b, dir, behaviour)}
			i, _, err := h.Open(b.Context(), InstanceOptions{File: f, Webhook: "a.b"})
			if err != nil {
				b.Fatal(err)
			}
			n := i.Limits().Batch
			b.SetParallelism(2)
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				os, as := outbounds(n)
				for left := 0; pb.Next(); left-- {
					if left > 0 {
						continue // it went with an earlier one
					}
					left = n
					for _, a := range as {
						*a = delivery.Attempt{}
					}
					i.DeliverBatch(b.Context(), os, as)
					if as[0].Outcome != delivery.Delivered {
						b.Errorf("%+v", as[0])
						return
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "deliveries/s")
		})
	}
}
