package relay

import (
	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
)

// onFatal is called by the store with its first error. From here on nothing can
// be recorded, so nothing more is delivered: what would be sent now is sent
// again after the restart.
func (r *relay) onFatal(err error) {
	r.close(queue.ErrStopped)
	if d := r.dispatcher.running(); d != nil {
		d.Pause(delivery.HoldStorage)
	}
	r.storageFailed(err)
}

// abortOn ends the process from inside of the database.
func (r *relay) abortOn(err error) {
	r.log.Error("stopped at once on a storage error; nothing that was acknowledged is lost", "err", err)
	if r.Abort != nil {
		r.Abort()
	}
}
