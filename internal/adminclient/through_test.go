package adminclient

import (
	"context"
	"errors"
	"io"
	"net/http"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

func TestAClientOfTheSameProcessMeetsTheHandler(t *testing.T) {
	type key struct{}
	var met []string
	c := Through(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.Context().Value(key{}) != "mine" {
			t.Errorf("%v, context %v", err, r.Context().Value(key{}))
		}
		met = append(met, r.Method+" "+r.RequestURI+" "+r.Header.Get("Content-Type")+" "+string(body))
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Path == "/v1/webhooks/a b/c" {
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"error":{"code":"not_found","message":"there is none","field":"id"}}`)
			return
		}
		_, _ = io.WriteString(w, `{"webhook":"a.b"}`)
	}))
	ctx := context.WithValue(t.Context(), key{}, "mine")
	if got, err := c.Test(ctx, "a.b", rest.TestRequest{Event: "created"}); err != nil || got.Webhook != "a.b" {
		t.Errorf("%+v %v", got, err)
	}
	_, err := c.Webhook(ctx, "a b/c")
	if refused, ok := errors.AsType[*Error](err); !ok || refused.Status != 404 || refused.Field != "id" {
		t.Errorf("%v", err)
	}
	want := []string{`POST /v1/webhooks/a.b/test application/json {"event":"created"}`, `GET /v1/webhooks/a%20b%2Fc  `}
	for i := range want {
		if i >= len(met) || met[i] != want[i] {
			t.Errorf("met %q, want %q", met, want)
			break
		}
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := c.Status(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
