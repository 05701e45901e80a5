package main

import (
	"context"
	"errors"
	"time"

	"github.com/hibiken/asynq"
)

// taskType is the one kind of task there is.
const taskType = "webhook"

// openAsynq keeps the events in Redis, one queue and one server of workers for each
// destination. Redis decides when it syncs: it has to run with appendfsync always.
func openAsynq(ctx context.Context, socket string, to []*destination) (enqueue, error) {
	conns := 2
	for _, d := range to {
		conns += d.concurrency
	}
	redis := asynq.RedisClientOpt{Network: "unix", Addr: socket, PoolSize: conns}
	client := asynq.NewClient(redis)
	if err := client.Ping(); err != nil {
		return nil, err
	}
	for _, d := range to {
		s := asynq.NewServer(redis, asynq.Config{
			Concurrency: d.concurrency,
			Queues:      map[string]int{d.helper: 1},
			// An idle server looks for work once a second unless it is told otherwise: that
			// would be the end to end time of every quiet queue.
			TaskCheckInterval: 5 * time.Millisecond,
			RetryDelayFunc: func(retried int, err error, _ *asynq.Task) time.Duration {
				if errors.Is(err, asynq.ErrLeaseExpired) { // the worker died: the receiver has not failed
					return 0
				}
				wait, _ := retryAfter(retried + 1)
				return wait
			},
			LogLevel: asynq.ErrorLevel,
		})
		if err := s.Start(asynq.HandlerFunc(func(ctx context.Context, t *asynq.Task) error { return d.deliver(ctx, t.Payload()) })); err != nil {
			return nil, err
		}
	}
	return func(ctx context.Context, helper string, body []byte) error {
		_, err := client.EnqueueContext(ctx, asynq.NewTask(taskType, body), asynq.Queue(helper), asynq.MaxRetry(maxRetries()), asynq.Timeout(attemptTimeout))
		return err
	}, nil
}
