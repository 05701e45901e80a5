package sinktest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
	"github.com/peanutsapp/peanuts-relay/sinks"
)

// model is a sink that does everything right, written against the bare contract, so that
// each of its parts can be made wrong: what a test changes is what the suite has to find.
type model struct {
	sinkpb.UnimplementedSinkServer

	about    *sinkpb.DescribeResponse
	validate func(settings []byte) []*sinkpb.Diagnostic
	// deliver makes one delivery; batch makes the answer of them.
	network  func(*sinkpb.Delivery, error) *sinkpb.Result
	deliver  func(ctx context.Context, s *modelSettings, d *sinkpb.Delivery) *sinkpb.Result
	batch    func(ds []*sinkpb.Delivery, results []*sinkpb.Result) []*sinkpb.Result
	client   *http.Client
	classify func(*sinkpb.Delivery, *http.Response) *sinkpb.Result
	log      *slog.Logger

	describes, drains, health func(next func() error) error // around the calls
	configures                func(*sinkpb.ConfigureRequest) error
	closes                    func(s *modelSettings)
	unknown                   func(r *sinkpb.DeliverRequest) (*sinkpb.DeliverResponse, error)
	serial                    func(instance string) sync.Locker
	limit                     int    // of a message
	word                      string // of Health
	keepClosed, unwell        bool
	reverse                   bool

	flight sync.RWMutex // held by each call of Deliver

	mu        sync.Mutex
	instances map[string]*modelSettings
	asked     map[string]bool // instances that Configure was called for
	draining  bool
}

type modelSettings struct {
	URL     string `json:"url"`
	Token   string `json:"token"`
	Retries *int   `json:"retries"`
}

const modelSchema = `{
  "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object", "additionalProperties": false, "required": ["url", "token"],
  "properties": {
    "url": {"type": "string", "description": "where to POST", "writeOnly": true},
    "token": {"type": "string", "description": "proves who sends", "writeOnly": true},
    "retries": {"type": "integer", "description": "not used"}
  }
}`

func newModel() *model {
	m := &model{
		about: &sinkpb.DescribeResponse{Name: "model", Version: "1.0.0", Summary: "does everything right", Homepage: "https://example.com/model",
			SettingsSchema: []byte(modelSchema), Capabilities: &sinkpb.Capabilities{MaxBatch: 5, OrderedPerEntry: true, Idempotent: true, UsesState: true}},
		validate:  modelValidate,
		instances: map[string]*modelSettings{},
		asked:     map[string]bool{},
		limit:     maxSend,
		closes:    func(*modelSettings) {},
		serial:    func(string) sync.Locker { return new(sync.Mutex) },
		log:       slog.Default(),
		unknown: func(*sinkpb.DeliverRequest) (*sinkpb.DeliverResponse, error) {
			return nil, status.Error(codes.NotFound, "no such instance")
		},
		batch: func(_ []*sinkpb.Delivery, results []*sinkpb.Result) []*sinkpb.Result { return results },
	}
	m.client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	m.network = func(d *sinkpb.Delivery, _ error) *sinkpb.Result {
		return result(d, sinkpb.Outcome_OUTCOME_RETRY, "network", "no answer")
	}
	m.deliver, m.classify = m.post, classify
	pass := func(next func() error) error { return next() }
	m.describes, m.drains, m.health = pass, pass, pass
	m.configures = func(*sinkpb.ConfigureRequest) error { return nil }
	return m
}

func (m *model) server() *grpc.Server {
	s := grpc.NewServer(grpc.MaxRecvMsgSize(m.limit))
	sinkpb.RegisterSinkServer(s, m)
	return s
}

func wrong(path, summary string) *sinkpb.Diagnostic {
	return &sinkpb.Diagnostic{Severity: sinkpb.Severity_SEVERITY_ERROR, Path: path, Summary: summary}
}

func modelValidate(settings []byte) (found []*sinkpb.Diagnostic) {
	var object map[string]any
	if err := json.Unmarshal(settings, &object); err != nil || object == nil {
		return []*sinkpb.Diagnostic{wrong("", "is not a JSON object")}
	}
	for key := range object {
		if !slices.Contains([]string{"url", "token", "retries"}, key) {
			found = append(found, wrong("/"+key, "is unknown"))
		}
	}
	for _, key := range []string{"url", "token"} {
		switch value := object[key].(type) {
		case nil:
			found = append(found, wrong("/"+key, "is missing"))
		case string:
			if u, err := url.Parse(value); key == "url" && (err != nil || u.Host == "") {
				found = append(found, wrong("/url", "is no URL"))
			}
		default:
			found = append(found, wrong("/"+key, "is not a text"))
		}
	}
	if _, isNumber := object["retries"].(float64); object["retries"] != nil && !isNumber {
		found = append(found, wrong("/retries", "is not a number"))
	}
	return found
}

func (m *model) Describe(context.Context, *sinkpb.DescribeRequest) (d *sinkpb.DescribeResponse, err error) {
	err = m.describes(func() error {
		d = proto.CloneOf(m.about)
		return nil
	})
	return d, err
}

func (m *model) Validate(_ context.Context, r *sinkpb.ValidateRequest) (*sinkpb.ValidateResponse, error) {
	return &sinkpb.ValidateResponse{Diagnostics: m.validate(r.GetSettingsJson())}, nil
}

func (m *model) Configure(_ context.Context, r *sinkpb.ConfigureRequest) (*sinkpb.ConfigureResponse, error) {
	m.mu.Lock()
	m.asked[r.GetInstance()] = true
	m.mu.Unlock()
	if err := m.configures(r); err != nil {
		return nil, err
	}
	if found := modelValidate(r.GetSettingsJson()); len(found) > 0 {
		return &sinkpb.ConfigureResponse{Diagnostics: found}, nil
	}
	s := &modelSettings{}
	if err := json.Unmarshal(r.GetSettingsJson(), s); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.instances[r.GetInstance()] = s
	return &sinkpb.ConfigureResponse{}, nil
}

func (m *model) Close(_ context.Context, r *sinkpb.CloseRequest) (*sinkpb.CloseResponse, error) {
	m.mu.Lock()
	s := m.instances[r.GetInstance()]
	if !m.keepClosed {
		delete(m.instances, r.GetInstance())
	}
	m.mu.Unlock()
	if s != nil {
		m.closes(s)
	}
	return &sinkpb.CloseResponse{}, nil
}

func (m *model) Deliver(ctx context.Context, r *sinkpb.DeliverRequest) (*sinkpb.DeliverResponse, error) {
	m.mu.Lock()
	s := m.instances[r.GetInstance()]
	if m.draining {
		m.mu.Unlock()
		return nil, status.Error(codes.Unavailable, "draining")
	}
	m.flight.RLock()
	m.mu.Unlock()
	defer m.flight.RUnlock()
	if s == nil {
		return m.unknown(r)
	}
	alone := m.serial(r.GetInstance())
	alone.Lock()
	defer alone.Unlock()
	ds := slices.Clone(r.GetDeliveries())
	if m.reverse {
		slices.Reverse(ds)
	}
	var results []*sinkpb.Result
	for _, d := range ds {
		results = append(results, m.deliver(ctx, s, d))
	}
	return &sinkpb.DeliverResponse{Results: m.batch(r.GetDeliveries(), results)}, nil
}

func (m *model) Health(context.Context, *sinkpb.HealthRequest) (*sinkpb.HealthResponse, error) {
	err := m.health(func() error { return nil })
	return &sinkpb.HealthResponse{Healthy: !m.unwell, Message: m.word}, err
}

func (m *model) Drain(ctx context.Context, _ *sinkpb.DrainRequest) (*sinkpb.DrainResponse, error) {
	return &sinkpb.DrainResponse{}, m.drains(func() error {
		m.mu.Lock()
		m.draining = true
		m.mu.Unlock()
		m.flight.Lock()
		defer m.flight.Unlock()
		return nil
	})
}

// post is how the model delivers.
func (m *model) post(ctx context.Context, s *modelSettings, d *sinkpb.Delivery) (r *sinkpb.Result) {
	if !json.Valid(d.GetEntry().GetDataJson()) {
		return result(d, sinkpb.Outcome_OUTCOME_REJECTED, "bad_data", "the data are not JSON")
	}
	if strings.Contains(string(d.GetEntry().GetDataJson()), `"panic"`) {
		return result(d, sinkpb.Outcome_OUTCOME_RETRY, "panic", "it panicked")
	}
	body := fmt.Sprintf(`{"what":%q,"data":%s}`, d.GetEvent(), d.GetEntry().GetDataJson())
	return m.request(ctx, s, d, http.MethodPost, []byte(body))
}

func (m *model) request(ctx context.Context, s *modelSettings, d *sinkpb.Delivery, method string, body []byte) *sinkpb.Result {
	req, err := http.NewRequestWithContext(ctx, method, s.URL, bytes.NewReader(body))
	if err != nil {
		return result(d, sinkpb.Outcome_OUTCOME_MISCONFIGURED, "url", "the URL is wrong")
	}
	req.Header.Set("Authorization", "Bearer "+s.Token)
	req.Header.Set("Idempotency-Key", d.GetId())
	resp, err := m.client.Do(req)
	if err != nil {
		return m.network(d, err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)); err != nil {
		return result(d, sinkpb.Outcome_OUTCOME_RETRY, "network", "half an answer")
	}
	r := m.classify(d, resp)
	r.StatusCode = uint32(resp.StatusCode)
	if r.Outcome == sinkpb.Outcome_OUTCOME_DELIVERED && m.about.GetCapabilities().GetUsesState() {
		r.State = []byte("state of " + d.GetEntry().GetId())
	}
	return r
}

func classify(d *sinkpb.Delivery, resp *http.Response) *sinkpb.Result {
	switch code := resp.StatusCode; {
	case code < 300:
		return result(d, sinkpb.Outcome_OUTCOME_DELIVERED, "", "")
	case code == http.StatusTooManyRequests:
		r := result(d, sinkpb.Outcome_OUTCOME_RATE_LIMITED, "rate_limited", "too many")
		if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil {
			r.RetryAfter = durationpb.New(time.Duration(seconds) * time.Second)
		}
		return r
	case code == http.StatusUnauthorized, code == http.StatusForbidden:
		return result(d, sinkpb.Outcome_OUTCOME_MISCONFIGURED, "auth", "the token is refused")
	case code == http.StatusRequestTimeout, code >= 500:
		return result(d, sinkpb.Outcome_OUTCOME_RETRY, "status", "answered "+resp.Status)
	default:
		return result(d, sinkpb.Outcome_OUTCOME_REJECTED, "status", "answered "+resp.Status)
	}
}

func result(d *sinkpb.Delivery, o sinkpb.Outcome, code, message string) *sinkpb.Result {
	return &sinkpb.Result{DeliveryId: d.GetId(), Outcome: o, Code: code, Message: strings.TrimSpace(message)}
}

const modelToken = "tok-8d1f7c55"

func modelOptions() Options {
	return Options{
		Settings: func(remote string) any {
			return map[string]any{"url": remote + "/hooks/4f9a2b7e/x", "token": modelToken}
		},
		Bad: []BadSettings{{Name: "a URL without a host", Path: "/url", Settings: func(string) any {
			return map[string]any{"url": "http:///path", "token": modelToken}
		}}},
		Panic:    func(d *sinks.Delivery) { d.Entry.Data = json.RawMessage(`{"panic":true}`) },
		Patience: 8 * time.Second,
	}
}
