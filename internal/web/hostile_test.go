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
