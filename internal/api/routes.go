package api

import (
	"net/http"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

// endpoint is one route. Its handler returns the document to answer with, or an
// error; a handler that has answered by itself returns nil, nil.
type endpoint struct {
	method, path string
	serve        func(http.ResponseWriter, *http.Request) (any, error)
}

func (a *API) endpoints() []endpoint {
	return []endpoint{
		{"GET", "/v1/helpers", a.getHelpers},
		{"GET", "/v1/webhooks", a.getWebhooks},
		{"GET", "/v1/webhooks/{id}", a.getWebhook},
		{"GET", "/v1/webhooks/{id}/deliveries", a.getDeliveries},
		{"POST", "/v1/webhooks/{id}/test", a.postTest},
		{"POST", "/v1/webhooks/{id}/replay", a.postReplay},
		{"GET", "/v1/deliveries", a.getDeliveries},
		{"GET", "/v1/deliveries/stream", a.getStream},
		{"GET", "/v1/deliveries/{id}", a.getDelivery},
		{"DELETE", "/v1/deliveries/{id}", a.deleteDelivery},
		{"POST", "/v1/deliveries/{id}/retry", a.postRetry},
		{"GET", "/v1/events/{id}", a.getEvent},
		{"GET", "/v1/replays", a.getReplays},
		{"DELETE", "/v1/replays/{id}", a.deleteReplay},
		{"GET", "/v1/status", a.getStatus},
		{"GET", "/metrics", a.getMetrics()},
		{"GET", "/livez", a.getLive},
		{"GET", "/readyz", a.getReady},
	}
}

// routes registers every endpoint, and for every path that exists the answer to
// the methods that it does not take.
func (a *API) routes() *http.ServeMux {
	mux := http.NewServeMux()
	all := a.endpoints()
	allowed := map[string][]string{}
	for _, e := range all {
		mux.Handle(e.method+" "+e.path, a.answer(e.serve))
		allowed[e.path] = append(allowed[e.path], e.method)
	}
	for path, methods := range allowed {
		// The stream's path is also a value of /v1/deliveries/{id}, whose entry
		// answers for both; ServeMux refuses the overlap.
		if path == "/v1/deliveries/stream" {
			continue
		}
		mux.Handle(path, a.answer(func(w http.ResponseWriter, r *http.Request) (any, error) {
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
	mux.Handle("/", a.answer(func(_ http.ResponseWriter, r *http.Request) (any, error) {
		return nil, fail(http.StatusNotFound, rest.CodeNotFound, "",
			"there is no %s; there are: %s", r.URL.Path, strings.Join(names, ", "))
	}))
	return mux
}

// getMetrics serves what the registry gathers. One scrape at a time is enough;
// two allow for a second scraper.
func (a *API) getMetrics() func(http.ResponseWriter, *http.Request) (any, error) {
	h := promhttp.HandlerFor(a.Registry, promhttp.HandlerOpts{MaxRequestsInFlight: 2, Registry: a.Registry})
	return func(w http.ResponseWriter, r *http.Request) (any, error) {
		if _, err := params(r); err != nil {
			return nil, err
		}
		h.ServeHTTP(w, r)
		return nil, nil
	}
}
