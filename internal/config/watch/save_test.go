package watch

import (
	"sync"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/testhost"
)

// saves are the ways in which files of a configuration get replaced. Each is one
// change: exactly one reload.
var saves = []struct {
	name  string
	tool  string // a program that not every system has
	setup string // after the files of the site are there
	save  string
	then  []string // files that take a further edit; the main file if nil
}{
	{name: "write in place", save: `echo "v: 2" >etc/config.yaml`},
	{name: "write over the old bytes", save: `printf "v: 2" | dd of=etc/config.yaml conv=notrunc 2>/dev/null`},
	{name: "append", save: `echo "w: 1" >>etc/config.yaml`},
	{name: "truncate, pause, write", save: `: >etc/config.yaml; sleep 0.1; echo "v: 2" >etc/config.yaml`},
	{name: "write in chunks", save: `{ for i in 1 2 3 4 5 6; do echo "k$i: 1"; sleep 0.05; done; } >etc/config.yaml`},
	{name: "write here and rename", save: `echo "v: 2" >etc/.new; mv etc/.new etc/config.yaml`},
	{name: "write elsewhere and rename", save: `echo "v: 2" >new; mv new etc/config.yaml`},
	{name: "hard link over", save: `echo "v: 2" >new; ln -f new etc/config.yaml`},
	{name: "tee", save: `echo "v: 2" | tee etc/config.yaml`},
	{name: "install", save: `echo "v: 2" >new; install -m 640 new etc/config.yaml`},
	{name: "cp", save: `echo "v: 2" >new; cp new etc/config.yaml`},
	{name: "cp --remove-destination", save: `echo "v: 2" >new; cp --remove-destination new etc/config.yaml`},
	{name: "cp -p of an older file", save: `echo "v: 2" >new; touch -d 2001-01-01 new; cp -p new etc/config.yaml`},
	{name: "sed -i", save: `sed -i "s/v: 1/v: 2/" etc/config.yaml`},
	{name: "sed -i with a backup", save: `sed -i.bak "s/v: 1/v: 2/" etc/config.yaml`},
	{name: "vim backupcopy=no", tool: "vim", save: vim("no")},
	{name: "vim backupcopy=auto", tool: "vim", save: vim("auto")},
	{name: "vim backupcopy=yes", tool: "vim", save: vim("yes")},
	{name: "vim of a drop-in", tool: "vim", then: []string{"etc/conf.d/10-a.yaml"},
		save: `vim -N -u NONE -i NONE -es -c "set backup" -c "%s/d: 1/d: 2/" -c wq etc/conf.d/10-a.yaml`},
	{name: "emacs", tool: "emacs", save: emacs(`(setq backup-by-copying nil)`)},
	{name: "emacs that copies its backup", tool: "emacs", save: emacs(`(setq backup-by-copying t)`)},
	{name: "emacs that writes carefully", tool: "emacs", save: emacs(`(setq file-precious-flag t)`)},
	{name: "rsync", tool: "rsync", save: `mkdir n; echo "v: 22" >n/config.yaml; rsync -a n/ etc/`},
	{name: "rsync --inplace", tool: "rsync", save: `mkdir n; echo "v: 22" >n/config.yaml; rsync -a --inplace n/ etc/`},
	{name: "rsync --delete of everything", tool: "rsync", then: []string{"etc/config.yaml", "etc/conf.d/20-b.yaml"},
		save: `mkdir -p n/conf.d; echo "v: 22" >n/config.yaml; echo "e: 1" >n/conf.d/20-b.yaml; rsync -a --delete n/ etc/`},
	{name: "git checkout", tool: "git", setup: lines(
		`git init -q etc; cd etc; git config user.email a@example.com; git config user.name a; git add .; git commit -qm 1`,
		`echo "v: 2" >config.yaml; echo "d: 2" >conf.d/10-a.yaml; git commit -qam 2; git checkout -q HEAD~1`),
		save: `git -C etc checkout -q -`},

	{name: "delete and make again", save: `rm etc/config.yaml; sleep 0.1; echo "v: 2" >etc/config.yaml`},
	{name: "chmod 000, write, chmod 640", save: `echo "v: 2" >etc/.new; chmod 000 etc/config.yaml; mv -f etc/.new etc/config.yaml; chmod 000 etc/config.yaml; sleep 0.1; chmod 640 etc/config.yaml`},
	{name: "chmod of the directory, write, chmod back", save: `chmod 000 etc; sleep 0.1; chmod 755 etc; echo "v: 2" >etc/config.yaml`},
	{name: "several files at once", save: `echo "v: 2" >etc/config.yaml; echo "d: 2" >etc/conf.d/10-a.yaml; echo "secret 2" >secrets/token`},

	{name: "the main file becomes a link", save: `mkdir srv; echo "v: 2" >srv/c; ln -sfn ../srv/c etc/config.yaml`, then: []string{"srv/c"}},
	{name: "the main file is no link any more", setup: `mkdir srv; mv etc/config.yaml srv/c; ln -s ../srv/c etc/config.yaml`,
		save: `echo "v: 2" >new; mv new etc/config.yaml`},
	{name: "ln -sfn", setup: `mv etc/config.yaml etc/a; echo "v: 2" >etc/b; ln -s a etc/config.yaml`,
		save: `ln -sfn b etc/config.yaml`, then: []string{"etc/b"}},
	{name: "ln -sfn of the directory", setup: `mv etc a; cp -r a b; echo "v: 2" >b/config.yaml; ln -s a etc`,
		save: `ln -sfn b etc`, then: []string{"b/config.yaml", "b/conf.d/10-a.yaml"}},
	{name: "in place behind three links", setup: chain, save: `echo "v: 2" >d/e/file`, then: []string{"d/e/file"}},
	{name: "first of three links", setup: chain, save: `echo "v: 2" >other; ln -sfn ../other etc/config.yaml`, then: []string{"other"}},
	{name: "second of three links", setup: chain, save: `echo "v: 2" >other; ln -sfn ../other b/two`, then: []string{"other"}},
	{name: "third of three links", setup: chain, save: `echo "v: 2" >other; ln -sfn ../other c/three`, then: []string{"other"}},
	{name: "file behind three links renamed over", setup: chain, save: `echo "v: 2" >other; mv other d/e/file`, then: []string{"d/e/file"}},
	{name: "directory behind three links replaced", setup: chain, save: `cp -r d n; echo "v: 2" >n/e/file; mv d old; mv n d`, then: []string{"d/e/file"}},
	{name: "a link that led nowhere", setup: `rm etc/config.yaml; ln -s ../not/yet/file etc/config.yaml`,
		save: `mkdir -p not/yet; echo "v: 2" >not/yet/file`, then: []string{"not/yet/file"}},
	{name: "Kubernetes ..data swap", setup: kubernetes("etc/config.yaml", "config.yaml", "v: 1"), save: lines(
		`cd etc; mkdir ..2024_2; echo "v: 2" >..2024_2/config.yaml; ln -s ..2024_2 ..data_tmp`,
		`mv -T ..data_tmp ..data; rm -r ..2024_1`), then: []string{"etc/..2024_2/config.yaml"}},
	{name: "Kubernetes ..data swap of drop-ins", setup: kubernetes("etc/conf.d/10-a.yaml", "10-a.yaml", "d: 1"), save: lines(
		`cd etc/conf.d; mkdir ..2024_2; echo "d: 2" >..2024_2/10-a.yaml; echo "e: 1" >..2024_2/20-b.yaml; ln -s ..2024_2 ..data_tmp`,
		`mv -T ..data_tmp ..data; ln -s ..data/20-b.yaml 20-b.yaml; rm -r ..2024_1`), then: []string{"etc/conf.d/..2024_2/10-a.yaml", "etc/conf.d/..2024_2/20-b.yaml"}},
	{name: "Kubernetes ..data swap of a secret", setup: kubernetes("secrets/token", "token", "secret 1"), save: lines(
		`cd secrets; mkdir ..2024_2; echo "secret 2" >..2024_2/token; ln -s ..2024_2 ..data_tmp`,
		`mv -T ..data_tmp ..data; rm -r ..2024_1`), then: []string{"secrets/..2024_2/token"}},

	{name: "directory renamed away and back", save: `mv etc gone; sleep 0.1; echo "v: 2" >gone/config.yaml; mv gone etc`, then: []string{"etc/config.yaml", "etc/conf.d/10-a.yaml"}},
	{name: "directory replaced by another", save: `cp -r etc n; echo "v: 2" >n/config.yaml; mv etc old; mv n etc`, then: []string{"etc/config.yaml", "etc/conf.d/10-a.yaml"}},
	{name: "directory removed and made again", save: `rm -r etc; mkdir -p etc/conf.d; echo "v: 2" >etc/config.yaml; echo "d: 2" >etc/conf.d/10-a.yaml`, then: []string{"etc/config.yaml", "etc/conf.d/10-a.yaml"}},
	{name: "directory above renamed away and back", setup: above, save: `mv up gone; echo "v: 2" >gone/etc/config.yaml; mv gone up`, then: []string{"up/etc/config.yaml", "up/etc/conf.d/10-a.yaml"}},
	{name: "directory above replaced", setup: above, save: `cp -r up n; echo "v: 2" >n/etc/config.yaml; mv up old; mv n up`, then: []string{"up/etc/config.yaml", "up/etc/conf.d/10-a.yaml"}},

	{name: "drop-in comes", save: `echo "e: 1" >etc/conf.d/20-b.yaml`, then: []string{"etc/conf.d/20-b.yaml"}},
	{name: "drop-in goes", save: `rm etc/conf.d/10-a.yaml`},
	{name: "drop-in is renamed", save: `mv etc/conf.d/10-a.yaml etc/conf.d/30-a.yaml`, then: []string{"etc/conf.d/30-a.yaml"}},
	{name: "drop-in is switched off by its name", save: `mv etc/conf.d/10-a.yaml etc/conf.d/10-a.yaml.off`},
	{name: "linked drop-in comes", save: `mkdir srv; echo "e: 1" >srv/b; ln -s ../../srv/b etc/conf.d/20-b.yaml`, then: []string{"srv/b"}},
	{name: "linked drop-in changes", setup: `mkdir srv; echo "e: 1" >srv/b; ln -s ../../srv/b etc/conf.d/20-b.yaml`,
		save: `echo "e: 2" >srv/b`, then: []string{"srv/b", "etc/conf.d/10-a.yaml"}},
	{name: "conf.d comes", setup: `rm -r etc/conf.d`, save: `mkdir etc/conf.d; echo "e: 1" >etc/conf.d/20-b.yaml`, then: []string{"etc/conf.d/20-b.yaml"}},
	{name: "conf.d goes", save: `rm -r etc/conf.d`},
	{name: "conf.d made anew", save: `rm -r etc/conf.d; mkdir etc/conf.d; echo "d: 2" >etc/conf.d/10-a.yaml`, then: []string{"etc/conf.d/10-a.yaml"}},
	{name: "conf.d renamed away and back", save: `mv etc/conf.d gone; sleep 0.1; echo "d: 2" >gone/10-a.yaml; mv gone etc/conf.d`, then: []string{"etc/conf.d/10-a.yaml"}},
	{name: "conf.d becomes a link", save: `mkdir srv; echo "e: 1" >srv/20-b.yaml; rm -r etc/conf.d; ln -s ../srv etc/conf.d`, then: []string{"srv/20-b.yaml"}},
	{name: "500 drop-ins renamed in", setup: fiveHundred("staged"), save: `mv staged/*.yaml etc/conf.d/`, then: []string{"etc/conf.d/250.yaml"}},
	{name: "500 drop-ins as a directory", setup: fiveHundred("staged"), save: `rm -r etc/conf.d; mv staged etc/conf.d`, then: []string{"etc/conf.d/250.yaml"}},
	{name: "500 drop-ins written", save: fiveHundred("etc/conf.d"), then: []string{"etc/conf.d/250.yaml"}},

	{name: "secret rotated in place", save: `echo "secret 2" >secrets/token`, then: []string{"secrets/token"}},
	{name: "secret rotated by a rename", save: `echo "secret 2" >secrets/.t; mv secrets/.t secrets/token`, then: []string{"secrets/token"}},
	{name: "secret rotated by a link", setup: `mv secrets/token secrets/1; echo "secret 2" >secrets/2; ln -s 1 secrets/token`,
		save: `ln -sfn 2 secrets/token`, then: []string{"secrets/2"}},
	{name: "directory of secrets replaced", save: `mkdir n; echo "secret 2" >n/token; mv secrets old; mv n secrets`, then: []string{"secrets/token"}},
	{name: "secret that was missing", setup: `rm -r secrets`, save: `mkdir secrets; echo "secret 2" >secrets/token`, then: []string{"secrets/token"}},
}

const (
	// chain makes etc/config.yaml the first of three links, each in a directory of its own.
	chain = `mkdir b c d d/e; mv etc/config.yaml d/e/file
		ln -s ../b/two etc/config.yaml; ln -s ../c/three b/two; ln -s ../d/e/file c/three`
	// above moves the configuration a directory down; etc leads there no more.
	above = `mkdir up; mv etc up/etc`
)

func vim(backupcopy string) string {
	return `vim -N -u NONE -i NONE -es -c "set backup writebackup backupcopy=` + backupcopy + `" -c "%s/v: 1/v: 2/" -c wq etc/config.yaml`
}

func emacs(setting string) string {
	return `emacs -Q --batch --eval "(setq make-backup-files t create-lockfiles t)" --eval "` + setting + `" --visit etc/config.yaml --eval "(progn (goto-char (point-max)) (insert \"w: 1\n\") (save-buffer))"`
}

// kubernetes makes a file what a volume of Kubernetes has in its place.
func kubernetes(file, name, content string) string {
	return lines(`d=$(dirname `+file+`); rm `+file+`; mkdir $d/..2024_1; echo "`+content+`" >$d/..2024_1/`+name,
		`ln -s ..2024_1 $d/..data; ln -s ..data/`+name+` `+file)
}

func fiveHundred(dir string) string {
	return `mkdir -p ` + dir + `; for i in $(seq 500); do echo "k$i: 1" >` + dir + `/$i.yaml; done`
}

// TestEachWayToSaveIsOneReload runs every way with the tool itself, several at once, and
// then edits further files: the watcher must have found its way to what is there now.
func TestEachWayToSaveIsOneReload(t *testing.T) {
	var wg sync.WaitGroup
	places := make(chan struct{}, 4)
	for _, c := range saves {
		wg.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			t.Run(c.name, func(t *testing.T) {
				if c.tool != "" {
					testhost.Program(t, c.tool)
				}
				oneReload(t, c.setup, c.save, c.then)
			})
		})
	}
	wg.Wait()
}

// oneReload saves with the times of production. A machine that stands still in
// the middle of a save for longer than the debounce gets a reload of half of it,
// rightly. Such a try says nothing; it is made again with more patience.
func oneReload(t *testing.T, setup, save string, then []string) {
	for scale := time.Duration(1); ; scale *= 4 {
		debounce := 250 * time.Millisecond * scale
		s := newSite(t)
		s.sh(setup)
		if setup == above {
			s.paths.Main, s.paths.DropIns = s.at("up/etc/config.yaml"), s.at("up/etc/conf.d")
		}
		if then == nil {
			then = []string{s.paths.Main[len(s.root)+1:]}
		}
		r := s.reload(Options{Debounce: debounce, MaxWait: 8 * debounce, Recheck: never})
		begun := time.Now()
		s.sh(save)
		saved := time.Now()
		r.noticed("the save")
		r.mu.Lock()
		late := r.last.Sub(saved)
		r.mu.Unlock()
		for _, file := range then {
			s.add(file, "more: 1")
			r.noticed("a further edit of " + file)
		}
		took := saved.Sub(begun)
		reloads, _ := r.count()
		switch {
		case reloads == 1+len(then):
			t.Logf("reloaded %d ms after the save, which took %d ms", late.Milliseconds(), took.Milliseconds())
			if late > 20*time.Second {
				t.Errorf("the reload came %v after the save", late)
			}
			return
		case took < debounce || scale >= 64:
			t.Fatalf("%d reloads for 1 save and %d further edits; the save took %v", reloads, len(then), took)
		}
		t.Logf("%d reloads, but the save took %v: once more with a debounce of %v", reloads, took, 4*debounce)
	}
}

// TestATouchIsNoReload: it is a signal, and the content is the same.
func TestATouchIsNoReload(t *testing.T) {
	s := newSite(t)
	r := s.reload(Options{Recheck: never})
	s.sh(`touch etc/config.yaml etc/conf.d/10-a.yaml secrets/token`)
	r.await("the signal of the touch", func() bool { return r.compared > 1 })
	s.sh(`echo "v: 1" >.new; mv .new etc/config.yaml`)
	r.await("the signal of the same content", func() bool { return r.compared > 2 })
	if reloads, _ := r.count(); reloads != 0 {
		t.Fatalf("%d reloads without a change", reloads)
	}
	s.add("etc/config.yaml", "v: 2")
	r.noticed("an edit")
}
