package queue

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/peanutsapp/peanuts-relay/internal/id"
	"github.com/peanutsapp/peanuts-relay/internal/testhost"
)

const (
	damagesEnv = "QUEUE_DAMAGES"
	damagedEnv = "QUEUE_DAMAGED_DIR"
	// damagedPatience is how long a start on a damaged store may take.
	damagedPatience = time.Minute
)

// damages is how many files are damaged: each kind once, or as many as the environment says.
func damages() int {
	if n, err := strconv.Atoi(os.Getenv(damagesEnv)); err == nil {
		return n
	}
	return len(damageKinds())
}

// damageKinds are the ways to damage a file. other is another file of its kind, or
// itself. Each returns the new content, nil for a file that is gone.
func damageKinds() []struct {
	name string
	do   func(r *rand.Rand, text, other []byte) []byte
} {
	within := func(r *rand.Rand, n, most int) (from, to int) {
		from = r.IntN(n)
		return from, min(from+1+r.IntN(most), n)
	}
	return []struct {
		name string
		do   func(r *rand.Rand, text, other []byte) []byte
	}{
		{"flip", func(r *rand.Rand, text, _ []byte) []byte {
			text[r.IntN(len(text))] ^= 1 << r.IntN(8)
			return text
		}},
		{"truncate", func(r *rand.Rand, text, _ []byte) []byte { return text[:r.IntN(len(text))] }},
		{"zero", func(r *rand.Rand, text, _ []byte) []byte {
			from, to := within(r, len(text), 8192)
			clear(text[from:to])
			return text
		}},
		{"missing", func(*rand.Rand, []byte, []byte) []byte { return nil }},
		{"garbage", func(r *rand.Rand, text, _ []byte) []byte {
			from, to := within(r, len(text), 8192)
			for i := from; i < to; i++ {
				text[i] = byte(r.Uint32())
			}
			return text
		}},
		{"block twice", func(r *rand.Rand, text, _ []byte) []byte {
			const block = 4096
			from, to := r.IntN(len(text)/block+1)*block, r.IntN(len(text)/block+1)*block
			copy(text[to:], bytes.Clone(text[from:min(from+block, len(text))]))
			return text
		}},
		{"empty", func(*rand.Rand, []byte, []byte) []byte { return []byte{} }},
		{"longer", func(r *rand.Rand, text, _ []byte) []byte {
			for range 1 + r.IntN(5000) {
				text = append(text, byte(r.Uint32()))
			}
			return text
		}},
		{"of another", func(_ *rand.Rand, _, other []byte) []byte { return other }},
	}
}

// damageBase is a store that was killed at work, and what it had acknowledged.
type damageBase struct {
	dir   string
	acked map[uint64]string
	files []string // relative
	texts map[string][]byte
	sizes map[string]int // with the zeros that files are made long with
}

func newDamageBase(t *testing.T) *damageBase {
	t.Helper()
	b := &damageBase{dir: t.TempDir() + "/q", acked: map[uint64]string{}, texts: map[string][]byte{}, sizes: map[string]int{}}
	// Few events: each case reads all of them several times.
	for chance, lives := testhost.Chance(t), 0; lives < 3; {
		c, before := startCrashChild(t, b.dir, ""), len(b.acked)
		c.follow(b.acked, time.Duration(chance.IntN(40)+5)*time.Millisecond, func() { c.cmd.Process.Kill() })
		if len(b.acked) > before {
			lives++
		}
	}
	b.read(t)
	return b
}

// read keeps the files.
func (b *damageBase) read(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir(b.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		name, _ := filepath.Rel(b.dir, path)
		text, err := os.ReadFile(path)
		b.files = append(b.files, name)
		b.sizes[name] = len(text)
		b.texts[name] = text[:usedLen(text)]
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// usedLen is the length of a file without the zeros at its end.
func usedLen(text []byte) int {
	const piece = 64 << 10
	used := len(text)
	for used > piece && allZero(text[used-piece:used]) {
		used -= piece
	}
	return len(bytes.TrimRight(text[:used], "\x00"))
}

// copyTo copies the store.
func (b *damageBase) copyTo(t *testing.T, dir string) {
	t.Helper()
	for _, name := range b.files {
		to := filepath.Join(dir, name)
		err := errors.Join(os.MkdirAll(filepath.Dir(to), 0o700), os.WriteFile(to, b.texts[name], 0o600), os.Truncate(to, int64(b.sizes[name])))
		if err != nil {
			t.Fatal(err)
		}
	}
}

// hurt damages one file of a copy. What is behind the end of a file that was made long
// is nothing that could be damaged.
func (b *damageBase) hurt(t *testing.T, dir, name string, kind int, r *rand.Rand) {
	t.Helper()
	path := filepath.Join(dir, name)
	text, full := bytes.Clone(b.texts[name]), b.sizes[name]
	if len(text) == 0 {
		text, full = []byte{0}, max(full, 1)
	}
	used := len(text)
	other := append(bytes.Clone(text), make([]byte, full-used)...)
	for _, o := range b.files {
		if o != name && filepath.Ext(o) == filepath.Ext(name) && filepath.Dir(o) == filepath.Dir(name) {
			other = append(bytes.Clone(b.texts[o]), make([]byte, b.sizes[o]-len(b.texts[o]))...)
		}
	}
	text = damageKinds()[kind].do(r, text, other)
	if text == nil {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		return
	}
	err := os.WriteFile(path, text, 0o600)
	if err == nil && len(text) == used {
		err = os.Truncate(path, int64(full))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// openDamaged is the child: it opens the store as a daemon does and reads everything.
func openDamaged(dir string) {
	s, err := Open(context.Background(), Options{Dir: dir, stat: roomy, OnFatal: func(err error) {
		fmt.Println("STOPPED", err)
		os.Exit(74)
	}})
	if fe, ok := errors.AsType[*FormatError](err); ok {
		fmt.Println("REFUSED", fe)
		os.Exit(65)
	}
	if err != nil {
		fmt.Println("FAILED", err)
		os.Exit(74)
	}
	ctx := context.Background()
	if _, err := s.SetLanes(ctx, wants("expenses.a", "expenses.b")); err != nil {
		fmt.Println("FAILED", err)
		os.Exit(74)
	}
	for lane := range s.Lanes() {
		after := uint64(0)
		for more := true; more; {
			var ds []Delivery
			ds, more, err = s.ReadReady(lane, after, 1000, 1<<30)
			if len(ds) == 0 {
				break
			}
			after = ds[len(ds)-1].Seq
		}
		_, _, err = s.ReadWaiting(lane, 0, 0, 1<<60, 1<<20, 1<<30)
	}
	if _, err := s.Verify(ctx); err != nil {
		fmt.Println("FAILED", err)
		os.Exit(74)
	}
	if err := s.Close(ctx); err != nil {
		fmt.Println("FAILED", err)
		os.Exit(74)
	}
	fmt.Println("OPENED")
}

// start runs the child on a store. It returns what it said, or why it died.
func startDamaged(t *testing.T, dir string) string {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), damagedEnv+"="+dir)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(damagedPatience, func() { _ = cmd.Process.Signal(syscall.SIGQUIT) }) // with a trace
	err := cmd.Wait()
	timer.Stop()
	if text := strings.TrimSpace(out.String()); text != "" && (err == nil || cmd.ProcessState.ExitCode() > 2) {
		return text
	}
	return fmt.Sprintf("PANIC %v %s", err, firstLines(errs.String(), 120))
}

func firstLines(s string, n int) string {
	lines := strings.SplitN(s, "\n", n+1)
	return strings.Join(lines[:min(n, len(lines))], "\n")
}

// account compares a store with what was acknowledged. What a check has named as lost
// may be missing.
func (b *damageBase) account(t *testing.T, dir string, named *FsckReport) (wrong []string) {
	t.Helper()
	add := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	s, err := Open(context.Background(), Options{Dir: dir, stat: roomy})
	if err != nil {
		return []string{"it does not open: " + err.Error()}
	}
	h := &harness{t: t, opts: Options{Dir: dir, stat: roomy}, Store: s}
	defer h.close()
	f, err := h.Verify(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	wrong = append(wrong, f.Problems...)
	event := func(seq uint64) bool { return named != nil && slices.Contains(named.LostEvents, id.Event(h.id, seq)) }
	for lane := Lane(1); lane <= 2; lane++ {
		if name := h.LaneName(lane); name != []string{"expenses.a", "expenses.b"}[lane-1] {
			add("lane %d is called %q", lane, name)
		}
		seen := h.entries(lane)
		for seq := range b.acked {
			if _, ok := seen[seq]; !ok && !event(seq) && (named == nil || !slices.Contains(named.LostDeliveries, id.Delivery(h.id, uint32(lane), seq))) {
				add("the delivery of event %d to lane %d is nowhere", seq, lane)
			}
		}
	}
	for seq, entry := range b.acked {
		r, err := h.Event(seq)
		if err != nil && !event(seq) {
			add("event %d: %v", seq, err)
		}
		if err == nil && string(r.Payloads[FormatPeanuts]) != string(crashPayload(entry)) {
			add("event %d: payload changed", seq)
		}
	}
	return wrong
}

// TestDamageIsNeverSilent damages a file of a store that was killed at work, every
// file in turn in every way. A daemon that starts refuses, or has everything, or a
// check says what is missing; it does not panic. Then a repair makes a store that
// opens, and what is not in it was named.
func TestDamageIsNeverSilent(t *testing.T) {
	b := newDamageBase(t)
	kinds := damageKinds()
	// Those with rows first: a short run has one of each.
	slices.SortStableFunc(b.files, func(a, b string) int { return damageOrder(a) - damageOrder(b) })
	n := damages()
	var mu sync.Mutex // guards the two
	outcomes, lost := map[string]int{}, 0
	testhost.Account(t, n*len(b.acked), 0) // one that is lost and not named fails the test
	testhost.Cases(t, n)
	t.Cleanup(func() {
		t.Logf("%d acknowledged events in %d files, %d damages: %v; %d events and deliveries were named as lost", len(b.acked), len(b.files), n, outcomes, lost)
	})
	for i := range n {
		file := i % len(b.files)
		name, kind := b.files[file], (i/len(b.files)+4*file)%len(kinds)
		t.Run(fmt.Sprintf("%s/%s/%d", filepath.Base(name), kinds[kind].name, i), func(t *testing.T) {
			t.Parallel()
			dir, twin := t.TempDir()+"/q", t.TempDir()+"/q"
			for _, at := range []string{dir, twin} {
				b.copyTo(t, at)
				b.hurt(t, at, name, kind, rand.New(rand.NewPCG(uint64(i), 7)))
			}
			word, named := b.outcome(t, twin), b.mend(t, dir)
			os.RemoveAll(dir)
			os.RemoveAll(twin)
			mu.Lock()
			defer mu.Unlock()
			outcomes[word]++
			lost += named
		})
	}
}

// damageOrder puts one file of each kind first.
func damageOrder(name string) int {
	base := filepath.Base(name)
	if i := slices.Index([]string{"000001.sst", "MANIFEST", "000001.vlog", "journal"}, base); i >= 0 {
		return i
	}
	if filepath.Ext(name) == ".mem" {
		return 2
	}
	return 9
}

// outcome starts a daemon on a damaged store, and again when it dies: the third start
// has a reason for it.
func (b *damageBase) outcome(t *testing.T, dir string) string {
	t.Helper()
	endWell(dir) // the kills that made the store do not count
	says := startDamaged(t, dir)
	word, _, _ := strings.Cut(says, " ")
	switch word {
	case "OPENED":
		if r := inspect(t, dir, false); r.Found > 0 {
			return word
		}
		if wrong := b.account(t, dir, nil); len(wrong) > 0 {
			t.Errorf("it opened and nothing was said, but %d things are wrong, such as: %s", len(wrong), wrong[0])
		}
	case "REFUSED":
	default:
		again := ""
		for range fewStarts {
			if again = startDamaged(t, dir); strings.HasPrefix(again, "REFUSED") || strings.HasPrefix(again, "OPENED") {
				return word
			}
		}
		t.Errorf("started %d times; at last: %s\nat first: %s", 1+fewStarts, again, says)
	}
	return word
}

// mend repairs a damaged store and compares it with what was acknowledged.
func (b *damageBase) mend(t *testing.T, dir string) (lost int) {
	t.Helper()
	r, err := Fsck(context.Background(), FsckOptions{Dir: dir, Repair: true, stat: roomy})
	if err != nil {
		t.Errorf("repair: %v", err)
		return 0
	}
	if wrong := b.account(t, dir, r); len(wrong) > 0 {
		text, _ := json.Marshal(r)
		t.Errorf("after a repair %d things are wrong, such as: %v\nof %d events; %.1500s", len(wrong), wrong[:min(3, len(wrong))], len(b.acked), text)
	}
	inspect(t, dir, false).mustBeSound(t)
	return int(r.LostEventCount + r.LostDeliveryCount)
}
