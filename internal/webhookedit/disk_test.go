package webhookedit_test

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/rest"
)

// writer is the environment variable that makes the test binary edit the
// configuration that it names until it is killed.
const writer = "PEANUTS_RELAY_TEST_EDIT"

func TestMain(m *testing.M) {
	if main := os.Getenv(writer); main != "" {
		os.Exit(editForEver(main))
	}
	flag.Parse()
	// Every step writes durably and loads all files several times; -rapid.checks
	// on the command line asks for more than these few.
	if f := flag.Lookup("rapid.checks"); f.Value.String() == f.DefValue {
		if err := f.Value.Set("6"); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// editForEver makes and deletes a webhook with 200 headers, again and again,
// and says so after each edit.
func editForEver(main string) int {
	w := &world{daemon: &daemon{main: main}, dir: filepath.Dir(main)}
	w.editor = w.newEditor()
	headers := map[string]*string{}
	for i := range 99 {
		headers[fmt.Sprintf("X-%d", i)] = new(strings.Repeat("v", 500))
	}
	for {
		_, err := w.editor.Create(context.Background(), nil, rest.WebhookChange{ID: new("big"), URL: new("https://example.com/big"), Headers: headers})
		if err == nil {
			fmt.Println("edit")
			err = w.editor.Delete(context.Background(), nil, "expenses.big")
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		fmt.Println("edit")
	}
}

func TestAKilledEditLeavesTheOldFileOrTheNewOne(t *testing.T) {
	const old = "# mine\nhelpers: {expenses: {webhooks: {small: {url: 'https://example.com/small'}}}}\n"
	w := newWorld(t, map[string]string{"conf.d/90-api.yaml": old})
	whole := 0
	for round := range 12 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), writer+"="+w.main)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for range 1 + round%5 {
			if !lines.Scan() {
				t.Error("the process ended by itself")
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait() // it was killed

		cfg, report := w.load(nil)
		if cfg == nil {
			t.Fatalf("round %d left a broken file: %v\n%s", round, report.Err(), w.own(t))
		}
		ids := map[string]int{}
		for _, x := range cfg.Webhooks() {
			ids[x.ID] = len(x.Headers)
		}
		switch n, big := ids["expenses.big"]; {
		case !strings.Contains(w.own(t), "# mine") || len(ids) < 2:
			t.Fatalf("round %d left %v\n%s", round, ids, w.own(t))
		case big && n != 99:
			t.Errorf("round %d left half an edit: %d headers", round, n)
		case big:
			whole++
			if err := w.editor.Delete(t.Context(), nil, "expenses.big"); err != nil {
				t.Fatal(err)
			}
		}
	}
	entries, err := os.ReadDir(filepath.Join(w.dir, "conf.d"))
	if err != nil || len(entries) > 2 {
		t.Errorf("%d files are left, %v", len(entries), err)
	}
	t.Logf("%d of 12 kills came after the creation", whole)
}

func TestWhatAnInterruptedEditLeftDoesNotMatter(t *testing.T) {
	w := newWorld(t, map[string]string{"conf.d/.90-api.yaml.tmp": "half of a fi"})
	w.change(t, "expenses.backend", rest.WebhookChange{Active: new(false)})
	if _, err := os.Lstat(filepath.Join(w.dir, "conf.d/.90-api.yaml.tmp")); !os.IsNotExist(err) {
		t.Errorf("it is still there: %v", err)
	}
}

func TestALinkInPlaceOfTheFileIsNotFollowed(t *testing.T) {
	w := newWorld(t, map[string]string{"elsewhere.yaml": "helpers: {}\n", "conf.d/10.yaml": "helpers: {}\n"})
	if err := os.Symlink("../elsewhere.yaml", filepath.Join(w.dir, "conf.d/90-api.yaml")); err != nil {
		t.Fatal(err)
	}
	_, err := w.editor.Change(t.Context(), nil, "expenses.backend", rest.WebhookChange{Active: new(false)})
	refused(t, err, 409, "not a regular file")
	if data, err := os.ReadFile(filepath.Join(w.dir, "elsewhere.yaml")); err != nil || string(data) != "helpers: {}\n" {
		t.Errorf("the target is %q, %v", data, err)
	}
}

func TestTheDirectoryMayBeALink(t *testing.T) {
	w := newWorld(t, map[string]string{"elsewhere/10.yaml": "helpers: {}\n"})
	if err := os.Symlink("elsewhere", filepath.Join(w.dir, "conf.d")); err != nil {
		t.Fatal(err)
	}
	w.change(t, "expenses.backend", rest.WebhookChange{Active: new(false)})
	if _, err := os.Stat(filepath.Join(w.dir, "elsewhere/90-api.yaml")); err != nil {
		t.Error(err)
	}
	if info, err := os.Lstat(filepath.Join(w.dir, "conf.d")); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is gone: %v", err)
	}
}

// Programs that send list this directory too.
func TestTheDirectoryIsAsOpenAsThatOfTheMainFile(t *testing.T) {
	for _, c := range []struct{ above, want os.FileMode }{{0o755, 0o755}, {0o777, 0o755}, {0o750, 0o750}, {0o700, 0o700}} {
		w := newWorld(t, nil)
		if err := os.Chmod(w.dir, c.above); err != nil {
			t.Fatal(err)
		}
		w.change(t, "expenses.backend", rest.WebhookChange{Active: new(false)})
		for name, want := range map[string]os.FileMode{"conf.d": c.want, "conf.d/90-api.yaml": 0o600} {
			if info, err := os.Stat(filepath.Join(w.dir, name)); err != nil || info.Mode().Perm() != want {
				t.Errorf("%s below %v: %v, %v, want %v", name, c.above, info.Mode(), err, want)
			}
		}
	}
}

func TestAReadOnlyDirectoryIsExplained(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root may write everywhere")
	}
	w := newWorld(t, map[string]string{"conf.d/10.yaml": "helpers: {}\n"})
	dir := filepath.Join(w.dir, "conf.d")
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(dir, 0o700) })
	_, err := w.editor.Change(t.Context(), nil, "expenses.backend", rest.WebhookChange{Active: new(false)})
	if r := refused(t, err, 403, "permission denied", dir); r.Code != rest.CodeReadOnly {
		t.Errorf("code %s", r.Code)
	}
}

func TestTheOwnerOfTheFileStays(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can give a file away")
	}
	w := newWorld(t, map[string]string{"conf.d/90-api.yaml": "helpers: {expenses: {webhooks: {backend: {enabled: false, format: event}}}}\n"})
	path := filepath.Join(w.dir, "conf.d/90-api.yaml")
	if err := os.Chown(path, 12345, 54321); err != nil {
		t.Fatal(err)
	}
	w.change(t, "expenses.backend", rest.WebhookChange{Active: new(true)})
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if st := info.Sys().(*syscall.Stat_t); st.Uid != 12345 || st.Gid != 54321 || info.Mode().Perm() != 0o600 {
		t.Errorf("owner %d:%d, mode %v", st.Uid, st.Gid, info.Mode())
	}
}
