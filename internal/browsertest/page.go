package browsertest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// Page is a tab with cookies of its own. It fails its test when something does not work.
type Page struct {
	t       testing.TB
	b       *Browser
	session string

	mu       sync.Mutex // guards the following
	dialogs  []string
	requests []string
	errors   []string
}

// object is what calls have for parameters.
type object = map[string]any

// Page opens a tab, 1280 by 900 and light.
func (b *Browser) Page(t testing.TB) *Page {
	t.Helper()
	p := &Page{t: t, b: b}
	var made struct{ BrowserContextID, TargetID, SessionID string }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(b.call("", "Target.createBrowserContext", object{}, &made))
	must(b.call("", "Target.createTarget", object{"url": "about:blank", "browserContextId": made.BrowserContextID}, &made))
	must(b.call("", "Target.attachToTarget", object{"targetId": made.TargetID, "flatten": true}, &made))
	p.session = made.SessionID
	b.mu.Lock()
	b.pages[p.session] = p
	b.mu.Unlock()
	for _, domain := range []string{"Page", "Network", "Runtime", "Log"} {
		must(b.call(p.session, domain+".enable", object{}, nil))
	}
	p.View(1280, 900, false)
	t.Cleanup(func() {
		_ = b.call("", "Target.disposeBrowserContext", object{"browserContextId": made.BrowserContextID}, nil)
	})
	return p
}

// event notes what the page did without being asked.
func (p *Page) event(method string, params json.RawMessage) {
	var e struct {
		Message string
		Type    string
		Request struct{ URL string }
		Entry   struct{ Level, Text, URL string }
		Details struct {
			Text      string
			Exception struct{ Description string }
		} `json:"exceptionDetails"`
	}
	if json.Unmarshal(params, &e) != nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch method {
	case "Page.javascriptDialogOpening":
		p.dialogs = append(p.dialogs, e.Message)
		// Its answer is waited for by nobody: this is the goroutine that reads answers.
		_, _ = p.b.send(p.session, "Page.handleJavaScriptDialog", object{"accept": false})
	case "Network.requestWillBeSent":
		p.requests = append(p.requests, e.Request.URL)
	case "Runtime.exceptionThrown":
		p.errors = append(p.errors, e.Details.Text+" "+e.Details.Exception.Description)
	case "Log.entryAdded":
		if e.Entry.Level == "error" {
			p.errors = append(p.errors, e.Entry.Text+" "+e.Entry.URL)
		}
	}
}

// Dialogs, Requests and Errors are what the page did since it was opened: messages of
// alert and the like, URLs that it asked for, and errors of scripts and policies.
func (p *Page) Dialogs() []string { return p.copy(&p.dialogs) }

// Requests: see Dialogs.
func (p *Page) Requests() []string { return p.copy(&p.requests) }

// Errors: see Dialogs.
func (p *Page) Errors() []string { return p.copy(&p.errors) }

func (p *Page) copy(list *[]string) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), *list...)
}

// Do is one call of the Chrome DevTools Protocol.
func (p *Page) Do(method string, params object, out any) {
	p.t.Helper()
	if err := p.b.call(p.session, method, params, out); err != nil {
		p.t.Fatal(err)
	}
}

// View sets the size of the window, and whether the system is dark.
func (p *Page) View(width, height int, dark bool) {
	p.t.Helper()
	scheme := "light"
	if dark {
		scheme = "dark"
	}
	p.Do("Emulation.setDeviceMetricsOverride", object{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}, nil)
	p.Do("Emulation.setEmulatedMedia", object{"features": []object{{"name": "prefers-color-scheme", "value": scheme}, {"name": "prefers-reduced-motion", "value": "reduce"}}}, nil)
}

// Open goes to a URL and waits until it is loaded.
func (p *Page) Open(url string) {
	p.t.Helper()
	var went struct{ ErrorText string }
	p.Do("Page.navigate", object{"url": url}, &went)
	if went.ErrorText != "" {
		p.t.Fatalf("open %s: %s", url, went.ErrorText)
	}
	p.Wait("document.readyState === 'complete'")
}

// try evaluates an expression; a promise is waited for.
func (p *Page) try(expression string, out any) error {
	var got struct {
		Result struct {
			Value json.RawMessage
		}
		ExceptionDetails *struct {
			Text      string
			Exception struct{ Description string }
		}
	}
	if err := p.b.call(p.session, "Runtime.evaluate", object{"expression": expression, "returnByValue": true, "awaitPromise": true}, &got); err != nil {
		return err
	}
	if e := got.ExceptionDetails; e != nil {
		return fmt.Errorf("%s %s", e.Text, e.Exception.Description)
	}
	if out == nil || got.Result.Value == nil {
		return nil
	}
	return json.Unmarshal(got.Result.Value, out)
}

// Eval evaluates an expression and fills in out, unless that is nil.
func (p *Page) Eval(expression string, out any) {
	p.t.Helper()
	if err := p.try(expression, out); err != nil {
		p.t.Fatalf("%s: %v", expression, err)
	}
}

// Text is the text of the first element that a selector finds, as it is seen.
func (p *Page) Text(selector string) (text string) {
	p.t.Helper()
	p.Eval("document.querySelector("+quote(selector)+").innerText", &text)
	return text
}

// Wait waits until an expression is true. One that fails, as it does while a page is
// replaced by another, is not.
func (p *Page) Wait(expression string) {
	p.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); <-tick.C {
		var ok bool
		if err = p.try("!!("+expression+")", &ok); err == nil && ok {
			return
		}
	}
	var at string
	_ = p.try("location.href+'\\n'+document.body.innerText", &at)
	p.t.Fatalf("it did not become true: %s: %v; the page is\n%s\nerrors: %q", expression, err, at, p.Errors())
}

// Click clicks on the first element that a selector finds.
func (p *Page) Click(selector string) {
	p.t.Helper()
	p.Eval(`document.querySelector(`+quote(selector)+`).click()`, nil)
}

// Fill types a text into an empty field.
func (p *Page) Fill(selector, text string) {
	p.t.Helper()
	p.Eval(`document.querySelector(`+quote(selector)+`).focus()`, nil)
	p.Do("Input.insertText", object{"text": text}, nil)
}

// Key presses a key: Tab, Enter, or a space.
func (p *Page) Key(name string) {
	p.t.Helper()
	code, text := map[string]int{"Tab": 9, "Enter": 13, " ": 32}[name], map[string]string{"Enter": "\r", " ": " "}[name]
	down := object{"type": "keyDown", "key": name, "windowsVirtualKeyCode": code}
	if text != "" {
		down["text"] = text
	}
	p.Do("Input.dispatchKeyEvent", down, nil)
	p.Do("Input.dispatchKeyEvent", object{"type": "keyUp", "key": name, "windowsVirtualKeyCode": code}, nil)
}

// Picture is the page as a PNG, in its whole length up to most.
func (p *Page) Picture(most int) []byte {
	p.t.Helper()
	var size struct{ Width, Height int }
	p.Eval("({width: innerWidth, height: document.documentElement.scrollHeight})", &size)
	var shot struct{ Data string }
	p.Do("Page.captureScreenshot", object{"format": "png", "captureBeyondViewport": true,
		"clip": object{"x": 0, "y": 0, "width": size.Width, "height": min(size.Height, most), "scale": 1}}, &shot)
	picture, err := base64.StdEncoding.DecodeString(shot.Data)
	if err != nil {
		p.t.Fatal(err)
	}
	return picture
}

// quote makes a text one of JavaScript.
func quote(text string) string {
	quoted, _ := json.Marshal(text) // a string can be encoded
	return strings.ReplaceAll(string(quoted), "<", `\u003c`)
}
