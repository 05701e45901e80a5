package main

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/config"
	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

// leaves walks the structs of the configuration by their tags and returns every
// value that a file can give, by its path in the file: maps by an id of the
// operator's have a *, and lists of objects [].
func leaves(t *testing.T) []string {
	t.Helper()
	var out []string
	var walk func(of reflect.Type, tag reflect.StructTag, path string)
	walk = func(of reflect.Type, tag reflect.StructTag, path string) {
		plain := of.PkgPath() != reflect.TypeFor[config.Config]().PkgPath() || of.Kind() != reflect.Struct
		switch {
		case of == reflect.TypeFor[config.Signatures]():
			out = append(out, path+".none")
			walk(reflect.TypeFor[config.Signature](), "", path+"[]")
		case tag.Get("ids") == "notice": // has the keys of a webhook, by the same code
			out = append(out, path)
		case tag.Get("ids") != "" && tag.Get("later") == "":
			walk(of.Elem(), "", path+".*")
		case plain || of == reflect.TypeFor[config.Share]():
			out = append(out, path)
		default:
			for f := range of.Fields() {
				name, tagged := f.Tag.Lookup("koanf")
				switch {
				case !f.IsExported() || name == "-" || name == "-id":
				case !tagged:
					t.Errorf("%s.%s has no key in the file", of, f.Name)
				case name == "-value":
					out = append(out, path)
				default:
					walk(f.Type, f.Tag, strings.TrimPrefix(path+"."+name, "."))
				}
			}
		}
	}
	walk(reflect.TypeFor[config.Config](), "", "")
	return out
}

// row changes one leaf of a running daemon's files and says what is to be seen
// of it.
type row struct {
	leaf string
	how  string // tells several rows of a leaf from each other

	edit  string            // a drop-in that is added
	files map[string]string // or other contents of these files
	cut   string            // what is taken out of the main file besides

	// see looks at the running daemon; want is what it should find, for what has
	// to be waited for.
	see           func(s *stage, want string) string
	before, after string
	slow          bool // what is seen follows later than the reload is answered
	oneWay        bool // taking the edit back does not bring back what it removed
	refused       bool // the edit is not valid in this version, which has to be said
}

// TestEveryKeyOfTheConfigurationIsFollowedOrSaidToNeedARestart changes each key
// under a running daemon. A key without a row fails it.
func TestEveryKeyOfTheConfigurationIsFollowedOrSaidToNeedARestart(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	rows := s.rows()
	covered := map[string]bool{}
	for _, r := range rows {
		covered[r.leaf] = true
	}
	all := leaves(t)
	if len(all) < 60 {
		t.Fatalf("only %d leaves were found: %v", len(all), all)
	}
	for _, leaf := range all {
		if !covered[leaf] {
			t.Errorf("%s: nothing shows that the running daemon follows this key", leaf)
		}
	}
	for leaf := range covered {
		if !slices.Contains(all, leaf) {
			t.Errorf("%s: there is no such key", leaf)
		}
	}
	for _, r := range rows {
		t.Run(strings.TrimSpace(r.leaf+" "+r.how), func(t *testing.T) {
			s.t = t
			s.play(&r)
		})
	}
}

// play looks, edits, looks, takes the edit back and looks again.
func (s *stage) play(r *row) {
	s.t.Helper()
	if s.t.Failed() {
		return
	}
	s.expect(r, r.before)
	before := s.status()
	undo := s.apply(r)
	_, err := s.admin.Reload(s.t.Context())
	if err == nil {
		after := s.status()
		if !r.refused {
			s.changed(r.leaf, before.Config.Generation)
		} else if after.Config.State != rest.ConfigRejected || after.State != rest.StateDegraded || after.Config.Generation != before.Config.Generation {
			s.t.Errorf("an edit that cannot be followed is not reported: %+v", after.Config)
		}
		s.expect(r, r.after)
	}
	undo()
	if _, again := s.admin.Reload(s.t.Context()); err != nil || again != nil {
		s.t.Fatal(err, again)
	}
	if st := s.status(); st.Config.State != rest.ConfigCurrent || st.Config.LastReload.Result == rest.ReloadRejected {
		s.t.Fatalf("the edit was taken back, and the daemon says %+v", st.Config)
	}
	if !r.oneWay {
		s.expect(r, r.before)
	}
}

// expect compares what is seen with what should be.
func (s *stage) expect(r *row, want string) {
	s.t.Helper()
	got := r.see(s, want)
	if r.slow && got != want {
		until(s.t, fmt.Sprintf("%q to be seen", want), func() bool { got = r.see(s, want); return got == want })
	}
	if got != want {
		s.t.Errorf("seen %q, want %q", got, want)
	}
}

// changed checks that the newest configuration was recorded with a change of
// this leaf, so that a row cannot change another one than it says.
func (s *stage) changed(leaf string, before uint64) {
	s.t.Helper()
	list, err := s.admin.ConfigHistory(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	newest := list.Entries[0]
	if newest.Result != rest.ReloadApplied || newest.Generation <= before || !newest.Running {
		s.t.Fatalf("the edit was not taken over: %+v", s.status().Config.LastReload)
	}
	object, field := rest.ObjectSetting, leaf
	for prefix, of := range map[string]string{"helpers.*.": rest.ObjectHelper, "sinks.*.": rest.ObjectSink, "tests.*.": rest.ObjectTest} {
		if rest, ok := strings.CutPrefix(leaf, prefix); ok {
			object, field = of, rest
		}
	}
	if rest1, ok := strings.CutPrefix(leaf, "helpers.*.webhooks.*."); ok {
		object, field = rest.ObjectWebhook, rest1
	}
	field, _, _ = strings.Cut(strings.TrimSuffix(strings.TrimSuffix(field, ".none"), ".*"), "[]")
	field = strings.ReplaceAll(field, ".*.", ".")
	for _, c := range newest.Changes {
		if c.Object != object {
			continue
		}
		names := c.Fields
		if object == rest.ObjectSetting {
			names = []string{c.ID}
		}
		for _, name := range names {
			name = strings.ReplaceAll(name, ".own.w", "") // the id of a map in a test
			if name == field || strings.HasPrefix(name, field+".") {
				return
			}
		}
	}
	s.t.Errorf("%s is not among the changes %+v", leaf, newest.Changes)
}
