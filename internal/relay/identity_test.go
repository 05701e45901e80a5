package relay

import (
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/config"
	"github.com/peanutsapp/peanuts-relay/internal/queue"
	"github.com/peanutsapp/peanuts-relay/internal/secret"
)

func TestTheIdentityOfAWebhookIsItsSinkAndHostWithPort(t *testing.T) {
	for _, c := range []struct{ sink, url, host string }{
		{"http", "https://API.Example.com/peanuts?k=1", "api.example.com:443"},
		{"http", "https://user:pw@api.example.com:443/other", "api.example.com:443"},
		{"http", "http://api.example.com/", "api.example.com:80"},
		{"http", "http://[::1]:8080/", "[::1]:8080"},
		{"sheets", "", ""},
	} {
		got := identity(&config.Webhook{Sink: c.sink, URL: secret.New(c.url)})
		if want := (queue.LaneIdentity{Sink: c.sink, Host: c.host}); got != want {
			t.Errorf("%q: %+v, want %+v", c.url, got, want)
		}
	}
}
