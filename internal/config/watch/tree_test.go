package watch

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/peanutsapp/peanuts-relay/internal/config"
	"github.com/peanutsapp/peanuts-relay/internal/testhost"
)

// TestThePlanFollowsLinksAsTheKernelDoes compares with package filepath, over random
// forests of links.
func TestThePlanFollowsLinksAsTheKernelDoes(t *testing.T) {
	base := newSite(t).root
	round := 0
	rapid.Check(t, func(t *rapid.T) {
		round++
		// Twelve links of four ".." must not lead out of base, or the test writes there.
		root := filepath.Join(base, strconv.Itoa(round), strings.Repeat("x/", 12*4))
		if err := os.MkdirAll(root, 0o755); err != nil {
			t.Fatal(err)
		}
		name := rapid.SampledFrom([]string{"a", "b", "c", "d"})
		way := rapid.Custom(func(t *rapid.T) string {
			parts := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c", "d", "..", ".", ""}), 1, 4).Draw(t, "parts")
			return strings.Join(parts, "/")
		})
		target := rapid.Custom(func(t *rapid.T) string {
			if rapid.Bool().Draw(t, "absolute") {
				return root + "/" + way.Draw(t, "way")
			}
			return "./" + way.Draw(t, "way")
		})
		for range rapid.IntRange(1, 12).Draw(t, "n") {
			at := filepath.Join(root, name.Draw(t, "dir"), name.Draw(t, "name"))
			if rapid.Bool().Draw(t, "shallow") {
				at = filepath.Dir(at)
			}
			// What is there already stays; that is as good.
			switch rapid.IntRange(0, 2).Draw(t, "kind") {
			case 0:
				_ = os.MkdirAll(at, 0o755)
			case 1:
				_ = os.WriteFile(at, nil, 0o600)
			case 2:
				_ = os.Symlink(target.Draw(t, "target"), at)
			}
		}
		path := root + "/" + way.Draw(t, "path")
		want, err := filepath.EvalSymlinks(path)
		if _, statErr := os.Stat(path); err != nil || statErr != nil {
			want = "" // the kernel has the last word on file/.. and file/
		}
		p := planter{tree: &tree{dirs: map[string]*directory{}, byID: map[fileID]*directory{}}}
		if got := p.follow(path); got != want && want != "" {
			t.Errorf("%s ends at %q, want %q", path, got, want)
		}
		for at := range p.tree.dirs {
			if real, err := filepath.EvalSymlinks(at); err != nil || real != at {
				t.Errorf("%s is watched, which is not without links: %v", at, err)
			}
		}
	})
}

// TestADirectoryWithSeveralPathsIsOneWatch: inotify has one watch for each directory, whatever its
// path; events come under the first.
func TestADirectoryWithSeveralPathsIsOneWatch(t *testing.T) {
	s := newSite(t)
	s.sh(`ln -s etc also; ln -s . here`)
	p := s.paths
	p.References = append(p.References, s.at("also/config.yaml"), s.root+"/here/here/etc/../etc//conf.d/./10-a.yaml")
	var added []string
	tr := plant(p, func(dir string) error { added = append(added, dir); return nil })
	if want := strings.Count(s.paths.DropIns, "/") + 2; len(added) != want || len(tr.byID) != want {
		t.Errorf("%d directories are watched, want %d: %q", len(added), want, added)
	}
	if !tr.sameWatches(plant(p, nil)) {
		t.Error("looking again gives another plan")
	}
}

func TestLinksInACircleEnd(t *testing.T) {
	s := newSite(t)
	s.sh(`ln -s b a; ln -s a b; ln -sfn ../a etc/config.yaml; ln -s 20-b.yaml etc/conf.d/20-b.yaml`)
	r := s.reload(Options{Recheck: never})
	s.sh(`rm b; echo "v: 2" >b`)
	r.noticed("the end of the circle")
}

// TestTheRuleForDropInsIsThatOfTheConfiguration: a file that the one reads and the other
// does not would be reloaded late, or for nothing.
func TestTheRuleForDropInsIsThatOfTheConfiguration(t *testing.T) {
	s := newSite(t)
	read := map[string]bool{}
	names := []string{"a.yaml", ".a.yaml", "#a.yaml", "#a.yaml#", ".#a.yaml", "a.yaml~", "a.yml", "a.YAML", "yaml", ".yaml", "a..yaml", "~a.yaml", "4913", "a.yaml.swp", ".a.yaml.swp", "-.yaml", "a b.yaml", "a.yaml.d", "_.yaml"}
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(s.paths.DropIns, name), []byte("log: {level: info}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, report := config.Load(config.Options{Path: s.paths.Main})
	for _, file := range report.Files {
		read[filepath.Base(file)] = true
	}
	if len(read) < 5 {
		t.Fatalf("the configuration read only %q", report.Files)
	}
	for _, name := range names {
		if DropIn(name) != read[name] {
			t.Errorf("%q: DropIn says %t, and the configuration reads it: %t", name, DropIn(name), read[name])
		}
	}
}

// TestWhateverHappensToTheDirectoriesIsNoticed does a few random things to the files at a time, and
// each time the last state must be noticed by its events alone. WATCH_ROUNDS asks
// for more, WATCH_SEED for the same again.
func TestWhateverHappensToTheDirectoriesIsNoticed(t *testing.T) {
	rounds, chance := uint64(24), testhost.Chance(t)
	if n, err := strconv.ParseUint(os.Getenv("WATCH_ROUNDS"), 10, 64); err == nil {
		rounds = n
	}
	seed := chance.Uint64()
	if n, err := strconv.ParseUint(os.Getenv("WATCH_SEED"), 10, 64); err == nil {
		seed = n
	}
	var wg sync.WaitGroup
	places := make(chan struct{}, 6)
	for round := range rounds {
		wg.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			t.Run(fmt.Sprintf("seed %d", seed+round), func(t *testing.T) { havoc(t, seed+round) })
		})
	}
	wg.Wait()
}

func havoc(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 0))
	s := newSite(t)
	r := s.reload(Options{Debounce: 10 * time.Millisecond, MaxWait: time.Second, Recheck: never, PollEvery: never})
	places := []string{"etc", "etc/conf.d", "etc/config.yaml", "etc/conf.d/10-a.yaml", "etc/conf.d/20-b.yaml", "secrets", "secrets/token", "x", "x/y", "x/config.yaml", "z"}
	any := func() string { return places[rnd.IntN(len(places))] }
	var done []string
	for burst := range 6 {
		for range 1 + rnd.IntN(5) {
			a, b := s.at(any()), s.at(any())
			var what string
			var err error
			switch rnd.IntN(6) {
			case 0:
				what, err = "rename "+a+" "+b, os.Rename(a, b)
			case 1:
				what, err = "remove "+a, os.RemoveAll(a)
			case 2:
				what, err = "mkdir "+a, os.MkdirAll(a, 0o755)
			case 3:
				what, err = "link "+a+" -> "+b, os.Symlink(b, a)
			default:
				what, err = "write "+a, os.WriteFile(a, fmt.Append(nil, burst, rnd.Uint32()), 0o600)
			}
			if err == nil {
				done = append(done, what)
			}
		}
		digest := s.paths.digest()
		if !r.holds(func() bool { return r.digest == digest }) {
			t.Fatalf("burst %d was not noticed:\n%s", burst, strings.Join(done, "\n"))
		}
	}
	reloads, _ := r.count()
	t.Logf("%d things done, %d reloads", len(done), reloads)
}
