package sinktest

import (
	"net/http"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
)

func answerControls() []control {
	var list []control
	for _, name := range ownFaults() {
		f, _ := ownFault(name)
		if f.Status == 0 || name == faultRedirect {
			continue
		}
		list = append(list, control{"answer-" + name, "taken for something else", func(m *model) {
			m.classify = func(d *sinkpb.Delivery, resp *http.Response) *sinkpb.Result {
				r := classify(d, resp)
				if resp.StatusCode == f.Status {
					r.Outcome = sinkpb.Outcome_OUTCOME_SKIPPED
				}
				return r
			}
		}})
	}
	for name, text := range map[string]string{faultGarbage: "malformed", faultClosed: "EOF", faultRefused: "refused"} {
		list = append(list, control{"answer-" + name, "taken for final", func(m *model) {
			well := m.network
			m.network = func(d *sinkpb.Delivery, err error) *sinkpb.Result {
				r := well(d, err)
				if strings.Contains(err.Error(), text) {
					r.Outcome = sinkpb.Outcome_OUTCOME_REJECTED
				}
				return r
			}
		}})
	}
	changed := func(status int, f func(*sinkpb.Result)) func(*model) {
		return func(m *model) {
			m.classify = func(d *sinkpb.Delivery, resp *http.Response) *sinkpb.Result {
				r := classify(d, resp)
				if resp.StatusCode == status {
					f(r)
				}
				return r
			}
		}
	}
	return append(list,
		control{"answer-redirect", "followed", func(m *model) { m.client.CheckRedirect = nil }},
		control{"answer-429", "without the pause that was asked for", changed(429, func(r *sinkpb.Result) { r.RetryAfter = nil })},
		control{"answer-502", "a pause of a month", changed(502, func(r *sinkpb.Result) { r.RetryAfter = durationpb.New(30 * 24 * time.Hour) })},
		control{"answer-503", "without a word", changed(503, func(r *sinkpb.Result) { r.Code, r.Message = "", "" })},
	)
}

func secretControls() []control {
	return []control{
		{"secrets", "in its log", func(m *model) {
			m.delivers(func(_ *sinkpb.Delivery, post func() *sinkpb.Result) *sinkpb.Result {
				m.log.Info("delivering", "authorization", "Bearer "+modelToken)
				return post()
			})
		}},
		{"secrets", "in a message", func(m *model) {
			well := m.network
			m.network = func(d *sinkpb.Delivery, err error) *sinkpb.Result {
				r := well(d, err)
				r.Message = err.Error() // quotes the URL
				return r
			}
		}},
		{"secrets", "in a diagnostic", func(m *model) {
			m.validate = func(settings []byte) []*sinkpb.Diagnostic {
				found := modelValidate(settings)
				for _, d := range found {
					if d.GetPath() == "/token" {
						d.Detail = "it is " + string(settings)
					}
				}
				return found
			}
		}},
		{"secrets", "in how it is", func(m *model) {
			m.health = func(next func() error) error {
				m.word = "all is well with " + modelToken
				return next()
			}
		}},
	}
}
