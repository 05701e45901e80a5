package web

import (
	"fmt"
	"html"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	texttemplate "text/template"

	parser "golang.org/x/net/html"

	"github.com/peanutsapp/peanuts-relay/internal/browsertest"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
	"github.com/peanutsapp/peanuts-relay/internal/testhost"
)

// corpus are texts that run a script, load something or change the page where they are
// not escaped: each sets hit.
func corpus() []string {
	return []string{
		`<script>hit=1</script>`,
		`"><script>hit=1</script>`,
		`'><script>hit=1</script>`,
		`</script><script>hit=1</script>`,
		`</title></style></textarea></pre></select></noscript><script>hit=1</script>`,
		`<img src=x onerror=hit=1>`,
		`"><img src=x onerror="hit=1">`,
		`'><img src=x onerror='hit=1'>`,
		`<svg onload=hit=1>`,
		`<svg><script>hit=1</script></svg>`,
		`<body onload=hit=1>`,
		`<details open ontoggle=hit=1>`,
		`<input autofocus onfocus=hit=1>`,
		`" autofocus onfocus="hit=1" x="`,
		`' autofocus onfocus='hit=1' x='`,
		` onmouseover=hit=1 style=position:fixed;inset:0 `,
		`javascript:hit=1`,
		`java` + "\t" + `script:hit=1//`,
		`data:text/html,<script>parent.hit=1</script>`,
		`<a href="javascript:hit=1" id="main">x</a>`,
		`<iframe srcdoc="<script>parent.hit=1</script>"></iframe>`,
		`<object data="data:text/html,<script>parent.hit=1</script>"></object>`,
		`<base href="https://evil.example/">`,
		`<meta http-equiv="refresh" content="0;url=https://evil.example/">`,
		`<link rel="stylesheet" href="https://evil.example/x.css">`,
		`<style>@import "https://evil.example/x";*{display:none}</style>`,
		`<form action="https://evil.example/"><input name="form"><button>x`,
		`<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror=hit=1&gt;">`,
		`<noscript><p title="</noscript><img src=x onerror=hit=1>">`,
		`<scr` + "\x00" + `ipt>hit=1</scr` + "\x00" + `ipt>`,
		`＜script＞hit=1＜/script＞&lt;script&gt;hit=1&lt;/script&gt;&#60;script&#62;hit=1`,
		`{{constructor.constructor("hit=1")()}}${hit=1}{{template "top"}}`,
		`javascript:/*--></title></style></textarea></script></xmp><svg/onload='+/"/+/onmouseover=1/+/[*/[]/+hit=1//'>`,
		`--><!--><script>hit=1</script>`,
		`]]><script>hit=1</script>`,
		`\"><script>hit=1</script>\u003cscript\u003ehit=1`,
	}
}

// poison is a copy of a document in which every text, in every list and behind every
// pointer, is one of the corpus; which one turns with each. Words that decide what is
// shown stay when wise is set.
type poison struct {
	texts []string
	next  int
	wise  bool
}

func (p *poison) document(v any) any {
	in := reflect.ValueOf(v)
	out := reflect.New(in.Type()).Elem()
	out.Set(in)
	p.fill(out, "")
	return out.Interface()
}

func (p *poison) fill(v reflect.Value, name string) {
	if _, ok := v.Interface().(rest.Time); ok {
		return
	}
	switch v.Kind() {
	case reflect.String:
		if p.wise && slices.Contains([]string{"Status", "State", "Outcome", "Result", "Severity", "Sink", "HeldReason", "BodyEncoding", "Code"}, name) && v.String() != "" {
			return
		}
		v.SetString(p.texts[p.next%len(p.texts)])
		p.next++
	case reflect.Struct:
		for i := range v.NumField() {
			p.fill(v.Field(i), v.Type().Field(i).Name)
		}
	case reflect.Slice:
		list := reflect.MakeSlice(v.Type(), max(1, v.Len()), max(1, v.Len()))
		reflect.Copy(list, v)
		for i := range list.Len() {
			p.fill(list.Index(i), name)
		}
		v.Set(list)
	case reflect.Pointer:
		inner := reflect.New(v.Type().Elem())
		if !v.IsNil() {
			inner.Elem().Set(v.Elem())
		}
		p.fill(inner.Elem(), name)
		v.Set(inner)
	}
}

// poisoned is a demo that says nothing but the corpus, beginning with the text of number
// first; texts are others than the corpus.
func poisoned(first int, wise bool, texts ...string) *demo {
	d := newDemo()
	d.broken()
	if len(texts) == 0 {
		texts = corpus()
	}
	p := &poison{texts: texts, next: first, wise: wise}
	for _, name := range slices.Sorted(maps.Keys(d.answers)) {
		if name == "GET /v1/status" && wise {
			continue // its state decides whether there is a banner: see below
		}
		d.answers[name] = p.document(d.answers[name])
	}
	status := p.document(d.answers["GET /v1/status"]).(rest.Status)
	if wise {
		status.Config.State = rest.ConfigRejected
	}
	d.answers["GET /v1/status"] = status
	return d
}

// harmless walks through a page as a browser would take it, and says what it has that no
// page of ours has.
func harmless(page io.Reader) error {
	root, err := parser.Parse(page)
	if err != nil {
		return err
	}
	scripts := 0
	for n := range root.Descendants() {
		if n.Type != parser.ElementNode {
			continue
		}
		switch n.Data {
		case "script":
			scripts++
			if n.FirstChild != nil {
				return fmt.Errorf("a script with a text: %q", n.FirstChild.Data)
			}
		case "iframe", "object", "embed", "style", "base", "img", "math", "noscript", "template":
			return fmt.Errorf("an element %s", n.Data)
		}
		for _, a := range n.Attr {
			switch {
			case strings.HasPrefix(a.Key, "on"), a.Key == "style", a.Key == "srcdoc", a.Key == "http-equiv", a.Key == "formaction":
				return fmt.Errorf("an attribute %s of %s", a.Key, n.Data)
			case a.Key == "href" || a.Key == "src" || a.Key == "action":
				if !strings.HasPrefix(a.Val, "/") && a.Val != "#main" || strings.HasPrefix(a.Val, "//") || strings.HasPrefix(a.Val, "/\\") {
					return fmt.Errorf("%s of %s leads to %q", a.Key, n.Data, a.Val)
				}
			}
		}
	}
	if scripts != 1 {
		return fmt.Errorf("%d scripts", scripts)
	}
	return nil
}

// acts are the forms whose answers show documents.
func acts() map[string]string {
	return map[string]string{"test": "/webhooks/" + demoWebhook + "/test", "replay": "/webhooks/" + demoWebhook + "/replay"}
}

// Every field of every document is each text of the corpus once, and none is more than a
// text in any page.
func TestNoTextOfAnyFieldBecomesMarkup(t *testing.T) {
	cases := 0
	for first := range corpus() {
		for _, wise := range []bool{false, true} {
			d := poisoned(first, wise)
			s, _ := bare(Options{})
			s = New(Options{API: d, Token: s.Token})
			v := newVisitor(s)
			for name, target := range views() {
				w := v.get(target)
				if w.Code != 200 || w.Header().Get("Content-Security-Policy") != policy {
					t.Fatalf("%s: %d\n%s", name, w.Code, w.Body)
				}
				text := w.Body.String()
				if !strings.Contains(html.UnescapeString(text), "hit=1") {
					t.Errorf("%s shows nothing of the corpus", name)
				}
				if err := harmless(strings.NewReader(text)); err != nil {
					t.Errorf("%s with text %d first: %v", name, first, err)
				}
				cases++
			}
			for name, target := range acts() {
				if err := harmless(v.post(target, "").Body); err != nil {
					t.Errorf("%s with text %d first: %v", name, first, err)
				}
				cases++
			}
			// What a request says itself: queries, paths, ids, why something went wrong.
			bad := strings.NewReplacer("%", "%25", " ", "+", "\x00", "%00", "\t", "%09", "#", "%23", "&", "%26", "\\", "%5C", `"`, "%22", "<", "%3C", ">", "%3E", "{", "%7B", "}", "%7D", "/", "%2F", "?", "%3F", ";", "%3B").Replace(corpus()[first])
			for _, target := range []string{"/deliveries?status=" + bad + "&event=" + bad + "&since=" + bad + "&cursor=" + bad, "/deliveries/" + bad, "/events/" + bad, "/webhooks/" + bad, "/" + bad, "/login?next=%2F" + bad, "/?from=" + bad} {
				if wise {
					break
				}
				w := v.get(target)
				if w.Code == 303 {
					continue // logged in already
				}
				if err := harmless(w.Body); err != nil {
					t.Errorf("%s: %v", target, err)
				}
				cases++
			}
			s.sessions.close()
		}
	}
	testhost.Cases(t, cases)
}

// The same in a browser, which is the judge: nothing runs, nothing is asked for elsewhere.
// WEB_XSS is how many turns of the corpus are looked at.
func TestNoTextOfAnyFieldRunsInABrowser(t *testing.T) {
	t.Parallel()
	turns := 2
	if text := os.Getenv("WEB_XSS"); text != "" {
		var err error
		if turns, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	b := browsertest.Start(t)
	p := b.Page(t)
	cases := 0
	var d atomic.Pointer[demo]
	d.Store(newDemo())
	_, origin := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { d.Load().ServeHTTP(w, r) }))
	login(p, origin)
	for turn := range min(turns, len(corpus())) {
		d.Store(poisoned(turn*(len(corpus())/2+1), turn%2 == 0))
		for name, target := range views() {
			p.Open(origin + target)
			looked(t, p, name)
			cases++
		}
	}
	for _, url := range p.Requests() {
		if !strings.HasPrefix(url, origin) {
			t.Errorf("asked for %s", url)
		}
	}
	if e := p.Errors(); len(e) > 0 {
		t.Errorf("errors, which say that the policy had to step in: %q", e)
	}
	testhost.Cases(t, cases)
}

// looked fails when something of the corpus has run.
func looked(t *testing.T, p *browsertest.Page, name string) {
	t.Helper()
	// What waits for the focus, the mouse or a toggle gets it.
	p.Eval(`document.querySelectorAll("details").forEach(d => d.open = true), document.querySelectorAll("a, input, button").forEach(e => e.focus())`, nil)
	var hit bool
	p.Eval(`typeof hit !== "undefined"`, &hit)
	if hit || len(p.Dialogs()) > 0 {
		t.Errorf("%s: it ran", name)
	}
}

// raw makes pages without escaping.
func raw(s *Server) {
	s.pages = texttemplate.Must(texttemplate.New("").Funcs(functions()).ParseFS(files, "templates/*.html"))
}

// bareHeaders takes the policy away.
type bareHeaders struct{ http.ResponseWriter }

func (w bareHeaders) WriteHeader(status int) {
	w.Header().Del("Content-Security-Policy")
	w.ResponseWriter.WriteHeader(status)
}

func (w bareHeaders) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// The control: without escaping the texts are markup, for the parser and for the browser;
// and the policy alone keeps a browser from running them.
func TestWithoutEscapingTheTextsRunUnlessThePolicyForbidsIt(t *testing.T) {
	t.Parallel()
	// Others of the corpus would lead the browser away before it can be asked.
	d := poisoned(0, true, corpus()[0])
	s, origin := serve(t, d, raw)
	found := 0
	v := newVisitor(s)
	for _, target := range views() {
		if harmless(v.get(target).Body) != nil {
			found++
		}
	}
	if found != len(views()) {
		t.Errorf("without escaping %d of %d pages are found", found, len(views()))
	}
	b := browsertest.Start(t)
	p := b.Page(t)
	var hit bool
	guarded := func(origin string) bool {
		p.Do("Network.setCookie", map[string]any{"name": s.cookie, "value": strings.TrimPrefix(v.cookie, s.cookie+"="), "url": origin}, nil)
		p.Do("Page.navigate", map[string]any{"url": origin + "/deliveries"}, nil)
		p.Wait("document.readyState !== 'loading'")
		p.Eval(`typeof hit !== "undefined"`, &hit)
		return !hit
	}
	if !guarded(origin) {
		t.Error("the policy did not keep it from running")
	}
	inner := s.Handler()
	open := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { inner.ServeHTTP(bareHeaders{w}, r) }))
	defer open.Close()
	defer s.sessions.close() // with the updates of the page, which it would wait for
	if guarded(open.URL) {
		t.Error("without escaping and policy nothing ran: the corpus is worth nothing")
	}
	testhost.Cases(t, len(views())+2)
}

// The script puts newer parts of the page in by way of a document without scripts; what
// was text before is text after.
func TestWhatTheScriptPutsInStaysText(t *testing.T) {
	t.Parallel()
	b := browsertest.Start(t)
	p := b.Page(t)
	d := newDemo()
	_, origin := serve(t, d)
	login(p, origin)
	p.Open(origin + "/deliveries/" + demoFailed)
	bad := poisoned(0, true)
	d.mu.Lock()
	detail := bad.answers["GET /v1/deliveries/"+demoFailed].(rest.DeliveryDetail)
	detail.ID = demoFailed
	d.answers["GET /v1/deliveries/"+demoFailed] = detail
	d.mu.Unlock()
	p.Eval(`document.dispatchEvent(new Event("visibilitychange"))`, nil)
	p.Wait(`document.querySelector("div.why").innerText.includes("hit=1")`)
	looked(t, p, "delivery")
	if e := p.Errors(); len(e) > 0 {
		t.Errorf("errors: %q", e)
	}
}

// forms are all that change something, and what they ask the API for.
func forms() []string {
	return []string{"/webhooks/" + demoWebhook + "/test", "/webhooks/" + demoWebhook + "/enable", "/webhooks/" + demoWebhook + "/disable", "/webhooks/" + demoWebhook + "/replay",
		"/deliveries/" + demoFailed + "/retry", "/deliveries/" + demoFailed + "/discard", "/replays/rep_2/cancel", "/configuration/reload"}
}

// forged is a request that a browser could be made to send.
type forged struct {
	target, origin, site, method, kind string
	cookie, form                       bool
}

// allowed is whether such a request is one of the page's own.
func (f forged) allowed() bool {
	own := f.site == "same-origin" || f.site == "none" || f.site == "" && (f.origin == "" || f.origin == "http://127.0.0.1:8465")
	return own && f.cookie && f.form && f.method == "POST" && f.kind == "application/x-www-form-urlencoded"
}

func (f forged) send(h http.Handler, v *visitor) int {
	body := "go=1"
	if f.form {
		body += "&form=" + v.form
	}
	r := httptest.NewRequest(f.method, f.target, strings.NewReader(body))
	r.Host = "127.0.0.1:8465"
	set := func(name, value string) {
		if value != "" {
			r.Header.Set(name, value)
		}
	}
	set("Content-Type", f.kind)
	set("Origin", f.origin)
	set("Sec-Fetch-Site", f.site)
	if f.cookie {
		set("Cookie", v.cookie)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code
}

// matrix calls do with every combination.
func matrix(do func(forged)) {
	for _, target := range forms() {
		for _, method := range []string{"POST", "GET", "PUT", "PATCH", "DELETE"} {
			for _, origin := range []string{"", "http://127.0.0.1:8465", "http://127.0.0.1:9999", "http://localhost:8465", "https://evil.example", "null"} {
				for _, site := range []string{"", "same-origin", "same-site", "cross-site", "none"} {
					for _, kind := range []string{"application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x", "application/json"} {
						for _, who := range []int{0, 1, 2, 3} {
							do(forged{target, origin, site, method, kind, who&1 != 0, who&2 != 0})
						}
					}
				}
			}
		}
	}
}

func TestNoForgedRequestChangesAnything(t *testing.T) {
	d := newDemo()
	s, _ := bare(Options{})
	s = New(Options{API: d, Token: s.Token})
	defer s.sessions.close()
	h, v := s.Handler(), newVisitor(s)
	cases, allowed := 0, 0
	matrix(func(f forged) {
		before := len(d.changed)
		status := f.send(h, v)
		switch changed := len(d.changed) - before; {
		case f.allowed():
			allowed++
			if changed != 1 || status >= 400 {
				t.Errorf("%+v changed %d, %d", f, changed, status)
			}
		case changed != 0 || status < 300 && f.method != "GET":
			t.Errorf("%+v changed %d, %d", f, changed, status)
		default:
			cases++
		}
	})
	// REST, where a page of another origin has neither the cookie nor the header: and if it
	// had the header, it is refused for what it is.
	for _, method := range []string{"POST", "PATCH", "DELETE"} {
		for _, origin := range []string{"https://evil.example", "null", "http://127.0.0.1:9999"} {
			for _, headers := range [][]string{{"Cookie", v.cookie}, {"Authorization", "Bearer " + token, "Sec-Fetch-Site", "cross-site"}, {"Authorization", "Bearer " + token}, {}} {
				before := len(d.changed)
				if w := ask(h, method, "/v1/webhooks/"+demoWebhook+"/test", append([]string{"Origin", origin}, headers...)...); w.Code != 403 || len(d.changed) != before || code(t, w) != rest.CodeForbidden {
					t.Errorf("%s from %s with %v: %d", method, origin, headers, w.Code)
				}
				cases++
			}
		}
	}
	// Parts of the page do not go into others either.
	for _, site := range []string{"cross-site", "same-site"} {
		for mode, want := range map[string]int{"no-cors": 403, "cors": 403, "websocket": 403, "navigate": 200} {
			w := ask(h, "GET", "/deliveries", "Cookie", v.cookie, "Sec-Fetch-Site", site, "Sec-Fetch-Mode", mode, "Sec-Fetch-Dest", "document")
			if w.Code != want {
				t.Errorf("%s, %s: %d", site, mode, w.Code)
			}
			cases++
		}
		if w := ask(h, "GET", "/deliveries", "Cookie", v.cookie, "Sec-Fetch-Site", site, "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "iframe"); w.Code != 403 {
			t.Errorf("in a frame: %d", w.Code)
		}
		cases++
	}
	if allowed == 0 {
		t.Error("nothing is allowed")
	}
	testhost.Cases(t, cases)
}

// The control: without the check of the origin forged requests with the form of the
// session get through, and without the form's token those without it do.
func TestWithoutTheChecksForgedRequestsAreLetIn(t *testing.T) {
	d := newDemo()
	s, _ := bare(Options{})
	s = New(Options{API: d, Token: s.Token})
	defer s.sessions.close()
	s.guard.anyOrigin = true
	v := newVisitor(s)
	f := forged{target: forms()[0], origin: "https://evil.example", site: "cross-site", method: "POST", kind: "application/x-www-form-urlencoded", cookie: true, form: true}
	if f.send(s.Handler(), v) != 200 || len(d.changed) != 1 {
		t.Error("without the check of the origin it is refused, too: the matrix shows nothing of it")
	}
	f.form = false
	if f.send(s.Handler(), v) != 403 || len(d.changed) != 1 {
		t.Error("the token of the form does not stand alone")
	}
	v.s.sessions.find(strings.TrimPrefix(v.cookie, s.cookie+"="), true).form = ""
	if f.send(s.Handler(), v) != 200 || len(d.changed) != 2 {
		t.Error("without the token of the form it is refused, too")
	}
	testhost.Cases(t, 3)
}

// rebound are hosts that a page whose name was bound to this address would send.
func rebound() []string {
	return []string{"evil.example", "evil.example:8465", "127.0.0.1.evil.example:8465", "localhost.evil.example", "localhost.", "127.0.0.1.", "evil.localhost", "0.0.0.0:8465", "0:8465", "[::]:8465",
		"192.168.0.1:8465", "10.0.0.1", "169.254.169.254", "[fe80::1]:8465", "[::ffff:10.0.0.1]:8465", "2130706433:8465", "0x7f000001", "127.1:8465", "0177.0.0.1", "relay.example.com.evil.example",
		"evil.relay.example.com", "relay.example.com.", "relay.example.com@evil.example", "localhost@evil.example", "", ":8465", "localhost localhost", "evil.example#localhost", "[::1%eth0]:8465", "[127.0.0.1", "localhost:80:80", "xn--localhost-9za"}
}

func TestNoOtherHostIsAnswered(t *testing.T) {
	d := newDemo()
	s, _ := bare(Options{})
	s = New(Options{API: d, Token: s.Token, Hosts: []string{"relay.example.com"}})
	defer s.sessions.close()
	h, v := s.Handler(), newVisitor(s)
	cases := 0
	for _, host := range rebound() {
		for _, c := range [][]string{{"GET", "/"}, {"GET", "/login"}, {"GET", "/v1/status"}, {"POST", "/v1/reload"}, {"GET", "/livez"}, {"GET", "/live"}, {"POST", forms()[0]}} {
			w := ask(h, c[0], c[1], "Host", host, "Cookie", v.cookie, "Authorization", "Bearer "+token)
			if w.Code != 403 || strings.Contains(w.Body.String(), demoWebhook) {
				t.Errorf("%s %s for %q: %d", c[0], c[1], host, w.Code)
			}
			cases++
		}
	}
	if len(d.changed) != 0 {
		t.Errorf("changed: %q", d.changed)
	}
	for _, host := range []string{"localhost", "LOCALHOST:9000", "127.0.0.1", "127.0.0.1:1", "127.8.8.8:8465", "[::1]", "[::1]:8465", "relay.example.com", "Relay.Example.Com:443"} {
		if w := ask(h, "GET", "/", "Host", host, "Cookie", v.cookie); w.Code != 200 {
			t.Errorf("for %q: %d", host, w.Code)
		}
	}
	testhost.Cases(t, cases)
}

// A real browser sends the name that it was told, whatever address that has.
func TestABrowserThatWasReboundGetsNothing(t *testing.T) {
	t.Parallel()
	const name = "evil.example"
	b := browsertest.Start(t, name)
	for _, c := range []struct {
		open bool
		want string
	}{{false, "requests for the host \"evil.example"}, {true, "Log in"}} {
		_, origin := serve(t, newDemo(), func(s *Server) { s.guard.anyHost = c.open })
		p := b.Page(t)
		p.Open(strings.Replace(origin, "127.0.0.1", name, 1) + "/login")
		if text := p.Text("main"); !strings.Contains(text, c.want) {
			t.Errorf("with the check %v: %s", !c.open, text)
		}
		var asked bool
		p.Eval(`document.querySelector("#token") !== null`, &asked)
		if asked != c.open {
			t.Errorf("with the check %v, a token is asked for: %v", !c.open, asked)
		}
	}
	testhost.Cases(t, 2)
}

// Guesses come to an end soon, by form and by header, whatever else is sent with them.
func TestTheTokenIsNotGuessed(t *testing.T) {
	d := newDemo()
	s, _ := bare(Options{})
	s = New(Options{API: d, Token: s.Token})
	defer s.sessions.close()
	h := s.Handler()
	cases := 0
	guess := func(token string) int {
		r := httptest.NewRequest("POST", "/login", strings.NewReader("token="+token))
		r.Host = "localhost"
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("X-Forwarded-For", fmt.Sprintf("10.0.0.%d", cases%250))
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		cases++
		if w.Header().Get("Set-Cookie") != "" {
			t.Errorf("a session with %d", w.Code)
		}
		return w.Code
	}
	looked := 0
	for i := range 100 {
		if code := guess(token[:31] + strconv.Itoa(i%10)); code == 403 {
			looked++
		} else if code != 429 {
			t.Errorf("guess %d: %d", i, code)
		}
	}
	// One more may come while they are made.
	if looked < loginBurst-1 || looked > loginBurst+5 {
		t.Errorf("%d guesses were looked at", looked)
	}
	if code := guess(token); code != 429 {
		t.Errorf("the right one after too many: %d", code)
	}
	looked = 0
	for range 200 {
		if w := ask(h, "GET", "/v1/status", "Authorization", "Bearer guess"); w.Code == 401 {
			looked++
		}
		cases++
	}
	if looked < bearerBurst || looked > bearerBurst+10 {
		t.Errorf("%d headers were looked at", looked)
	}
	if len(d.changed) != 0 {
		t.Errorf("changed: %q", d.changed)
	}
	testhost.Cases(t, cases)
}

// The control: without the slowing down every guess is looked at.
func TestWithoutTheThrottleEveryGuessIsLookedAt(t *testing.T) {
	s, _ := bare(Options{})
	s.bearers.burst, s.bearers.left = 1e9, 1e9
	for range 200 {
		if w := ask(s.Handler(), "GET", "/v1/status", "Authorization", "Bearer guess"); w.Code != 401 {
			t.Fatalf("%d", w.Code)
		}
	}
	testhost.Cases(t, 200)
}
