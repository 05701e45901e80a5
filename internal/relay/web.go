package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/peanutsapp/peanuts-relay/internal/web"
)

// listenWeb takes the address of the page; nil = it is off.
func (r *relay) listenWeb() (net.Listener, error) {
	address := r.boot.Listen.Web
	if address == "" {
		return nil, nil
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen.web: %w", err)
	}
	// A name is what the resolver says.
	if at, ok := l.Addr().(*net.TCPAddr); !ok || !at.IP.IsLoopback() {
		return nil, errors.Join(fmt.Errorf("listen.web: %s is %s, which other machines can reach; write 127.0.0.1", address, l.Addr()), l.Close())
	}
	return l, nil
}

// newWeb makes the server of the page, which is served on l. It is called after build.
func (r *relay) newWeb(l net.Listener) {
	host, _ := os.Hostname() // it only makes the name of a cookie more different
	r.webAddress = l.Addr().String()
	r.web = web.New(web.Options{API: r.api.Handler(), Token: r.boot.Listen.WebToken, Hosts: r.boot.Listen.WebHosts,
		Name: host + " " + r.boot.Queue.Dir, Logger: r.log})
	r.log.Info("the page is on", "url", "http://"+r.webAddress+"/")
}

// stopAPI stops both servers of the API at once: the streams of the page end with the API.
func (r *relay) stopAPI(ctx context.Context) error {
	if r.web == nil {
		return r.api.Shutdown(ctx)
	}
	page := make(chan error, 1)
	go func() { page <- r.web.Shutdown(ctx) }()
	return errors.Join(r.api.Shutdown(ctx), <-page)
}
