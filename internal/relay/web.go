package relay

import (
	"context"
	"errors"
	"os"

	"github.com/peanutsapp/peanuts-relay/internal/web"
)

// startWeb serves listen.web, if there is one.
func (r *relay) startWeb() {
	host, _ := os.Hostname() // it only makes the name of a cookie more different
	page := web.New(web.Options{API: r.api.Handler(), Token: r.boot.Listen.WebToken, Hosts: r.boot.Listen.WebHosts,
		Name: host + " " + r.boot.Queue.Dir, Logger: r.log})
	r.web.local = true
	r.web.start(r.boot.Listen.Web, page.Serve, page.Shutdown)
}

// webAddress is where the page is: as configured, or with the port that was found.
func (r *relay) webAddress() string {
	if at := r.web.at.Load(); at != nil {
		return (*at).String()
	}
	return r.boot.Listen.Web
}

// stopAPI stops both servers of the API at once: the streams of the page end with the API.
func (r *relay) stopAPI(ctx context.Context) error {
	page := make(chan error, 1)
	go func() { page <- r.web.stop(ctx) }()
	return errors.Join(r.api.Shutdown(ctx), <-page)
}
