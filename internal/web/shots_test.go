package web

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/browsertest"
)

// login logs a browser in, by the form.
func login(p *browsertest.Page, origin string) {
	p.Open(origin + "/login")
	p.Fill("#token", token)
	p.Key("Enter")
	p.Wait("location.pathname === '/' && document.readyState === 'complete' && document.querySelector('h1').innerText === 'Overview'")
}

// Every view fits into the narrowest telephone, in both schemes, without scrolling to the
// side, and asks for nothing that the policy forbids. UPDATE_IMAGES=1 renews the pictures
// in docs/images; UPDATE_IMAGES with a directory writes all there are into it.
func TestEveryViewFitsAndIsAllowed(t *testing.T) {
	t.Parallel()
	b := browsertest.Start(t)
	d := newDemo()
	_, origin := serve(t, d)
	p := b.Page(t)
	login(p, origin)
	kept := []string{"overview-1280-light", "webhook-1280-light", "delivery-1280-dark", "overview-360-dark"}
	shoot := func(name string) {
		dir := os.Getenv("UPDATE_IMAGES")
		if dir == "1" {
			dir = filepath.Join("..", "..", "docs", "images")
		}
		if dir == "" || os.Getenv("UPDATE_IMAGES") == "1" && !slices.Contains(kept, name) {
			return
		}
		if err := os.WriteFile(filepath.Join(dir, name+".png"), p.Picture(1400), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	names := slices.Sorted(maps.Keys(views()))
	for i, name := range append(names, "configuration") {
		if i == len(names) { // again, with files that were refused
			d.broken()
			name = "configuration"
		}
		for _, width := range []int{1280, 360} {
			for _, dark := range []bool{false, true} {
				scheme := map[bool]string{false: "light", true: "dark"}[dark]
				p.View(width, 900, dark)
				p.Open(origin + views()[name])
				var wide int
				p.Eval("document.documentElement.scrollWidth", &wide)
				if wide > width {
					var who string
					p.Eval(`[...document.querySelectorAll("body *")].filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.tagName + "." + e.className).slice(0, 5).join(" ")`, &who)
					t.Errorf("%s at %d, %s: it is %d wide: %s", name, width, scheme, wide, who)
				}
				shoot(fmt.Sprintf("%s-%d-%s", name, width, scheme))
			}
		}
	}
	if e := p.Errors(); len(e) > 0 {
		t.Errorf("errors: %q", e)
	}
}
