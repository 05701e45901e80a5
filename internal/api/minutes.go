package api

import (
	"net/http"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

const (
	// keptMinutes is how far back the attempts of a webhook are known by the minute.
	keptMinutes = 60
	// maxPasts bounds the webhooks of which they are: 60 minutes of one take 2.9 KiB, so
	// that all of them take 12 MiB at most. One whose minutes are all over makes room.
	maxPasts = 4096
)

// minute counts the attempts that were recorded in one minute.
type minute struct {
	number                     int64 // of minutes since 1970; 0 = none yet
	delivered, failed, retried uint32
	sum, max                   time.Duration // of the attempts
}

// past is the last minutes of a webhook, each in the place of its number modulo
// keptMinutes.
type past [keptMinutes]minute

// pasts are those of all webhooks. Whoever has it guards it.
type pasts map[queue.Lane]*past

func minuteOf(t time.Time) int64 { return t.Unix() / 60 }

// note counts an attempt that was recorded now. One that the daemon's own stop cut short
// says nothing of the webhook.
func (p pasts) note(c *queue.Change, now time.Time) {
	if c.Kind != queue.ChangeAttempt || c.Code == delivery.CodeInterrupted {
		return
	}
	number := minuteOf(now)
	lane := p[c.Lane]
	if lane == nil {
		if len(p) >= maxPasts && !p.forget(number) {
			return
		}
		lane = &past{}
		p[c.Lane] = lane
	}
	m := &lane[number%keptMinutes]
	if m.number != number {
		*m = minute{number: number}
	}
	switch c.State {
	case delivery.Success:
		m.delivered++
	case delivery.Failed:
		m.failed++
	default:
		m.retried++
	}
	m.sum += c.Took
	m.max = max(m.max, c.Took)
}

// forget drops what has no minute left that counts, and reports whether there was any.
func (p pasts) forget(number int64) bool {
	before := len(p)
	for lane, all := range p {
		newest := int64(0)
		for i := range all {
			newest = max(newest, all[i].number)
		}
		if newest <= number-keptMinutes {
			delete(p, lane)
		}
	}
	return len(p) < before
}

// of are the last minutes of a webhook, the one under way included, oldest first.
func (p pasts) of(lane queue.Lane, now time.Time) (all [keptMinutes]minute) {
	last := minuteOf(now)
	known := p[lane]
	for i := range all {
		number := last - keptMinutes + 1 + int64(i)
		all[i].number = number
		if known != nil {
			if m := known[number%keptMinutes]; m.number == number {
				all[i] = m
			}
		}
	}
	return all
}

// minutes are the last minutes of a webhook.
func (f *Feed) minutes(lane queue.Lane, now time.Time) [keptMinutes]minute {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.pasts.of(lane, now)
}

// getMinutes tells what was attempted in each of the last minutes.
func (a *API) getMinutes(_ http.ResponseWriter, r *http.Request) (any, error) {
	if _, err := params(r); err != nil {
		return nil, err
	}
	name := r.PathValue("id")
	w, ok := a.webhook(name)
	if !ok {
		return nil, a.noWebhook(name)
	}
	answer := rest.Minutes{Webhook: w.Shown.ID, Minutes: make([]rest.Minute, 0, keptMinutes)}
	for _, m := range a.Feed.minutes(w.Lane, a.Now()) {
		shown := rest.Minute{At: rest.At(time.Unix(m.number*60, 0)), Delivered: m.delivered, Failed: m.failed, Retried: m.retried, Max: rest.Millis(m.max)}
		if n := time.Duration(m.delivered) + time.Duration(m.failed) + time.Duration(m.retried); n > 0 {
			shown.Mean = rest.Millis(m.sum / n)
		}
		answer.Minutes = append(answer.Minutes, shown)
	}
	return answer, nil
}
