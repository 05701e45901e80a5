package httpsink

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/peanutsapp/peanuts-relay/internal/delivery"
	"github.com/peanutsapp/peanuts-relay/internal/secret"
	"github.com/peanutsapp/peanuts-relay/internal/signing"
)

// Names of the headers that say what a request delivers.
const (
	headerContentType = "Content-Type"
	headerUserAgent   = "User-Agent"
	headerEvent       = "X-Peanuts-Event"
	headerEventID     = "X-Peanuts-Event-Id"
	headerDelivery    = "X-Peanuts-Delivery"
	headerAttempt     = "X-Peanuts-Attempt"
	headerTest        = "X-Peanuts-Test"
	headerReplay      = "X-Peanuts-Replay"

	contentType = "application/json"
)

// RequestHeaders lists the headers of a request in the order in which they are
// shown. own are the webhook's headers; one named Content-Type or User-Agent
// replaces the built-in value. Host and Content-Length, which every HTTP client
// adds itself, are left out. HTTP gives the order of headers no meaning
// (RFC 9110 section 5.3); on the wire they are sorted by name.
func RequestHeaders(o *delivery.Outbound, sigs, own []delivery.Header) []delivery.Header {
	list := make([]delivery.Header, 0, 8+len(sigs)+len(own))
	list = append(list, delivery.Header{Name: headerContentType, Value: contentType}, delivery.Header{Name: headerUserAgent, Value: DefaultUserAgent})
	list = append(list, sigs...)
	list = append(list,
		delivery.Header{Name: headerEvent, Value: o.EventType},
		delivery.Header{Name: headerEventID, Value: o.EventID},
		delivery.Header{Name: headerDelivery, Value: o.DeliveryID},
		delivery.Header{Name: headerAttempt, Value: strconv.Itoa(o.Attempt)})
	if o.Test {
		list = append(list, delivery.Header{Name: headerTest, Value: "true"})
	}
	if o.Replayed {
		list = append(list, delivery.Header{Name: headerReplay, Value: "true"})
	}
	for _, h := range own {
		if i := slices.IndexFunc(list[:2], func(b delivery.Header) bool { return strings.EqualFold(b.Name, h.Name) }); i >= 0 {
			list[i].Value = h.Value
			continue
		}
		list = append(list, h)
	}
	return list
}

// parseURL reads the webhook's URL. Errors of package url quote it, and a URL
// is a secret, so they are replaced.
func parseURL(s secret.String) (*url.URL, error) {
	text := s.Reveal()
	if text == "" {
		return nil, errors.New("url is missing")
	}
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, errors.New("url cannot be parsed: check the host, the port and the % escapes")
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, errors.New("url must start with http:// or https://")
	case u.Hostname() == "":
		return nil, errors.New("url has no host")
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return nil, errors.New("url has a port outside 1 to 65535")
		}
	}
	u.Fragment, u.RawFragment = "", ""
	u.Host = strings.TrimSuffix(u.Host, ":")
	return u, nil
}

func basicAuth(user *url.Userinfo) string {
	password, _ := user.Password()
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password))
}

// staticHeaders are the headers that all requests of a webhook share.
func staticHeaders(o *Options) (http.Header, error) {
	agent := o.UserAgent
	if agent == "" {
		agent = DefaultUserAgent
	}
	static := http.Header{headerContentType: {contentType}, headerUserAgent: {agent}}
	signatures := signatureNames(o.Signer)
	seen := make(map[string]bool)
	for _, h := range o.Headers {
		canonical := textproto.CanonicalMIMEHeaderKey(h.Name)
		if err := checkHeader(h, canonical, signatures); err != nil {
			return nil, err
		}
		if seen[canonical] {
			return nil, fmt.Errorf("header %s is there twice", h.Name)
		}
		seen[canonical] = true
		name := h.Name
		switch canonical {
		case headerContentType, headerUserAgent, "Authorization":
			name = canonical // net/http or we look these up in this form
		}
		static[name] = []string{h.Value.Reveal()}
	}
	return static, nil
}

func signatureNames(s *signing.Signer) []string {
	if s == nil {
		return nil
	}
	return s.HeaderNames()
}

// checkHeader refuses the names that net/http or the protocol owns
// (RFC 9110 section 7.6.1, RFC 9112) and those that we set ourselves.
func checkHeader(h Header, canonical string, signatures []string) error {
	switch canonical {
	case "Host", "Content-Length", "Transfer-Encoding", "Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authorization",
		"Te", "Trailer", "Upgrade", "Expect":
		return fmt.Errorf("header %s cannot be set: it belongs to the connection, not to the webhook", h.Name)
	}
	lower := strings.ToLower(h.Name)
	if strings.HasPrefix(lower, "x-peanuts-") || strings.HasPrefix(lower, "webhook-") ||
		slices.ContainsFunc(signatures, func(s string) bool { return strings.EqualFold(s, h.Name) }) {
		return fmt.Errorf("header %s cannot be set: the relay sets it itself", h.Name)
	}
	if h.Name == "" || strings.ContainsFunc(h.Name, func(r rune) bool { return !validNameRune(r) }) {
		return fmt.Errorf("header %q is not a valid header name", h.Name)
	}
	if strings.ContainsFunc(h.Value.Reveal(), func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
		return fmt.Errorf("the value of header %s has a control character, perhaps a line break at the end", h.Name)
	}
	return nil
}

// validNameRune is "tchar" of RFC 9110 section 5.6.2.
func validNameRune(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || strings.ContainsRune("!#$%&'*+-.^_`|~", r)
}

// shownRequest is the request as it may be shown.
func shownRequest(o *Options, u *url.URL) *delivery.Request {
	r := &delivery.Request{Method: http.MethodPost, URL: o.URL.Reference()}
	if o.URL.IsLiteral() {
		r.URL = u.Scheme + "://" + u.Host
		if u.RequestURI() != "/" || u.User != nil {
			r.URL += "/" + secret.Mask
		}
	}
	if o.UserAgent != "" && o.UserAgent != DefaultUserAgent {
		r.Headers = append(r.Headers, delivery.Header{Name: headerUserAgent, Value: o.UserAgent})
	}
	for _, h := range o.Headers {
		r.Headers = append(r.Headers, delivery.Header{Name: h.Name, Value: h.Value.Reference()})
	}
	return r
}
