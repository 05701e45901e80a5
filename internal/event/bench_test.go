package event

import (
	"testing"
	"time"
)

// benchEvent has the size of the events that the project's benchmarks send.
const benchEvent = `{"event":"entry.created","helper":"expenses","entry":{"id":"entry-789-xyz","created_at":"2025-01-15T14:32:00Z",` +
	`"data":{"amount":42.50,"category":"Food & Dining","date":"2025-01-15","paid":true,"tags":["team","lunch","q1"],` +
	`"note":"Thai place on the corner, four people, one vegetarian, paid by card"}},"user":{"id":"user-456"},` +
	`"timestamp":"2025-01-15T14:32:00Z"}`

func benchHelper() *Helper {
	return &Helper{ID: "expenses", Name: "Daily Expenses", Command: "/expenses", Fields: []Field{
		{"amount", Number}, {"category", String}, {"date", String}, {"paid", Boolean}, {"tags", List}, {"note", String}}}
}

func BenchmarkParse(b *testing.B) {
	body, now := []byte(benchEvent), time.Now()
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		if _, err := Parse(body, now); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseCheckEncode(b *testing.B) {
	body, now, h := []byte(benchEvent), time.Now(), benchHelper()
	for name, f := range map[string]Format{"peanuts": FormatPeanuts, "event": FormatEvent} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				in, err := Parse(body, now)
				if err != nil {
					b.Fatal(err)
				}
				if err := in.Check(h); err != nil {
					b.Fatal(err)
				}
				if payload, _ := Encode(nil, in, h, f, ""); len(payload) == 0 {
					b.Fatal("no payload")
				}
			}
		})
	}
}
