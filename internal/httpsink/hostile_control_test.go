package httpsink

import (
	"context"
	"errors"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"
)

// The control of the table of hostile receivers: a client that trusts its receivers
// is held up, and made to take what it did not ask for.
func TestAClientWithoutBoundsIsHurtByHostileReceivers(t *testing.T) {
	hurt := map[string]func(resp *http.Response, err error, used uint64) bool{
		"never answers": func(_ *http.Response, err error, _ uint64) bool {
			return errors.Is(err, context.DeadlineExceeded) // that of this test, which is later than any of an attempt
		},
		"endless body of a success": func(_ *http.Response, _ error, used uint64) bool { return used > hostileMemory },
		"gzip bomb":                 func(_ *http.Response, _ error, used uint64) bool { return used > hostileMemory },
	}
	seen := 0
	for _, h := range hostileReceivers() {
		is := hurt[h.name]
		if is == nil {
			continue
		}
		seen++
		t.Run(h.name, func(t *testing.T) {
			patience := 30 * time.Second
			if h.name == "never answers" {
				patience = hostileTimeout + overtime
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+rawServer(t, h.serve)+"/hook", strings.NewReader(testPayload))
			if err != nil {
				t.Fatal(err)
			}
			transport := &http.Transport{}
			defer transport.CloseIdleConnections()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			resp, err := (&http.Client{Transport: transport}).Do(req)
			if err == nil {
				_, _ = io.ReadAll(io.LimitReader(resp.Body, 64<<20)) // the end of this test's patience
				resp.Body.Close()
			}
			runtime.ReadMemStats(&after)
			if !is(resp, err, after.TotalAlloc-before.TotalAlloc) {
				t.Errorf("%v, %d bytes: no harm was done", err, after.TotalAlloc-before.TotalAlloc)
			}
		})
	}
	if seen != len(hurt) {
		t.Errorf("%d of %d receivers were found", seen, len(hurt))
	}
}
