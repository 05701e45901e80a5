package api

import (
	"cmp"
	"net/http"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

// endpoint is one route. Its handler returns the document to answer with, or an
// error; a handler that has answered by itself returns nil, nil.
type endpoint struct {
	method, path string
	serve        func(http.ResponseWriter, *http.Request) (any, error)
	body         int64 // bytes that its body may have; 0 = maxBody
}

func (a *API) endpoints() []endpoint {
	return []endpoint{
		{method: "GET", path: "/v1/helpers", serve: a.getHelpers},
		{method: "GET", path: "/v1/webhooks", serve: a.getWebhooks},
		{method: "POST", path: "/v1/webhooks", serve: a.postWebhook},
		{method: "GET", path: "/v1/webhooks/{id}", serve: a.getWebhook},
		{method: "PATCH", path: "/v1/webhooks/{id}", serve: a.patchWebhook},
		{method: "DELETE", path: "/v1/webhooks/{id}", serve: a.deleteWebhook},
		{method: "GET", path: "/v1/webhooks/{id}/deliveries", serve: a.getDeliveries},
		{method: "DELETE", path: "/v1/webhooks/{id}/deliveries", serve: a.deleteWebhookDeliveries},
		{method: "GET", path: "/v1/webhooks/{id}/minutes", serve: a.getMinutes},
		{method: "POST", path: "/v1/webhooks/{id}/test", serve: a.postTest},
		{method: "POST", path: "/v1/webhooks/{id}/replay", serve: a.postReplay},
		{method: "GET", path: "/v1/deliveries", serve: a.getDeliveries},
		{method: "GET", path: "/v1/deliveries/stream", serve: a.getStream},
		{method: "GET", path: "/v1/deliveries/{id}", serve: a.getDelivery},
		{method: "DELETE", path: "/v1/deliveries/{id}", serve: a.deleteDelivery},
		{method: "POST", path: "/v1/deliveries/{id}/retry", serve: a.postRetry},
		{method: "GET", path: "/v1/events/{id}", serve: a.getEvent},
		{method: "GET", path: "/v1/replays", serve: a.getReplays},
		{method: "DELETE", path: "/v1/replays/{id}", serve: a.deleteReplay},
		{method: "GET", path: "/v1/audit", serve: a.getAudit},
		{method: "POST", path: "/v1/audit/events", serve: a.postAuditEvents},
		{method: "GET", path: "/v1/backup", serve: a.getBackup},
		{method: "GET", path: "/v1/status", serve: a.getStatus},
		{method: "POST", path: "/v1/reload", serve: a.postReload},
		{method: "POST", path: "/v1/plan", serve: a.postPlan, body: maxPlanBody},
		{method: "GET", path: "/v1/config", serve: a.getConfig},
		{method: "GET", path: "/v1/config/history", serve: a.getConfigHistory},
		{method: "GET", path: "/v1/config/history/{generation}", serve: a.getConfigFiles},
		{method: "GET", path: "/v1/openapi.json", serve: a.getOpenAPI},
		{method: "GET", path: "/metrics", serve: a.getMetrics()},
		{method: "GET", path: "/livez", serve: a.getLive},
		{method: "GET", path: "/readyz", serve: a.getReady},
	}
}

// routes are all endpoints.
func (a *API) routes() *http.ServeMux { return a.mount(a.endpoints()) }

// mount registers endpoints, and for every path that exists the answer to the
// methods that it does not take.
func (a *API) mount(all []endpoint) *http.ServeMux {
	mux := http.NewServeMux()
	allowed := map[string][]string{}
	for _, e := range all {
		mux.Handle(e.method+" "+e.path, a.answer(cmp.Or(e.body, maxBody), e.serve))
		allowed[e.path] = append(allowed[e.path], e.method)
	}
	for path, methods := range allowed {
		// The stream's path is also a value of /v1/deliveries/{id}, whose entry
		// answers for both; ServeMux refuses the overlap.
		if path == "/v1/deliveries/stream" {
			continue
		}
		mux.Handle(path, a.answer(maxBody, func(w http.ResponseWriter, r *http.Request) (any, error) {
			w.Header().Set("Allow", strings.Join(methods, ", "))
			return nil, fail(http.StatusMethodNotAllowed, rest.CodeMethodNotAllowed, "",
				"%s is not available on %s, only %s", r.Method, path, strings.Join(methods, " and "))
		}))
	}
	names := make([]string, len(all))
	for i, e := range all {
		names[i] = e.method + " " + e.path
	}
	slices.Sort(names)
	mux.Handle("/", a.answer(maxBody, func(_ http.ResponseWriter, r *http.Request) (any, error) {
		return nil, fail(http.StatusNotFound, rest.CodeNotFound, "",
			"there is no %s; there are: %s", r.URL.Path, strings.Join(names, ", "))
	}))
	return mux
}

// scraper serves what the registry gathers. One scrape at a time is enough;
// two allow for a second scraper.
func scraper(r *prometheus.Registry) http.Handler {
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{MaxRequestsInFlight: 2, Registry: r})
}

// getMetrics is the same for every mux, so that what it bounds is bounded for all.
func (a *API) getMetrics() func(http.ResponseWriter, *http.Request) (any, error) {
	h := a.scraper
	return func(w http.ResponseWriter, r *http.Request) (any, error) {
		if _, err := params(r); err != nil {
			return nil, err
		}
		h.ServeHTTP(w, r)
		return nil, nil
	}
}
