package relay

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/browsertest"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

// The whole way of an operator: a delivery fails, the page says why, the receiver is put
// right, a replay sends it again, and the page that was open all the time shows it. What
// the receiver and the sender say is hostile all along, and stays text.
func TestAnOperatorFollowsAFailureToItsReasonAndReplaysIt(t *testing.T) {
	b := browsertest.Start(t)
	const script = `<script>window.hit=1</script><img src=x onerror="window.hit=2">`
	var fixed atomic.Bool
	rc := receive(t, func(w http.ResponseWriter, _ *http.Request, _ string) {
		if !fixed.Load() {
			w.Header().Set("X-Mood", script)
			w.WriteHeader(http.StatusUnprocessableEntity)
			fmt.Fprint(w, "the category is unknown "+script)
		}
	})
	h := newHome(t)
	d := h.launch(h.webText(`helpers: {expenses: {name: 'Expenses ` + script + `', secret: 0123456789abcdef01234567,
  webhooks: {backend: {url: "` + rc.URL + `/hook"}}}}
`))
	<-d.ready
	entry := "lunch " + script
	encoded, err := json.Marshal(map[string]any{"event": "entry.created", "helper": "expenses", "entry": map[string]any{"id": entry, "data": map[string]any{"note": script}}})
	if err != nil {
		t.Fatal(err)
	}
	if status, answer := h.post(string(encoded)); status != http.StatusAccepted {
		t.Fatalf("%d %s", status, answer)
	}
	failed := d.row("expenses.backend", "a failure", hasStatus(rest.StatusFailed))
	status, err := d.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	origin := "http://" + status.Listen.Web

	p := b.Page(t)
	p.Open(origin + "/webhooks/expenses.backend?status=failed")
	p.Wait("location.pathname === '/login'")
	p.Fill("#token", webToken)
	p.Key("Enter")
	// The login leads to where one was going: to the failure, and on to its reason.
	p.Wait("location.search === '?status=failed' && document.querySelector('#log tbody a')")
	p.Click("#log tbody a[href^='/deliveries/']")
	p.Wait("location.pathname === '/deliveries/" + failed.ID + "' && document.readyState === 'complete'")
	for selector, want := range map[string][]string{
		"div.why":  {"Given up", "HTTP 422: 4xx is final; add 422 to retry.also_on"},
		"#log":     {"HTTP 422", "the category is unknown " + script, "X-Mood: " + script, "POST " + rc.URL},
		".facts":   {entry},
		"h1":       {"failed"},
		"main pre": {"POST"},
	} {
		text := p.Text(selector)
		for _, words := range want {
			if !strings.Contains(text, words) {
				t.Errorf("%s does not say %q, but\n%s", selector, words, text)
			}
		}
	}
	p.Wait("document.getElementById('live').innerText === 'live'")
	p.Eval("window.mark = 1", nil)

	// In another tab: the receiver is put right, and what failed is counted and replayed.
	fixed.Store(true)
	var opened struct{ Cookies []map[string]any }
	p.Do("Network.getCookies", map[string]any{}, &opened)
	other := b.Page(t)
	for _, c := range opened.Cookies {
		other.Do("Network.setCookie", map[string]any{"name": c["name"], "value": c["value"], "url": origin}, nil)
	}
	other.Open(origin + "/webhooks/expenses.backend")
	other.Click(".drop > summary")
	other.Click(".drop form button")
	other.Wait("document.querySelector('h1').innerText === 'Replay' && document.readyState === 'complete'")
	if text := other.Text("main"); !strings.Contains(text, "1 delivery of expenses.backend would be put back") {
		t.Errorf("the preview says\n%s", text)
	}
	other.Click("form.actions button")
	other.Wait("location.pathname === '/replays' && document.querySelector('tbody tr')")

	// The first one shows it without being loaded again, and says so to who does not see.
	p.Wait("document.querySelector('h1 .badge').innerText === 'delivered'")
	p.Wait("document.getElementById('said').innerText.startsWith('Delivery is delivered, 2 attempts')")
	p.Wait("document.querySelectorAll('#log details').length === 2")
	p.Wait("document.querySelector('#log details .badge').innerText === 'delivered'")
	other.Wait("document.querySelector('tbody .badge').innerText === 'done'")
	other.Open(origin + "/webhooks/expenses.backend")
	if text := other.Text("#charts"); !strings.Contains(text, "1 delivered") || !strings.Contains(text, "1 failed") {
		t.Errorf("the charts say\n%s", text)
	}
	other.Open(origin + "/events/" + failed.EventID)
	other.Open(origin + "/")
	if text := other.Text("h2"); !strings.Contains(text, script) {
		t.Errorf("the name of the helper is %q", text)
	}
	for _, page := range []*browsertest.Page{p, other} {
		var hit, mark any
		page.Eval("window.hit", &hit)
		page.Eval("window.mark", &mark)
		if hit != nil || len(page.Dialogs()) > 0 || len(page.Errors()) > 0 {
			t.Errorf("something ran: %v %q %q", hit, page.Dialogs(), page.Errors())
		}
		if page == p && mark != float64(1) {
			t.Error("the page was loaded again")
		}
	}
	d.stop()
}

// A browser without script does everything, too: only the updates are missing.
func TestThePageWorksWithoutScript(t *testing.T) {
	b := browsertest.Start(t)
	rc := receive(t, nil)
	h := newHome(t)
	d := h.launch(h.webText(helperWith(rc.URL, "")))
	<-d.ready
	status, err := d.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p := b.Page(t)
	p.Do("Emulation.setScriptExecutionDisabled", map[string]any{"value": true}, nil)
	p.Open("http://" + status.Listen.Web + "/webhooks/expenses.backend")
	p.Fill("#token", webToken)
	p.Key("Enter")
	p.Wait("location.pathname === '/webhooks/expenses.backend' && document.readyState === 'complete'")
	p.Click("form[action$='/disable'] button")
	p.Wait("document.querySelector('.flash') && document.querySelector('h1').innerText.includes('held: disabled')")
	if hook, err := d.Webhook(t.Context(), "expenses.backend"); err != nil || hook.Enabled {
		t.Errorf("%+v %v", hook, err)
	}
	p.Click("form[action$='/enable'] button")
	p.Wait("document.querySelector('h1').innerText.includes('active')")
	p.Click("form[action$='/test'] button")
	p.Wait("document.querySelector('h1').innerText.startsWith('Test')")
	if text := p.Text("main"); !strings.Contains(text, "delivered") || !strings.Contains(text, "HTTP 200") {
		t.Errorf("the test says\n%s", text)
	}
	if g := rc.next(t); g.header.Get("X-Peanuts-Test") != "true" {
		t.Errorf("%v", g.header)
	}
	d.stop()
}
