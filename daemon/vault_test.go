package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/secrettest"
	"github.com/peanutsapp/peanuts-relay/internal/zoo"
)

// seen says on which surfaces a secret is, and where.
func (v *vault) seen(p planted) map[string][]string {
	found := map[string][]string{}
	for surface, places := range v.out {
		for place, data := range places {
			if mayShow(p, surface, place) {
				continue
			}
			for _, forms := range p.forms {
				for _, form := range secrettest.Sightings(data, forms) {
					at := bytes.Index(data, []byte(forms[form]))
					found[surface] = append(found[surface], fmt.Sprintf("%s (%s): %q", place, form, data[max(0, at-60):min(len(data), at+len(forms[form])+20)]))
				}
			}
		}
	}
	return found
}

// Everything that a daemon says, writes and starts is searched for each secret that it
// was given, while its receivers, its proxy and its plugins tell them to it.
func TestNoSecretIsSightedAnywhere(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	v.put("config.yaml", v.configuration(zoo.Name("leak"), ""))
	v.start()
	v.collect(v.hand("first", "vault"), "vault.rotated")
	v.end()

	cases := 0
	for _, p := range v.secrets {
		found := v.seen(p)
		for _, surface := range surfaces() {
			if len(v.out[surface]) == 0 {
				t.Fatalf("nothing was collected of %s", surface)
			}
			cases++
			for _, where := range found[surface] {
				t.Errorf("%s shows %s: %s", surface, p.name, where)
			}
		}
	}
	t.Attr("cases", strconv.Itoa(cases))
	if cases != 208 || len(v.out) != len(surfaces()) {
		t.Errorf("%d cases on %d surfaces", cases, len(v.out))
	}
	// What was told must have come, masked.
	for _, surface := range []string{"log", "delivery log", "standard error of plugins", "panic"} {
		masked := false
		for _, data := range v.out[surface] {
			masked = masked || bytes.Contains(data, []byte("the token is ********")) || bytes.Contains(data, []byte("password ********"))
		}
		if !masked {
			t.Errorf("%s shows nothing of what was told, not even masked", surface)
		}
	}
}

// The control: a secret is the id of a helper, the name of a plugin and a variable that
// plugins get. The same search finds it on every surface.
func TestASecretThatIsShownIsSightedOnEverySurface(t *testing.T) {
	t.Parallel()
	v := newVault(t)
	zoo.InstallAs(t, filepath.Join(v.bin, "peanuts-sink-"+vaultZap), "leak", "1.0.0")
	leak := "  " + vaultZap + ":\n    secret: ${env:HELPER_SECRET}\n    webhooks: {w: {url: \"" + v.plain.URL + "/refuse\"}}\n"
	v.put("config.yaml", v.configuration(vaultZap, leak))
	v.start("TZ=" + vaultZap)
	v.collect(v.hand("first", vaultZap), vaultZap+".w")
	v.end()
	shown := vaultZap
	if core := controlCore(t, shown); core != "" {
		data, err := os.ReadFile(core)
		if err != nil {
			t.Fatal(err)
		}
		v.add("core file", "of a shell", data)
	} else {
		v.add("core file", "made up", []byte(shown))
	}
	for _, p := range v.secrets {
		found := v.seen(p)
		for _, surface := range surfaces() {
			if p.name == "the URL of a Zap" && len(found[surface]) == 0 {
				t.Errorf("%s does not show it: the search is blind", surface)
			}
			if p.name != "the URL of a Zap" && surface != "core file" && len(found[surface]) != 0 {
				t.Errorf("%s shows %s: %s", surface, p.name, strings.Join(found[surface], "\n"))
			}
		}
	}
}
