package httpsink

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/egress"
	"github.com/peanutsapp/peanuts-relay/internal/httpsink/http1"
	"github.com/peanutsapp/peanuts-relay/internal/secret"
)

// fail judges an attempt that got no response.
func (s *Sink) fail(a *delivery.Attempt, at *attempt, err error) {
	a.Outcome = delivery.Retry
	switch ctxErr := at.over(); {
	case ctxErr == nil:
		a.Code, a.Error = s.classify(a, at, err)
		if a.Code == delivery.CodeForbiddenAddr {
			a.Outcome = delivery.Rejected
		}
	case errors.Is(ctxErr, context.DeadlineExceeded):
		a.Code, a.Error = delivery.CodeTimeout, "timed out after "+s.timeout.String()+" "+s.stage(a, at)
	default:
		a.Outcome, a.Code = delivery.Interrupted, delivery.CodeInterrupted
		a.Error = "interrupted " + s.stage(a, at)
		if errors.Is(context.Cause(at), delivery.ErrShutdown) {
			a.Error += ": the " + delivery.ErrShutdown.Error()
		}
	}
}

// stage says what the attempt was waiting for.
func (s *Sink) stage(a *delivery.Attempt, at *attempt) string {
	at.mu.Lock()
	defer at.mu.Unlock()
	switch {
	case at.given && at.sent:
		return "waiting for the response of " + s.peer(a)
	case at.given:
		return "sending the request to " + s.peer(a)
	case at.started.IsZero():
		return "before a connection was tried"
	case at.step != "":
		return at.step
	case at.control.IsZero() && s.proxy != nil:
		return "looking up the proxy " + s.proxy.host
	case at.control.IsZero():
		return "looking up " + s.url.Host
	case s.proxy != nil:
		return "connecting to the proxy " + s.peer(a)
	}
	return "connecting to " + s.peer(a)
}

// peer names the other end: the address when there is one.
func (s *Sink) peer(a *delivery.Attempt) string {
	if a.Remote != "" {
		return a.Remote
	}
	return s.url.Host
}

func (s *Sink) classify(a *delivery.Attempt, at *attempt, err error) (delivery.Code, string) {
	if fe, ok := errors.AsType[*egress.ForbiddenError](err); ok {
		return delivery.CodeForbiddenAddr, fe.Error()
	}
	if pe, ok := errors.AsType[*proxyError](err); ok {
		return delivery.CodeProxy, s.proxySentence(a, pe)
	}
	if de, ok := errors.AsType[*net.DNSError](err); ok {
		return delivery.CodeDNS, dnsSentence(de)
	}
	if sentence, ok := tlsSentence(err, s.url.Hostname()); ok {
		return delivery.CodeTLS, sentence
	}
	if oe, ok := errors.AsType[*net.OpError](err); ok && oe.Op == "dial" {
		return delivery.CodeConnect, s.reason(a, err)
	}
	if at.ended != nil {
		if sentence, ok := tlsSentence(at.ended, s.url.Hostname()); ok {
			return delivery.CodeTLS, sentence
		}
	}
	if brokenConnection(err) || (at.ended != nil && cutOff(err)) {
		return delivery.CodeConnection, s.broken(a, at, err)
	}
	return delivery.CodeProtocol, s.protocolSentence(err)
}

// reason tells why a connection was not made.
func (s *Sink) reason(a *delivery.Attempt, err error) string {
	peer := s.peer(a)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused by " + peer
	case errors.Is(err, syscall.EHOSTUNREACH):
		return "no route to host " + peer
	case errors.Is(err, syscall.ENETUNREACH):
		return "network of " + peer + " is unreachable"
	case errors.Is(err, syscall.ETIMEDOUT), errors.Is(err, os.ErrDeadlineExceeded):
		return peer + " did not answer the connection"
	case errors.Is(err, syscall.ECONNRESET):
		return "connection reset by " + peer
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return "this system is out of file descriptors"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "no local port or address to connect to " + peer
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return "connection to " + peer + " failed: " + errno.Error()
	}
	return "connection to " + peer + " failed: " + s.masker.line(err.Error())
}

func dnsSentence(e *net.DNSError) string {
	name := secret.Clean(e.Name, 253)
	switch {
	case e.IsNotFound:
		return "no such host: " + name
	case e.IsTimeout:
		return "the name servers did not answer for " + name
	}
	return "lookup of " + name + " failed: " + secret.Clean(e.Err, 200)
}

// proxySentence tells why a proxy did not carry the connection.
func (s *Sink) proxySentence(a *delivery.Attempt, e *proxyError) string {
	if e.err == nil {
		return e.Error()
	}
	var why string
	if de, ok := errors.AsType[*net.DNSError](e.err); ok {
		why = dnsSentence(de)
	} else if sentence, ok := tlsSentence(e.err, s.proxy.host); ok {
		why = strings.NewReplacer("the receiver", "the proxy", "name it in tls.ca", "add it to the authorities of the system",
			"name the authority in tls.ca", "add the authority to those of the system").Replace(sentence)
	} else if e.what == noProxy {
		why = s.reason(a, e.err)
	} else if brokenConnection(e.err) {
		why = "the proxy " + s.peer(a) + " " + ended(e.err) + " it"
	} else if s.proxy.socks5 {
		why = s.masker.line(strings.TrimPrefix(e.err.Error(), "unknown error "))
	} else {
		why = s.protocolSentence(e.err)
	}
	return e.what + ": " + why
}

// tlsSentence recognises what a handshake with the receiver at host and the
// verification of its certificate end with; also a refused client certificate, of
// which TLS 1.3 tells after the handshake.
func tlsSentence(err error, host string) (string, bool) {
	if e, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		return invalidSentence(e), true
	}
	if e, ok := errors.AsType[x509.HostnameError](err); ok {
		return hostnameSentence(e, host), true
	}
	if e, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		if e.Cert != nil && bytes.Equal(e.Cert.RawIssuer, e.Cert.RawSubject) {
			return "the certificate is self-signed; name it in tls.ca if that is right", true
		}
		return "the certificate is of an authority that this system does not trust; name the authority in tls.ca if that is right", true
	}
	if e, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		if string(e.RecordHeader[:]) == "HTTP/" {
			return "the receiver speaks plain HTTP on this port, not TLS", true
		}
		return "the receiver does not speak TLS on this port", true
	}
	if e, ok := errors.AsType[*net.OpError](err); ok {
		switch e.Op {
		case "remote error":
			return "the receiver refused the TLS connection: " + tlsText(e.Err), true
		case "local error":
			return "the TLS connection broke: " + tlsText(e.Err), true
		}
	}
	e, ok := errors.AsType[*handshakeError](err)
	switch {
	case !ok && !strings.HasPrefix(words(err), "tls: "):
		return "", false
	case ok && (errors.Is(err, io.EOF) || brokenConnection(e.err)):
		return "the connection was closed during the TLS handshake", true
	}
	return "the TLS handshake failed: " + tlsText(err), true
}

// words is the text of an error of which nothing else tells what it is. That of
// the network has a type, and making its text, with both addresses, is a third of
// the work of judging a connection that was reset.
func words(err error) string {
	if _, ok := err.(*net.OpError); ok {
		return ""
	}
	return err.Error()
}

func tlsText(err error) string { return secret.Clean(strings.TrimPrefix(err.Error(), "tls: "), 200) }

func invalidSentence(e x509.CertificateInvalidError) string {
	if e.Reason == x509.Expired && e.Cert != nil {
		if time.Now().Before(e.Cert.NotBefore) {
			return "the certificate is not valid before " + e.Cert.NotBefore.UTC().Format(time.DateOnly)
		}
		return "the certificate expired on " + e.Cert.NotAfter.UTC().Format(time.DateOnly)
	}
	return "the certificate is not valid: " + secret.Clean(strings.TrimPrefix(e.Error(), "x509: "), 200)
}

func hostnameSentence(e x509.HostnameError, host string) string {
	var names []string
	if e.Certificate != nil {
		names = append(names, e.Certificate.DNSNames...)
		for _, ip := range e.Certificate.IPAddresses {
			names = append(names, ip.String())
		}
	}
	if len(names) == 0 {
		return "the certificate names no host, so not " + host
	}
	const most = 4
	more := ""
	if len(names) > most {
		names, more = names[:most], ", …"
	}
	return "the certificate is for " + secret.Clean(strings.Join(names, ", ")+more, 300) + ", not for " + host
}

// brokenConnection reports whether err is about the connection, not about what
// came over it.
func brokenConnection(err error) bool {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, io.ErrClosedPipe) || errors.Is(err, os.ErrDeadlineExceeded) {
		return true
	}
	_, ok := errors.AsType[*net.OpError](err)
	return ok
}

// ended is how the other end ended a connection.
func ended(err error) string {
	if errors.Is(err, syscall.ECONNRESET) {
		return "reset"
	}
	return "closed"
}

// cutOff reports whether what net/http finds malformed can be the beginning of
// something right. On a connection that ended there it is.
func cutOff(err error) bool {
	text := words(err)
	return strings.Contains(text, "malformed MIME header") || strings.Contains(text, "malformed HTTP status code") ||
		strings.Contains(text, `malformed HTTP response "HTTP/`)
}

func (s *Sink) broken(a *delivery.Attempt, at *attempt, err error) string {
	when := "before an answer came"
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF), at.ended != nil && cutOff(err):
		when = "in the middle of the response headers"
	case !at.sent, errors.Is(err, syscall.EPIPE):
		when = "while the request was being sent"
	}
	return "the connection was " + ended(err) + " by " + s.peer(a) + " " + when
}

// protocolSentence explains what net/http says in words only.
func (s *Sink) protocolSentence(err error) string {
	text := err.Error()
	switch {
	case strings.Contains(text, "response headers exceeded"):
		return "the response headers exceed 64 KiB"
	case errors.Is(err, http1.ErrEarly):
		return "the proxy said more than its answer"
	case strings.Contains(text, "malformed HTTP"):
		return "the answer is not HTTP/1.1"
	case strings.Contains(text, "malformed MIME header"):
		return "the answer has a malformed header"
	case strings.Contains(text, "Content-Length"):
		return "the answer has a Content-Length that cannot be right"
	case strings.Contains(text, "transfer encoding"):
		return "the answer has a Transfer-Encoding that is not supported"
	}
	return "the answer breaks HTTP: " + s.masker.line(text)
}
