package api

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/queue"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

// manyWebhooks is how many webhooks the largest installation that we think of has.
const manyWebhooks = 4096

// largeWorld is an API over so many webhooks, of few helpers.
func largeWorld(t *testing.T, webhooks int) *world {
	t.Helper()
	w := newWorld(t)
	catalog := &Catalog{}
	for i := range webhooks {
		lane := queue.Lane(100 + i)
		name := fmt.Sprintf("customer-%02d.endpoint-%04d", i%50, i)
		catalog.Webhooks = append(catalog.Webhooks, Webhook{Lane: lane, Shown: rest.Webhook{ID: name, Helper: name[:11], Sink: "http", Enabled: true}})
		w.store.lanes[lane] = queue.LaneStats{Webhook: name}
	}
	w.Catalog = func() *Catalog { return catalog }
	return w
}

// What a scrape costs grows by little with each webhook: a histogram of each would
// be an order of magnitude more.
func TestAScrapeOfThousandsOfWebhooksStaysSmall(t *testing.T) {
	of := func(webhooks int) (series, size, packed int) {
		w := largeWorld(t, webhooks)
		began := time.Now()
		text := w.request("GET", "/metrics", "").Body.String()
		t.Logf("a scrape of %d webhooks took %v", webhooks, time.Since(began))
		for line := range strings.Lines(text) {
			if !strings.HasPrefix(line, "#") {
				series++
			}
		}
		var small bytes.Buffer
		z := gzip.NewWriter(&small)
		if _, err := io.WriteString(z, text); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		return series, len(text), small.Len()
	}
	few, fewBytes, _ := of(1)
	many, manyBytes, packed := of(manyWebhooks)
	t.Logf("%d series, %d bytes, %d of them gzipped", many, manyBytes, packed)
	if perWebhook := (many - few) / (manyWebhooks - 1); perWebhook > mostSeriesOfAWebhook {
		t.Errorf("%d series for each webhook, want at most %d", perWebhook, mostSeriesOfAWebhook)
	}
	if perWebhook := (manyBytes - fewBytes) / (manyWebhooks - 1); perWebhook > mostSeriesOfAWebhook*100 {
		t.Errorf("%d bytes for each webhook", perWebhook)
	}
}

// mostSeriesOfAWebhook bounds what one more webhook costs a scrape.
const mostSeriesOfAWebhook = 15
