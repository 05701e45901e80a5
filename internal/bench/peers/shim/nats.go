package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const subjects = "hooks."

// openNATS keeps the events in one work queue stream of files, with one durable pull
// consumer for each destination. The server decides when it syncs: it has to be started
// with sync_interval: always.
func openNATS(ctx context.Context, url string, to []*destination) (enqueue, error) {
	nc, err := nats.Connect(url, nats.MaxReconnects(-1))
	if err != nil {
		return nil, err
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, err
	}
	stream, err := openStream(ctx, js)
	if err != nil {
		return nil, fmt.Errorf("stream: %w", err)
	}
	for _, d := range to {
		c, err := stream.CreateOrUpdateConsumer(ctx, jetstream.ConsumerConfig{
			Durable: d.helper, FilterSubject: subjects + d.helper, AckPolicy: jetstream.AckExplicitPolicy, AckWait: attemptTimeout,
		})
		if err != nil {
			return nil, fmt.Errorf("consumer %s: %w", d.helper, err)
		}
		if err := d.consume(c); err != nil {
			return nil, fmt.Errorf("consume %s: %w", d.helper, err)
		}
	}
	return func(ctx context.Context, helper string, body []byte) error {
		_, err := js.Publish(ctx, subjects+helper, body)
		return err
	}, nil
}

// openStream waits for a server that has just started and still recovers its files.
func openStream(ctx context.Context, js jetstream.JetStream) (jetstream.Stream, error) {
	for {
		s, err := js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
			Name: "HOOKS", Subjects: []string{subjects + "*"}, Storage: jetstream.FileStorage, Retention: jetstream.WorkQueuePolicy,
		})
		if err == nil {
			return s, nil
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(err, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// consume starts the workers of a destination. What is fetched ahead is little, so that
// it does not wait here for longer than the server waits for an acknowledgement.
func (d *destination) consume(c jetstream.Consumer) error {
	work := make(chan jetstream.Msg)
	if _, err := c.Consume(func(m jetstream.Msg) { work <- m }, jetstream.PullMaxMessages(2*d.concurrency)); err != nil {
		return err
	}
	for range d.concurrency {
		go func() {
			for m := range work {
				_ = d.settle(m) // what the server does not hear of comes again
			}
		}()
	}
	return nil
}

// settle delivers a message and tells the server what became of it.
func (d *destination) settle(m jetstream.Msg) error {
	if d.deliver(context.Background(), m.Data()) == nil {
		return m.Ack()
	}
	meta, err := m.Metadata()
	if err != nil {
		return err
	}
	if wait, again := retryAfter(int(meta.NumDelivered)); again {
		return m.NakWithDelay(wait)
	}
	return m.Term()
}
