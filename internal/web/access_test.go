package web

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/browsertest"
	"github.com/peanutsapp/peanuts-relay/internal/testhost"
)

// violation is what axe-core finds.
type violation struct {
	ID, Impact, Help string
	Nodes            []struct{ HTML, FailureSummary string }
}

// serious are the findings of axe-core that keep somebody from using the page.
// rules are those to look at, as axe.run takes them; "" = all.
func serious(p *browsertest.Page, axe, rules string) (found []string) {
	p.Eval("window.axe ? 1 : ("+"() => {"+axe+"\n})()", nil)
	var all struct{ Violations []violation }
	p.Eval(`axe.run(document, {resultTypes: ["violations"]`+rules+`}).then(r => ({violations: r.violations.map(v => ({id: v.id, impact: v.impact, help: v.help, nodes: v.nodes.slice(0, 3).map(n => ({html: n.html, failureSummary: n.failureSummary}))}))}))`, &all)
	for _, v := range all.Violations {
		if v.Impact == "serious" || v.Impact == "critical" {
			found = append(found, fmt.Sprintf("%s (%s): %s: %+v", v.ID, v.Impact, v.Help, v.Nodes))
		}
	}
	return found
}

// axe-core finds nothing serious in any view, light, dark, and narrow.
func TestEveryViewIsUsableByEverybody(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile(filepath.Join(testhost.NodeModules(t, filepath.Join("testdata", "axe")), "axe-core", "axe.min.js"))
	if err != nil {
		t.Fatal(err)
	}
	axe := string(source)
	b := browsertest.Start(t)
	p := b.Page(t)
	d := newDemo()
	_, origin := serve(t, d)
	look := func(name string, narrow bool) {
		t.Helper()
		for _, dark := range []bool{false, true} {
			rules := ""
			switch {
			case narrow && dark:
				return // its colours are those of a wide one
			case narrow:
				rules = `, rules: {"color-contrast": {enabled: false}}`
			case dark:
				rules = `, runOnly: ["color-contrast"]`
			}
			p.View(map[bool]int{false: 1280, true: 360}[narrow], 900, dark)
			for _, found := range serious(p, axe, rules) {
				t.Errorf("%s, narrow %v, dark %v: %s", name, narrow, dark, found)
			}
		}
	}
	p.Open(origin + "/login")
	look("login", false)
	login(p, origin)
	d.broken()
	for _, name := range slices.Sorted(maps.Keys(views())) {
		p.Open(origin + views()[name])
		p.Eval(`document.querySelectorAll("details").forEach(d => d.open = true)`, nil)
		look(name, false)
		look(name, true)
	}
	p.Open(origin + "/nothing")
	look("trouble", false)
	p.Open(origin + "/webhooks/" + demoWebhook)
	p.Click("form[action$='/test'] button")
	p.Wait("document.querySelector('h1').innerText.startsWith('Test') && document.readyState === 'complete'")
	look("test", false)
	p.Open(origin + "/webhooks/" + demoWebhook)
	p.Click("form[action$='/replay'] button")
	p.Wait("document.querySelector('h1').innerText === 'Replay' && document.readyState === 'complete'")
	look("preview", false)

	// The control: what is wrong is found.
	p.Eval(`document.querySelector("h1").innerHTML = "<img src=x><input><span style='color:#ccc;background:#fff'>pale</span>"`, nil)
	if found := serious(p, axe, ""); len(found) < 2 {
		t.Errorf("of what is wrong it found %q", found)
	}
}

// Everything is reached by the keyboard, in the order in which it is read, and the focus is seen.
func TestTheKeyboardIsEnough(t *testing.T) {
	t.Parallel()
	b := browsertest.Start(t)
	p := b.Page(t)
	_, origin := serve(t, newDemo())
	login(p, origin)
	const here = `(e => e === document.body ? "" : (e.innerText || e.id || e.tagName).trim() + "|" + (getComputedStyle(e).outlineStyle !== "none") + "|" + e.getBoundingClientRect().height)(document.activeElement)`
	at := func() (name string) {
		t.Helper()
		var what string
		p.Eval(here, &what)
		name, rest, _ := strings.Cut(what, "|")
		if what != "" && (!strings.HasPrefix(rest, "true|") || strings.HasSuffix(rest, "|0")) {
			t.Errorf("the focus is not seen on %q", what)
		}
		return name
	}
	tabTo := func(name string) {
		t.Helper()
		for range 60 {
			p.Key("Tab")
			if at() == name {
				return
			}
		}
		t.Fatalf("%q is not reached; the focus is on %q", name, at())
	}
	p.Key("Tab")
	if name := at(); name != "Skip to the content" {
		t.Errorf("first is %q", name)
	}
	var order []string
	for _, name := range []string{"Overview", "Deliveries", "Replays", "Configuration", "find", "Find", "Log out", demoWebhook} {
		tabTo(name)
		order = append(order, name)
	}
	if len(order) != 8 {
		t.Errorf("%q", order)
	}
	p.Key("Enter")
	p.Wait("location.pathname === '/webhooks/" + demoWebhook + "' && document.readyState === 'complete'")
	// Past the head of the page at once.
	p.Key("Tab")
	p.Key("Enter")
	p.Wait("location.hash === '#main'")
	p.Key("Tab")
	if name := at(); name != "Overview" {
		t.Errorf("after the skip comes %q", name)
	}
	tabTo("Replay…")
	p.Key("Enter")
	tabTo("Count first")
	p.Key("Enter")
	p.Wait("document.querySelector('h1').innerText === 'Replay' && document.readyState === 'complete'")
	tabTo("Replay 37 deliveries")
	p.Key(" ")
	p.Wait("location.pathname === '/replays' && document.querySelector('.flash').innerText.includes('has begun')")
}

// A newer page takes the place of the older one part by part: what is open stays open,
// the focus stays, and what somebody types is left alone.
func TestUpdatesDisturbNobody(t *testing.T) {
	t.Parallel()
	b := browsertest.Start(t)
	p := b.Page(t)
	d := newDemo()
	_, origin := serve(t, d)
	login(p, origin)
	p.Open(origin + "/webhooks/" + demoWebhook)
	p.Eval(`document.querySelector(".drop").open = true`, nil)
	p.Fill("#f-since", "2h and more")
	other := poisoned(0, true, "another text")
	d.mu.Lock()
	d.answers["GET /v1/webhooks/"+demoWebhook+"/deliveries"] = other.answers["GET /v1/webhooks/"+demoWebhook+"/deliveries"]
	d.mu.Unlock()
	refresh := `document.dispatchEvent(new Event("visibilitychange"))`
	p.Eval(refresh, nil)
	p.Wait(`document.querySelector("#log").innerText.includes("another text")`)
	var kept bool
	p.Eval(`document.querySelector("#f-since").value === "2h and more" && document.activeElement.id === "f-since" && document.querySelector(".drop").open`, &kept)
	if !kept {
		t.Error("what was typed or open is gone")
	}
	p.Open(origin + "/deliveries/" + demoFailed)
	p.Eval(`document.querySelectorAll(".attempt")[1].open = true, document.querySelectorAll(".attempt")[0].open = false, document.querySelector("#retry").focus(), 1`, nil)
	d.mu.Lock()
	detail := d.detail()
	detail.Status, detail.Explanation, detail.Log[0].RuleText = "pending", []string{"It is due now."}, "another sentence"
	d.answers["GET /v1/deliveries/"+demoFailed] = detail
	d.mu.Unlock()
	p.Eval(refresh, nil)
	p.Wait(`document.querySelector("div.why").innerText === "It is due now." && document.querySelector("#log").innerText.includes("another sentence")`)
	p.Eval(`document.activeElement.id === "retry" && document.activeElement.innerText === "Retry now" && document.querySelectorAll(".attempt")[1].open && !document.querySelectorAll(".attempt")[0].open`, &kept)
	if !kept {
		t.Error("the focus or what was open is gone")
	}
	if said := p.Text("#said"); said != "Delivery is pending, 2 attempts" {
		t.Errorf("it is said: %q", said)
	}
}
