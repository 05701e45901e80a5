package api

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

// operation describes one route.
type operation struct {
	id, summary string
	query       []string // names of parameters
	in          any      // document of the body; nil = none
	status      int      // of a success; 0 = 200
	out         any      // document of a success; nil = it is of the type kind
	kind        string   // media type; "" = application/json
	open        bool     // the web listener asks for no token
	also        map[int]any
}

// operations are all routes, by method and path.
func operations() map[string]operation {
	listing := []string{"status", "since", "until", "event", "limit", "cursor"}
	return map[string]operation{
		"GET /v1/helpers":                     {id: "listHelpers", summary: "The helpers of the running configuration", out: rest.Helpers{}},
		"GET /v1/webhooks":                    {id: "listWebhooks", summary: "The webhooks: settings, state, counts, last result", out: rest.Webhooks{}},
		"POST /v1/webhooks":                   {id: "createWebhook", summary: "Adds a webhook to the daemon's own drop-in", in: rest.WebhookChange{}, status: 201, out: rest.WebhookChanged{}},
		"GET /v1/webhooks/{id}":               {id: "getWebhook", summary: "One webhook", out: rest.Webhook{}},
		"PATCH /v1/webhooks/{id}":             {id: "changeWebhook", summary: "Changes keys of a webhook in the daemon's own drop-in", in: rest.WebhookChange{}, out: rest.WebhookChanged{}},
		"DELETE /v1/webhooks/{id}":            {id: "deleteWebhook", summary: "Removes a webhook from the daemon's own drop-in; answers with it as it was", out: rest.Webhook{}},
		"GET /v1/webhooks/{id}/deliveries":    {id: "listWebhookDeliveries", summary: "The delivery log of one webhook, newest first", query: listing, out: rest.DeliveryPage{}},
		"DELETE /v1/webhooks/{id}/deliveries": {id: "dropWebhookDeliveries", summary: "Discards everything that waits for a webhook, except what is in flight", out: rest.Dropped{}},
		"GET /v1/webhooks/{id}/minutes":       {id: "getWebhookMinutes", summary: "The attempts of a webhook in each of the last 60 minutes", out: rest.Minutes{}},
		"POST /v1/webhooks/{id}/test":         {id: "testWebhook", summary: "Sends a signed sample and answers with the attempt", in: rest.TestRequest{}, out: rest.TestResult{}},
		"POST /v1/webhooks/{id}/replay":       {id: "replayWebhook", summary: "Puts finished deliveries back, or counts them", in: rest.ReplayRequest{}, status: 202, out: rest.Replay{}, also: map[int]any{200: rest.Replay{}}},
		"GET /v1/deliveries":                  {id: "listDeliveries", summary: "The delivery log of all webhooks, newest first", query: listing, out: rest.DeliveryPage{}},
		"GET /v1/deliveries/stream":           {id: "streamChanges", summary: "Server-sent events of every change: `delivery` with a Change, `missed` with a Missed", query: []string{"webhook", "status"}, kind: "text/event-stream"},
		"GET /v1/deliveries/{id}":             {id: "getDelivery", summary: "One delivery: payload, every attempt, why, what next", out: rest.DeliveryDetail{}},
		"DELETE /v1/deliveries/{id}":          {id: "discardDelivery", summary: "Discards what waits, removes what failed from the log; answers with the delivery as it was", out: rest.Delivery{}},
		"POST /v1/deliveries/{id}/retry":      {id: "retryDelivery", summary: "Makes a delivery due now", status: 202, out: rest.Delivery{}},
		"GET /v1/events/{id}":                 {id: "getEvent", summary: "What became of an event", out: rest.Events{}},
		"GET /v1/replays":                     {id: "listReplays", summary: "Replays under way and ended", out: rest.Replays{}},
		"DELETE /v1/replays/{id}":             {id: "cancelReplay", summary: "Cancels a replay; what it put back stays", out: rest.Replay{}},
		"GET /v1/audit":                       {id: "audit", summary: "Accounts for everything that was accepted, as lines of JSON: progress, then what was found", kind: "application/x-ndjson", out: rest.AuditLine{}},
		"POST /v1/audit/events":               {id: "auditEvents", summary: "What became of events that a sender believes accepted", in: rest.AuditIDs{}, out: rest.AuditAccounts{}},
		"GET /v1/backup":                      {id: "backup", summary: "The whole queue as one file", kind: "application/octet-stream"},
		"GET /v1/status":                      {id: "getStatus", summary: "The daemon: version, configuration, queue, webhooks, plugins", out: rest.Status{}},
		"POST /v1/reload":                     {id: "reload", summary: "Reads the configuration files now", out: rest.ReloadResult{}, also: map[int]any{422: rest.ReloadResult{}}},
		"POST /v1/plan":                       {id: "plan", summary: "What a candidate for the configuration would change; applies nothing", in: rest.PlanRequest{}, out: rest.PlanResult{}},
		"GET /v1/config":                      {id: "getConfig", summary: "The effective configuration that runs, secrets redacted", out: rest.RunningConfig{}},
		"GET /v1/config/history":              {id: "listConfigHistory", summary: "The configurations that ran or were refused, newest first", out: rest.ConfigHistory{}},
		"GET /v1/config/history/{generation}": {id: "getConfigFiles", summary: "The files of a configuration that ran; they may hold literal secrets", out: rest.ConfigFiles{}},
		"GET /v1/openapi.json":                {id: "getOpenAPI", summary: "This document", out: map[string]any{}},
		"GET /metrics":                        {id: "getMetrics", summary: "Metrics in the text format of Prometheus", kind: "text/plain"},
		"GET /livez":                          {id: "getLive", summary: "Whether the store works", out: rest.Health{}, open: true, also: map[int]any{503: rest.Health{}}},
		"GET /readyz":                         {id: "getReady", summary: "Whether events are accepted", out: rest.Health{}, open: true, also: map[int]any{503: rest.Health{}}},
	}
}

// queries describe the parameters of queries by name.
func queries() map[string]map[string]any {
	text := func(description string) map[string]any {
		return map[string]any{"description": description, "schema": map[string]any{"type": "string"}}
	}
	return map[string]map[string]any{
		"status":  text("Statuses, separated by commas: " + strings.Join(rest.Statuses(), ", ") + "; all when left out"),
		"since":   text("A time (RFC 3339), or a duration ago such as 2h or 7d"),
		"until":   text("Like since; the end is not included"),
		"event":   text("An event type such as entry.created, or created for short"),
		"cursor":  text("next_cursor of the page before"),
		"webhook": text("helper.webhook; all when left out"),
		"limit":   {"description": "Rows of a page", "schema": map[string]any{"type": "integer", "minimum": 1, "maximum": maxLimit, "default": defaultLimit}},
	}
}

// enums are the values of fields that have a few.
func enums() map[string][]string {
	return map[string][]string{
		"Delivery.status": rest.Statuses(), "Webhook.state": {rest.WebhookActive, rest.WebhookHeld},
		"ReloadResult.result": rest.ReloadResults(), "Status.state": {rest.StateOK, rest.StateDegraded, rest.StateStopping},
		"Config.state": {rest.ConfigCurrent, rest.ConfigRejected, rest.ConfigLastKnownGood}, "Plugin.state": rest.PluginStates(),
		"Finding.severity": {"error", "warning"}, "Response.body_encoding": {"utf-8", "base64"},
		"Change.kind":    {rest.KindAccepted, rest.KindAttempt, rest.KindRequeued, rest.KindDropped},
		"ConfigFile.now": {rest.FileSame, rest.FileDiffers, rest.FileMissing},
	}
}

// describe makes the document.
func describe(t *testing.T) map[string]any {
	s := newSchemas(t)
	for _, more := range []any{rest.Error{}, rest.Change{}, rest.Missed{}} {
		s.of(reflect.TypeOf(more))
	}
	paths := map[string]any{}
	for route, op := range operations() {
		method, path, _ := strings.Cut(route, " ")
		item, _ := paths[path].(map[string]any)
		if item == nil {
			item = map[string]any{}
			paths[path] = item
		}
		item[strings.ToLower(method)] = s.operation(path, op)
	}
	return map[string]any{
		"openapi": "3.1.0",
		"info": map[string]any{"title": "Peanuts Relay", "version": "1", "license": map[string]any{"name": "Apache 2.0", "identifier": "Apache-2.0"},
			"description": "The admin API: on the Unix socket listen.admin without a token, on listen.web with one. See docs/api.md and docs/web.md."},
		"servers":  []any{map[string]any{"url": "http://127.0.0.1:8465", "description": "listen.web"}},
		"security": []any{map[string]any{"token": []any{}}},
		"paths":    paths,
		"components": map[string]any{"schemas": s.all,
			"securitySchemes": map[string]any{"token": map[string]any{"type": "http", "scheme": "bearer", "description": "listen.web_token"}},
			"responses": map[string]any{"Error": map[string]any{"description": "Everything that is not a success",
				"content": map[string]any{"application/json": map[string]any{"schema": ref("Error")}}}}},
	}
}

func (s *schemas) operation(path string, op operation) map[string]any {
	var parameters []any
	for _, m := range regexp.MustCompile(`\{([a-z]+)\}`).FindAllStringSubmatch(path, -1) {
		kind := map[string]any{"type": "string"}
		if m[1] == "generation" {
			kind = map[string]any{"type": "integer", "minimum": 1}
		}
		parameters = append(parameters, map[string]any{"name": m[1], "in": "path", "required": true, "schema": kind})
	}
	for _, name := range op.query {
		p := maps.Clone(queries()[name])
		p["name"], p["in"] = name, "query"
		parameters = append(parameters, p)
	}
	answer := func(document any) map[string]any {
		kind := op.kind
		if kind == "" {
			kind = "application/json"
		}
		schema := map[string]any{"type": "string"}
		if document != nil {
			schema = s.of(reflect.TypeOf(document))
		}
		return map[string]any{"description": op.summary, "content": map[string]any{kind: map[string]any{"schema": schema}}}
	}
	status := op.status
	if status == 0 {
		status = 200
	}
	answers := map[string]any{statusText(status): answer(op.out), "default": map[string]any{"$ref": "#/components/responses/Error"}}
	for status, document := range op.also {
		answers[statusText(status)] = answer(document)
	}
	out := map[string]any{"operationId": op.id, "summary": op.summary, "responses": answers}
	if parameters != nil {
		out["parameters"] = parameters
	}
	if op.in != nil {
		out["requestBody"] = map[string]any{"content": map[string]any{"application/json": map[string]any{"schema": s.of(reflect.TypeOf(op.in))}}}
	}
	if op.open {
		out["security"] = []any{}
	}
	return out
}

// The description is made of the routes, the documents and what is said above, and is in
// two files: one that the daemon serves and one that people find. UPDATE_GOLDEN=1 writes both.
func TestOpenAPIIsMadeOfTheRoutesAndTheDocuments(t *testing.T) {
	var want bytes.Buffer
	enc := json.NewEncoder(&want)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(describe(t)); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"openapi.json", filepath.Join("..", "..", "docs", "openapi.json")} {
		if os.Getenv("UPDATE_GOLDEN") != "" {
			if err := os.WriteFile(file, want.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want.Bytes()) {
			t.Errorf("%s is not what the routes and documents are: UPDATE_GOLDEN=1 go test ./internal/api writes it", file)
		}
	}
}

func TestOpenAPIHasEveryRouteAndNoOther(t *testing.T) {
	w := newWorld(t)
	var routes []string
	for _, e := range w.endpoints() {
		routes = append(routes, e.method+" "+e.path)
	}
	described := slices.Collect(maps.Keys(operations()))
	slices.Sort(routes)
	slices.Sort(described)
	if !slices.Equal(routes, described) {
		t.Errorf("the routes are\n%s\nand the operations\n%s", strings.Join(routes, "\n"), strings.Join(described, "\n"))
	}
	ids := map[string]bool{}
	for route, op := range operations() {
		if ids[op.id] {
			t.Errorf("%s: there are two operations %s", route, op.id)
		}
		ids[op.id] = true
	}
	// What the daemon serves is the document.
	rec := w.request("GET", "/v1/openapi.json", "")
	var served, file any
	if err := json.Unmarshal(rec.Body.Bytes(), &served); err != nil || rec.Header().Get("Content-Type") != "application/json" {
		t.Fatalf("%v %v", err, rec.Header())
	}
	if err := json.Unmarshal(openAPI, &file); err != nil || !reflect.DeepEqual(served, file) {
		t.Errorf("another document is served: %v", err)
	}
}

// contract validates answers against the schemas of the served document, strictly: a key that
// is not described is an error.
type contract struct {
	document map[string]any
	compiler *jsonschema.Compiler
}

func newContract(t *testing.T) *contract {
	t.Helper()
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(openAPI))
	if err != nil {
		t.Fatal(err)
	}
	strict(document)
	c := &contract{document.(map[string]any), jsonschema.NewCompiler()}
	c.compiler.AssertFormat()
	if err := c.compiler.AddResource("http://relay/openapi.json", document); err != nil {
		t.Fatal(err)
	}
	return c
}

func strict(v any) {
	switch v := v.(type) {
	case map[string]any:
		if _, ok := v["properties"]; ok {
			v["additionalProperties"] = false
		}
		for _, inner := range v {
			strict(inner)
		}
	case []any:
		for _, inner := range v {
			strict(inner)
		}
	}
}

// check holds an answer of a route to what is said of it.
func (c *contract) check(method, path string, status int, kind string, body []byte) error {
	at := "/paths/" + strings.NewReplacer("~", "~0", "/", "~1", "{", "%7B", "}", "%7D").Replace(path) + "/" + strings.ToLower(method) + "/responses/" + statusText(status)
	answers := c.document["paths"].(map[string]any)[path].(map[string]any)[strings.ToLower(method)].(map[string]any)["responses"].(map[string]any)
	if answers[statusText(status)] == nil {
		at, kind = "/components/responses/Error", "application/json"
	}
	kind, _, _ = strings.Cut(kind, ";")
	schema, err := c.compiler.Compile("http://relay/openapi.json#" + at + "/content/" + strings.ReplaceAll(kind, "/", "~1") + "/schema")
	if err != nil {
		return err
	}
	if kind != "application/json" && kind != "application/x-ndjson" {
		return nil // a text
	}
	for line := range bytes.Lines(body) {
		if kind == "application/json" {
			line = body
		}
		document, err := jsonschema.UnmarshalJSON(bytes.NewReader(line))
		if err == nil {
			err = schema.Validate(document)
		}
		if err != nil || kind == "application/json" {
			return err
		}
	}
	return nil
}

func TestAnswersAreWhatOpenAPISays(t *testing.T) {
	c := newContract(t)
	met := map[string]bool{}
	validate := func(name string, w *world, method, target, body string) {
		t.Helper()
		rec := w.request(method, target, body)
		_, pattern := w.mux.Handler(httptest.NewRequest(method, target, nil))
		_, path, _ := strings.Cut(pattern, " ")
		if err := c.check(method, path, rec.Code, rec.Header().Get("Content-Type"), rec.Body.Bytes()); err != nil {
			t.Errorf("%s: %s %s answers %d: %v\n%s", name, method, path, rec.Code, err, rec.Body)
		}
		if rec.Code < 300 {
			met[pattern] = true
		}
	}
	w, ids := storyWorld(t)
	for name, target := range recorded(ids) {
		method, path, _ := strings.Cut(target, " ")
		validate(name, w, method, path, recordedBodies()[name])
	}
	again := w.store.add(backend, 20, delivery.Failed, nil)
	w.addEvent(20, func(*queue.EventRecord) {})
	for _, target := range []string{"POST /v1/deliveries/" + again + "/retry", "DELETE /v1/deliveries/" + ids["failed"], "DELETE /v1/replays/rep_1",
		"DELETE /v1/webhooks/expenses.backend", "GET /livez", "GET /metrics", "GET /v1/openapi.json", "POST /v1/webhooks/expenses.backend/replay"} {
		method, path, _ := strings.Cut(target, " ")
		validate(target, w, method, path, "")
	}
	for route := range operations() {
		method, path, _ := strings.Cut(route, " ")
		path = strings.NewReplacer("{id}", "nothing", "{generation}", "99").Replace(path)
		validate("an unknown parameter of "+route, w, method, path+"?nothing=1", "")
		if strings.Contains(route, "{") && strings.HasPrefix(route, "GET") {
			validate("nothing of "+route, w, method, path, "")
		}
	}
	w.store.stats.State = queue.StateStopped
	validate("stopped", w, "GET", "/livez", "")
	validate("stopped", w, "GET", "/readyz", "")
	for route, op := range operations() {
		// The stream does not end, and a backup of the fake does neither.
		if !met[route] && op.kind != "text/event-stream" && op.kind != "application/octet-stream" {
			t.Errorf("no success of %s was looked at", route)
		}
	}
}

// The check of the answers finds what it looks for.
func TestAnAnswerThatIsNotAsOpenAPISaysIsNoticed(t *testing.T) {
	c := newContract(t)
	w, ids := storyWorld(t)
	good := w.request("GET", "/v1/deliveries/"+ids["failed"], "").Body.String()
	if err := c.check("GET", "/v1/deliveries/{id}", http.StatusOK, "application/json", []byte(good)); err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{
		"a key more":       strings.Replace(good, `{"id"`, `{"more":1,"id"`, 1),
		"a key less":       strings.Replace(good, `"attempts":`, `"tries":`, 1),
		"another type":     strings.Replace(good, `"entry_id":"`, `"entry_id":1,"entry":"`, 1),
		"a state of none":  strings.Replace(good, `"status":"failed"`, `"status":"lost"`, 1),
		"a time of none":   strings.Replace(good, `"created_at":"20`, `"created_at":"x20`, 1),
		"a list that null": regexp.MustCompile(`"explanation":\[.*?\]`).ReplaceAllString(good, `"explanation":null`),
		"no JSON":          good[1:],
	} {
		if bad == good {
			t.Errorf("%s: nothing was changed in %s", name, good)
		}
		if err := c.check("GET", "/v1/deliveries/{id}", http.StatusOK, "application/json", []byte(bad)); err == nil {
			t.Errorf("%s was not noticed", name)
		}
	}
}
