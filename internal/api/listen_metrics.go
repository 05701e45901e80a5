package api

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"time"
)

const (
	// maxMetricsConns bounds the connections of the metrics listener: a few scrapers
	// and probes, each with one that it keeps.
	maxMetricsConns = 32
	// metricsTimeout bounds a request from its first byte to the last of its answer.
	// Prometheus itself gives up after 10 s unless it is told otherwise.
	metricsTimeout = 30 * time.Second
)

// MetricsHandler serves /metrics, /livez and /readyz, and nothing else. They need no
// token, and the Host header is not checked: they change nothing, hold no secret,
// and are asked for by whatever name a scraper finds the machine under. A web page
// that gets a browser to read them by rebinding a name learns names of webhooks and
// how much goes through them; who cannot have that keeps the listener on an
// address that no browser reaches.
func (a *API) MetricsHandler() http.Handler {
	return a.guard(a.mount(slices.DeleteFunc(a.endpoints(), func(e endpoint) bool {
		return e.path != "/metrics" && e.path != "/livez" && e.path != "/readyz"
	})))
}

// metricsServer bounds what a client can hold.
func (a *API) metricsServer() *http.Server {
	return &http.Server{Handler: a.MetricsHandler(), ReadHeaderTimeout: headerTimeout, ReadTimeout: metricsTimeout, WriteTimeout: metricsTimeout,
		IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader, ErrorLog: slog.NewLogLogger(a.Logger.Handler(), slog.LevelDebug)}
}

// ServeMetrics answers requests for metrics and health on l, which it closes, until
// ShutdownMetrics.
func (a *API) ServeMetrics(l net.Listener) error {
	return serve(a.metrics, newBounded(l, maxMetricsConns, new(atomic.Int64)), "metrics")
}

// ShutdownMetrics stops listening for metrics and waits for the requests under way.
// When ctx ends first their connections are closed.
func (a *API) ShutdownMetrics(ctx context.Context) error { return shutdown(ctx, a.metrics, "metrics") }
