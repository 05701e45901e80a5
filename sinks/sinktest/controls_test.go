package sinktest

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
)

// control is one mistake of a sink, and the check that has to find it.
type control struct {
	check, mistake string
	make           func(*model)
}

// TestEachCheckFindsItsMistake makes the model wrong in one way at a time. Exactly the
// check that is about it has to fail: one that fails with others does not say what is
// wrong, and one that never fails says nothing.
func TestEachCheckFindsItsMistake(t *testing.T) {
	t.Parallel()
	list := slices.Concat(descriptionControls(), settingsControls(), deliveryControls(), timeControls(), answerControls(), secretControls())
	controlled := map[string]bool{}
	// Most of the time they wait, so that more run at a time than there are processors.
	results, room := make([]map[Status][]Result, len(list)), make(chan struct{}, 12)
	var wg sync.WaitGroup
	for n, c := range list {
		controlled[c.check] = true
		wg.Go(func() {
			room <- struct{}{}
			defer func() { <-room }()
			m := newModel()
			c.make(m)
			o := modelOptions()
			if c.check != "large" {
				o.Skip = map[string]string{"large": "it costs most of the time, and the model passes it"}
			}
			results[n] = outcomes(t, m, o)
		})
	}
	wg.Wait()
	for n, c := range list {
		t.Run(c.check+": "+c.mistake, func(t *testing.T) {
			failed := results[n][Failed]
			if got := names(failed); !slices.Equal(got, []string{c.check}) {
				t.Errorf("failed are %q, want %s alone", got, c.check)
				complain(t, failed)
			}
		})
	}
	for _, info := range Checks() {
		if !controlled[info.Name] && !info.Binary {
			t.Errorf("no control shows that the check %s can fail", info.Name)
		}
	}
}

func descriptionControls() []control {
	return []control{
		{"describe", "a name that no file can have", func(m *model) { m.about.Name = "No Name" }},
		{"describe", "no version", func(m *model) { m.about.Version = "" }},
		{"describe", "a summary of two lines", func(m *model) { m.about.Summary = "a\nb" }},
		{"describe", "a homepage that is none", func(m *model) { m.about.Homepage = "javascript:alert(1)" }},
		{"describe-is-pure", "another answer each time", func(m *model) {
			m.describes = func(next func() error) error { m.about.Version += "1"; return next() }
		}},
		{"schema", "a property without a description", func(m *model) { m.schema(`"description": "not used"`, `"title": "x"`) }},
		{"schema", "a reference to a file", func(m *model) {
			m.schema(`"description": "not used"`, `"description": "not used", "$ref": "file:///etc/passwd"`)
		}},
		{"schema", "not the good settings", func(m *model) {
			m.schema(`"additionalProperties": false`, `"additionalProperties": false, "maxProperties": 1`)
		}},
		{"schema-secrets", "a token for all to read", func(m *model) { m.schema(`"proves who sends", "writeOnly": true`, `"proves who sends"`) }},
		{"capabilities", "a negative rate", func(m *model) { m.about.Capabilities.MaxPerSecond = -1 }},
		{"capabilities", "an event that is none", func(m *model) {
			m.about.Capabilities.Events = []string{"entry.created", "entry.updated", "entry.deleted", "Everything"}
		}},
		{"capabilities", "a burst of nothing", func(m *model) { m.about.Capabilities.Burst = 5 }},
		{"capabilities", "a batch that never comes", func(m *model) { m.about.Capabilities.MaxBatchBytes = 64 << 20 }},
	}
}

func (m *model) schema(old, new string) {
	m.about.SettingsSchema = []byte(strings.Replace(string(m.about.SettingsSchema), old, new, 1))
}

// forgives leaves diagnostics out.
func (m *model) forgives(summary string) {
	m.validate = func(settings []byte) []*sinkpb.Diagnostic {
		return slices.DeleteFunc(modelValidate(settings), func(d *sinkpb.Diagnostic) bool { return strings.Contains(d.GetSummary(), summary) })
	}
}

// points makes the diagnostics with a summary point elsewhere.
func (m *model) points(summary, path string) {
	m.validate = func(settings []byte) []*sinkpb.Diagnostic {
		found := modelValidate(settings)
		for _, d := range found {
			if d.GetSummary() == summary {
				d.Path = path
			}
		}
		return found
	}
}

func settingsControls() []control {
	return []control{
		{"settings", "good ones are refused", func(m *model) {
			m.validate = func(settings []byte) []*sinkpb.Diagnostic {
				return append(modelValidate(settings), wrong("", "I do not like them"))
			}
		}},
		{"settings-unknown-key", "passed over", func(m *model) { m.forgives("is unknown") }},
		{"settings-unknown-key", "a path that does not exist", func(m *model) { m.points("is unknown", "/elsewhere") }},
		{"settings-unknown-key", "a path that is no pointer", func(m *model) { m.points("is unknown", "token") }},
		{"settings-missing", "not asked for", func(m *model) { m.forgives("is missing") }},
		{"settings-missing", "another one is asked for", func(m *model) { m.points("is missing", "/retries") }},
		{"settings-wrong-type", "taken", func(m *model) { m.forgives("is not a number") }},
		{"settings-wrong-type", "only the whole is blamed", func(m *model) { m.points("is not a number", "") }},
		{"settings-not-an-object", "taken", func(m *model) { m.forgives("is not a JSON object") }},
		{"settings-bad", "taken", func(m *model) {
			m.forgives("is no URL")
			m.configures = func(r *sinkpb.ConfigureRequest) error {
				r.SettingsJson = []byte(strings.Replace(string(r.SettingsJson), "http:///", "http://host/", 1))
				return nil
			}
		}},
		{"settings-bad", "something else is blamed", func(m *model) { m.points("is no URL", "/token") }},
		{"configure-refuses", "it does not", func(m *model) {
			m.configures = func(r *sinkpb.ConfigureRequest) error {
				r.SettingsJson = []byte(strings.Replace(string(r.SettingsJson), `"`+unknownKey+`":"x",`, "", 1))
				return nil
			}
		}},
		{"configure-refuses", "the call fails instead", func(m *model) {
			m.configures = func(r *sinkpb.ConfigureRequest) error {
				if len(modelValidate(r.GetSettingsJson())) > 0 {
					return errors.New("no")
				}
				return nil
			}
		}},
		{"instances", "closed ones go on", func(m *model) { m.keepClosed = true }},
		{"instances", "none can be replaced", func(m *model) {
			m.configures = func(r *sinkpb.ConfigureRequest) error {
				m.mu.Lock()
				defer m.mu.Unlock()
				if m.instances[r.GetInstance()] != nil {
					return errors.New("exists")
				}
				return nil
			}
		}},
		{"unknown-instance", "an attempt is used up", func(m *model) {
			notFound := m.unknown
			m.unknown = func(r *sinkpb.DeliverRequest) (*sinkpb.DeliverResponse, error) {
				m.mu.Lock()
				asked := m.asked[r.GetInstance()]
				m.mu.Unlock()
				if asked {
					return notFound(r)
				}
				return &sinkpb.DeliverResponse{Results: []*sinkpb.Result{result(r.GetDeliveries()[0], sinkpb.Outcome_OUTCOME_RETRY, "unknown", "")}}, nil
			}
		}},
		{"instances-are-independent", "one lock for all", func(m *model) {
			m.about.Capabilities.MaxConcurrency = 1
			all := &sync.Mutex{}
			m.serial = func(string) sync.Locker { return all }
		}},
	}
}

// delivers changes how deliveries are made: f gets how it is done well.
func (m *model) delivers(f func(d *sinkpb.Delivery, post func() *sinkpb.Result) *sinkpb.Result) {
	m.deliver = func(ctx context.Context, s *modelSettings, d *sinkpb.Delivery) *sinkpb.Result {
		return f(d, func() *sinkpb.Result { return m.post(ctx, s, d) })
	}
}

// answers changes the results of whole calls.
func (m *model) answers(f func(ds []*sinkpb.Delivery, results []*sinkpb.Result) []*sinkpb.Result) {
	m.batch = f
}

func deliveryControls() []control {
	retry := func(d *sinkpb.Delivery) *sinkpb.Result {
		return result(d, sinkpb.Outcome_OUTCOME_RETRY, "mistake", "a mistake")
	}
	return []control{
		{"events", "a user is needed", func(m *model) {
			m.delivers(func(d *sinkpb.Delivery, post func() *sinkpb.Result) *sinkpb.Result {
				if d.GetUser() == nil && strings.Contains(string(d.GetEntry().GetDataJson()), "amount") {
					return retry(d)
				}
				return post()
			})
		}},
		{"results", "one of something else", func(m *model) {
			m.answers(func(_ []*sinkpb.Delivery, results []*sinkpb.Result) []*sinkpb.Result {
				return append(results, &sinkpb.Result{DeliveryId: "del_other", Outcome: sinkpb.Outcome_OUTCOME_DELIVERED})
			})
		}},
		{"results", "too few for a batch that is too large", func(m *model) {
			m.answers(func(_ []*sinkpb.Delivery, results []*sinkpb.Result) []*sinkpb.Result {
				return results[:min(len(results), 5)]
			})
		}},
		{"results", "two for one", func(m *model) {
			m.answers(func(_ []*sinkpb.Delivery, results []*sinkpb.Result) []*sinkpb.Result {
				if len(results) == 5 {
					results = append(results, results[0])
				}
				return results
			})
		}},
		{"results", "a code of two words", m1(func(r *sinkpb.Result) { r.Code = "two words" })},
		{"results", "a novel", m1(func(r *sinkpb.Result) { r.Message = strings.Repeat("x", maxMessage+1) })},
		{"results", "a large state", m1(func(r *sinkpb.Result) { r.State = make([]byte, maxState+1) })},
		{"exact", "numbers through a float64", func(m *model) {
			m.deliver = func(ctx context.Context, s *modelSettings, d *sinkpb.Delivery) *sinkpb.Result {
				return m.rounded(ctx, s, d)
			}
		}},
		{"exact", "text that is not UTF-8 any more", func(m *model) {
			m.delivers(func(d *sinkpb.Delivery, post func() *sinkpb.Result) *sinkpb.Result {
				if d.GetEntry() == nil {
					return post()
				}
				d.Entry.DataJson = []byte(strings.ReplaceAll(string(d.GetEntry().GetDataJson()), "ü", "Ã¼"))
				return post()
			})
		}},
		{"large", "the usual limit of gRPC", func(m *model) { m.limit = 4 << 20 }},
		{"attempts", "only the first is made", func(m *model) {
			m.delivers(func(d *sinkpb.Delivery, post func() *sinkpb.Result) *sinkpb.Result {
				if d.GetAttempt() > 3 {
					return retry(d)
				}
				return post()
			})
		}},
		{"resend", "the service cannot know", func(m *model) {
			known := m.client.Transport
			m.client.Transport = roundTrip(func(r *http.Request) (*http.Response, error) {
				r.Header.Set("X-Entry", r.Header.Get("Idempotency-Key")[len("del_"):]) // for the check of the order
				r.Header.Del("Idempotency-Key")
				return known.RoundTrip(r)
			})
		}},
		{"order", "the last first", func(m *model) { m.reverse = true }},
		{"state", "none", func(m *model) {
			m.delivers(func(_ *sinkpb.Delivery, post func() *sinkpb.Result) *sinkpb.Result {
				r := post()
				r.State = nil
				return r
			})
		}},
		{"state", "its own is not understood", func(m *model) {
			m.delivers(func(d *sinkpb.Delivery, post func() *sinkpb.Result) *sinkpb.Result {
				if strings.HasPrefix(string(d.GetState()), "state of") {
					return retry(d)
				}
				return post()
			})
		}},
		{"state", "another one's is taken badly", func(m *model) {
			m.delivers(func(d *sinkpb.Delivery, post func() *sinkpb.Result) *sinkpb.Result {
				if s := string(d.GetState()); s != "" && !strings.HasPrefix(s, "state of") {
					return result(d, sinkpb.Outcome_OUTCOME_RETRY, "panic", "index out of range")
				}
				return post()
			})
		}},
		{"done-when-answered", "something is sent later", func(m *model) {
			m.closes = func(s *modelSettings) { m.request(context.Background(), s, &sinkpb.Delivery{}, http.MethodGet, nil) }
		}},
		{"unexpected", "a nil is not expected", func(m *model) {
			m.delivers(func(d *sinkpb.Delivery, post func() *sinkpb.Result) *sinkpb.Result {
				if d.GetEntry() == nil {
					return result(d, sinkpb.Outcome_OUTCOME_RETRY, "panic", "nil pointer")
				}
				return post()
			})
		}},
		{"panic", "it is taken for a success", func(m *model) {
			m.delivers(func(d *sinkpb.Delivery, post func() *sinkpb.Result) *sinkpb.Result {
				if strings.Contains(string(d.GetEntry().GetDataJson()), `"panic"`) {
					return result(d, sinkpb.Outcome_OUTCOME_DELIVERED, "", "")
				}
				return post()
			})
		}},
		{"panic", "it takes the whole batch with it", func(m *model) {
			m.answers(func(ds []*sinkpb.Delivery, results []*sinkpb.Result) []*sinkpb.Result {
				pill := func(d *sinkpb.Delivery) bool { return strings.Contains(string(d.GetEntry().GetDataJson()), `"panic"`) }
				if slices.ContainsFunc(ds, pill) {
					for n, d := range ds {
						results[n] = result(d, sinkpb.Outcome_OUTCOME_RETRY, "panic", "it panicked")
					}
				}
				return results
			})
		}},
	}
}

// m1 changes results of calls with as many deliveries as only the check of results makes.
func m1(f func(*sinkpb.Result)) func(*model) {
	return func(m *model) {
		m.answers(func(_ []*sinkpb.Delivery, results []*sinkpb.Result) []*sinkpb.Result {
			if len(results) == 6 {
				f(results[2])
			}
			return results
		})
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// rounded does what a decoder without UseNumber does.
func (m *model) rounded(ctx context.Context, s *modelSettings, d *sinkpb.Delivery) *sinkpb.Result {
	var data map[string]any
	if err := json.Unmarshal(d.GetEntry().GetDataJson(), &data); err != nil || data["panic"] != nil {
		return m.post(ctx, s, d)
	}
	body, err := json.Marshal(map[string]any{"data": data})
	if err != nil {
		return result(d, sinkpb.Outcome_OUTCOME_REJECTED, "bad_data", "")
	}
	return m.request(ctx, s, d, http.MethodPost, body)
}

func timeControls() []control {
	return []control{
		{"concurrent", "one at a time, without saying so", func(m *model) {
			locks := sync.Map{}
			m.serial = func(instance string) sync.Locker {
				lock, _ := locks.LoadOrStore(instance, &sync.Mutex{})
				return lock.(*sync.Mutex)
			}
		}},
		{"cancel", "the request goes on", func(m *model) {
			m.deliver = func(ctx context.Context, s *modelSettings, d *sinkpb.Delivery) *sinkpb.Result {
				if end, ok := ctx.Deadline(); ok && time.Until(end) > time.Minute {
					ctx = context.WithoutCancel(ctx)
				}
				return m.post(ctx, s, d)
			}
		}},
		{"deadline", "the request goes on", func(m *model) {
			m.deliver = func(ctx context.Context, s *modelSettings, d *sinkpb.Delivery) *sinkpb.Result {
				if end, ok := ctx.Deadline(); ok && time.Until(end) < 30*time.Second {
					ctx = context.WithoutCancel(ctx)
				}
				return m.post(ctx, s, d)
			}
		}},
		{"health", "never well", func(m *model) { m.unwell = true }},
		{"health", "no answer before there is an instance", func(m *model) {
			m.health = func(next func() error) error {
				m.mu.Lock()
				defer m.mu.Unlock()
				if len(m.instances) == 0 {
					return errors.New("nothing to ask")
				}
				return next()
			}
		}},
		{"health-while-busy", "it waits for its turn", func(m *model) {
			m.health = func(next func() error) error {
				m.flight.Lock()
				defer m.flight.Unlock()
				return next()
			}
		}},
		{"drain", "it waits for nothing", func(m *model) {
			m.drains = func(func() error) error {
				m.mu.Lock()
				defer m.mu.Unlock()
				m.draining = true
				return nil
			}
		}},
		{"drain", "it goes on afterwards", func(m *model) {
			m.drains = func(func() error) error {
				m.flight.Lock()
				defer m.flight.Unlock()
				return nil
			}
		}},
		{"recovers", "once bitten", func(m *model) {
			bitten := sync.Map{}
			m.deliver = func(ctx context.Context, s *modelSettings, d *sinkpb.Delivery) *sinkpb.Result {
				if _, was := bitten.Load(s); was {
					return result(d, sinkpb.Outcome_OUTCOME_RETRY, "sulks", "not again")
				}
				r := m.post(ctx, s, d)
				if r.GetStatusCode() >= 500 {
					bitten.Store(s, true)
				}
				return r
			}
		}},
	}
}
