package doctor

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/config"
	"github.com/peanutsapp/peanuts-relay/internal/egress"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

const (
	// patience bounds each name, connection and handshake.
	patience = 5 * time.Second
	// mostAddresses is how many addresses of a name are connected to.
	mostAddresses = 4
	// soon is before what a certificate should have been renewed: two thirds of the life
	// of the common ones are over long before.
	soon = 14 * 24 * time.Hour
)

// webhook goes the way of a delivery, step by step.
func (d *doctor) webhook(ctx context.Context, w *config.Webhook) {
	d.subject = w.ID
	d.state(w)
	if w.Sink == config.SinkHTTP {
		u, err := url.Parse(w.URL.Reveal())
		if err != nil || u.Hostname() == "" {
			d.bad(d.at(keyOf(w.ID, "url")...), "url", Failed, "the url cannot be used", "peanuts-relay check says what is wrong with it")
			return
		}
		if proxy, err := http.ProxyFromEnvironment(&http.Request{URL: u}); d.Status == nil && (err != nil || proxy != nil) {
			d.skip("dns", "requests go through the proxy of the environment, which finds the receiver")
		} else if !d.reach(ctx, w, u) {
			d.past(ctx, w)
			return
		}
	}
	d.ping(ctx, w)
	d.past(ctx, w)
}

// state is what the daemon says of the webhook.
func (d *doctor) state(w *config.Webhook) {
	if !w.Enabled {
		d.bad(d.at(keyOf(w.ID, "enabled")...), "state", Warning, "it is disabled: new events are not delivered", "peanuts-relay enable "+w.ID)
	}
	if d.Status == nil {
		return
	}
	for _, l := range d.Status.Webhooks {
		if l.Webhook != w.ID {
			continue
		}
		switch {
		case l.State == rest.WebhookHeld && l.HeldReason != "disabled":
			d.bad(d.at(keyOf(w.ID)...), "state", Failed, "it is held ("+l.HeldReason+"): "+plural(int(l.Counts.Pending), "delivery")+" wait", "peanuts-relay webhooks says why, peanuts-relay enable "+w.ID+" lets go what was held by hand")
		case l.Counts.Pending > 0:
			d.ok("state", "%s pending, %d failed in the log", plural(int(l.Counts.Pending), "delivery"), l.Counts.Failed)
		}
		return
	}
	if w.Enabled {
		d.bad(d.at(keyOf(w.ID)...), "state", Warning, "the daemon does not know it yet", "peanuts-relay reload")
	}
}

// reach looks up the name, connects to each address and shakes hands. It reports
// whether a request has a chance.
func (d *doctor) reach(ctx context.Context, w *config.Webhook, u *url.URL) bool {
	addrs := d.lookup(ctx, w, u)
	port := cmp.Or(u.Port(), map[string]string{"http": "80", "https": "443"}[strings.ToLower(u.Scheme)])
	reached := ""
	for _, addr := range addrs[:min(len(addrs), mostAddresses)] {
		target := netip.AddrPortFrom(addr, 0).Addr().String()
		began := time.Now()
		conn, err := (&net.Dialer{Timeout: patience}).DialContext(ctx, "tcp", net.JoinHostPort(target, port))
		if err != nil {
			d.bad(d.at(keyOf(w.ID, "url")...), "tcp", Failed, fmt.Sprintf("%s port %s: %s", target, port, dialWords(err)), dialFix(err, port))
			continue
		}
		_ = conn.Close()
		d.ok("tcp", "%s port %s in %s", target, port, time.Since(began).Round(100*time.Microsecond))
		reached = cmp.Or(reached, net.JoinHostPort(target, port))
	}
	if reached == "" {
		return false
	}
	return u.Scheme != "https" || d.handshake(ctx, w, u, reached)
}

// lookup resolves the receiver's name and says what the egress rules make of each
// address. It returns those that may be dialled.
func (d *doctor) lookup(ctx context.Context, w *config.Webhook, u *url.URL) (allowed []netip.Addr) {
	at := d.at(keyOf(w.ID, "url")...)
	policy, err := egress.New(d.Config.Egress.Allow)
	if err != nil {
		return nil // the check of the configuration has said so
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", u.Hostname())
	if err != nil {
		message := "the name " + u.Hostname() + " cannot be resolved"
		if e, ok := errors.AsType[*net.DNSError](err); ok {
			message += ": " + e.Err
		}
		d.bad(at, "dns", Failed, message, "correct the host of the url, or the machine's name server (resolvectl query "+u.Hostname()+")")
		return nil
	}
	control := policy.Control(u.Hostname())
	var refused []string
	for _, addr := range addrs {
		addr = addr.Unmap()
		network := "tcp6"
		if addr.Is4() {
			network = "tcp4"
		}
		if err := control(network, netip.AddrPortFrom(addr, 443).String(), nil); err != nil {
			refused = append(refused, strings.TrimPrefix(err.Error(), "refused: "))
			continue
		}
		allowed = append(allowed, addr)
	}
	switch {
	case len(allowed) == 0:
		fix := "egress.allow: [" + u.Hostname() + "] allows it"
		if allow := d.at("egress", "allow"); allow.File != "" {
			at = allow
		}
		d.bad(at, "dns", Failed, u.Hostname()+" may not be called: "+strings.Join(refused, "; "), fix+", unless it is an address that is never dialled")
	case len(refused) > 0:
		d.bad(at, "dns", Warning, u.Hostname()+" has addresses that are not called: "+strings.Join(refused, "; "), "egress.allow: ["+u.Hostname()+"] if they are meant")
	default:
		var names []string
		for _, a := range allowed {
			names = append(names, a.String())
		}
		if _, err := netip.ParseAddr(u.Hostname()); err == nil {
			d.ok("dns", "%s is an address, allowed by egress", u.Hostname())
			break
		}
		d.ok("dns", "%s is %s, allowed by egress", u.Hostname(), strings.Join(names, ", "))
	}
	return allowed
}

func dialWords(err error) string {
	if t, ok := errors.AsType[net.Error](err); ok && t.Timeout() {
		return "no answer within " + patience.String()
	}
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Err != nil {
		return e.Err.Error()
	}
	return err.Error()
}

func dialFix(err error, port string) string {
	switch text := dialWords(err); {
	case strings.Contains(text, "refused"):
		return "nothing listens on port " + port + " there: start the receiver, or correct the port of the url"
	case strings.Contains(text, "unreachable"):
		return "the machine has no route there: look at its network, and at IPv6 if that is an IPv6 address"
	}
	return "a firewall may drop it on the way, or the host is down"
}

// handshake looks at the receiver's certificates.
func (d *doctor) handshake(ctx context.Context, w *config.Webhook, u *url.URL, address string) bool {
	at := d.at(keyOf(w.ID, "url")...)
	c, err := tlsConfig(w, u)
	if err != nil {
		d.bad(d.at(keyOf(w.ID, "tls")...), "tls", Failed, err.Error(), "correct the files of tls")
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	state, err := shake(ctx, c, address)
	if err == nil {
		d.chain(at, state)
		return true
	}
	// Once more without verifying, to say what is wrong with the chain.
	open := c.Clone()
	open.InsecureSkipVerify = true // only looked at: nothing is sent on this connection
	seen, again := shake(ctx, open, address)
	if again != nil || len(seen.PeerCertificates) == 0 {
		d.bad(at, "tls", Failed, "no TLS connection: "+tlsWords(err), "is it https on that port? The receiver must speak TLS 1.2 or newer; if it asks for a certificate, tls.cert and tls.key name it")
		return false
	}
	leaf := seen.PeerCertificates[0]
	d.bad(at, "tls", Failed, tlsWords(err)+" (certificate of "+name(leaf)+", issued by "+issuer(leaf)+", valid until "+leaf.NotAfter.UTC().Format(time.DateOnly)+")", d.chainFix(err, leaf, u))
	return false
}

func shake(ctx context.Context, c *tls.Config, address string) (state tls.ConnectionState, err error) {
	conn, err := (&tls.Dialer{Config: c}).DialContext(ctx, "tcp", address)
	if err != nil {
		return state, err
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState(), nil // the documented type
}

// tlsConfig is what the http sink uses for the webhook.
func tlsConfig(w *config.Webhook, u *url.URL) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: strings.TrimSuffix(u.Hostname(), "."), NextProtos: []string{"http/1.1"},
		InsecureSkipVerify: w.TLS.InsecureSkipVerify} // #nosec G402 -- the file says so, and check warns of it
	if len(w.TLS.CAPEM) > 0 {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(w.TLS.CAPEM) {
			return nil, errors.New("tls.ca holds no PEM certificate")
		}
	}
	if len(w.TLS.CertPEM) > 0 {
		pair, err := tls.X509KeyPair(w.TLS.CertPEM, []byte(w.TLS.KeyPEM.Reveal()))
		if err != nil {
			return nil, errors.New("tls.cert and tls.key do not belong together")
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// chain says until when what was shown is valid: the whole chain ends with its first
// certificate to end.
func (d *doctor) chain(at Result, state tls.ConnectionState) {
	first := state.PeerCertificates[0]
	chain := state.PeerCertificates
	if len(state.VerifiedChains) > 0 {
		chain = state.VerifiedChains[0]
	}
	for _, c := range chain {
		if c.NotAfter.Before(first.NotAfter) {
			first = c
		}
	}
	left := first.NotAfter.Sub(d.Now())
	words := fmt.Sprintf("%s, certificate of %s by %s, valid until %s", tls.VersionName(state.Version), name(state.PeerCertificates[0]),
		issuer(state.PeerCertificates[0]), first.NotAfter.UTC().Format(time.DateOnly))
	switch {
	case left < 0: // only with insecure_skip_verify
		d.bad(at, "tls", Warning, words+": it has expired", "renew it at the receiver")
	case left < soon:
		d.bad(at, "tls", Warning, fmt.Sprintf("%s: %.0f days left", words, left.Hours()/24), "renew it at the receiver: every delivery fails from then on")
	default:
		d.ok("tls", "%s", words)
	}
}

func tlsWords(err error) string {
	var invalid x509.CertificateInvalidError
	var host x509.HostnameError
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &host):
		return "the certificate is for another name"
	case errors.As(err, &unknown):
		return "the certificate is signed by an authority that is not trusted"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "the certificate has expired, or is not valid yet"
	}
	return strings.TrimPrefix(dialWords(err), "tls: ")
}

func (d *doctor) chainFix(err error, leaf *x509.Certificate, u *url.URL) string {
	var host x509.HostnameError
	var unknown x509.UnknownAuthorityError
	switch {
	case d.Now().After(leaf.NotAfter):
		return "renew it at the receiver, and reload its server (certbot renew; systemctl reload nginx)"
	case d.Now().Before(leaf.NotBefore):
		return "is the clock of this machine right?"
	case errors.As(err, &host):
		return "the url must have a name that the certificate lists, or the certificate must list " + u.Hostname()
	case errors.As(err, &unknown):
		return "if it is a private authority, tls.ca names its file; if it is a public one, the receiver does not send the intermediate certificate (ssl_certificate needs the full chain)"
	}
	return "correct the certificate at the receiver"
}

func name(c *x509.Certificate) string {
	if len(c.DNSNames) > 0 {
		return strings.Join(c.DNSNames[:min(len(c.DNSNames), 3)], ", ")
	}
	return cmp.Or(c.Subject.CommonName, c.Subject.String())
}

func issuer(c *x509.Certificate) string {
	if c.Issuer.String() == c.Subject.String() {
		return "itself"
	}
	return cmp.Or(c.Issuer.CommonName, c.Issuer.String())
}
