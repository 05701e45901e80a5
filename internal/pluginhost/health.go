package pluginhost

import (
	"context"

	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
)

const maxFeelings = 500 // bytes of what a plugin says of its health

// checkHealth asks the process how it is, and reports whether it missed so often that it
// has to go. What it says of itself is shown and changes nothing else.
func (b *binary) checkHealth(r *run) (hopeless bool) {
	ctx, cancel := context.WithTimeout(b.host.ctx, b.host.times.HealthDeadline)
	defer cancel()
	resp, err := r.child.Client().Health(ctx, &sinkpb.HealthRequest{}, bounded(64<<10, 64)...)
	healthy, feelings := true, ""
	if err == nil && !resp.GetHealthy() {
		healthy, feelings = false, b.text(resp.GetMessage(), maxFeelings)
	}
	b.mu.Lock()
	if err != nil && !isAnswer(err) {
		r.misses++
		hopeless = r.misses >= maxMisses
		b.mu.Unlock()
		b.host.log.Debug("a sink plugin missed a health check", "sink", b.file.Sink, "pid", r.child.PID(), "err", b.words(err))
		return hopeless && !r.gone()
	}
	r.misses = 0
	changed := healthy != r.healthy
	r.healthy, r.feelings = healthy, feelings
	b.mu.Unlock()
	switch {
	case !changed:
	case healthy:
		b.host.log.Info("a sink plugin says that it is well again", "sink", b.file.Sink)
	default:
		b.host.log.Warn("a sink plugin says that it is not well; its deliveries go on", "sink", b.file.Sink, "health", feelings)
	}
	return false
}
