package history

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWhatWasNotedIsFound(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	if _, ok := Noted(dir, "/etc/a.yaml"); ok {
		t.Error("nothing was noted")
	}
	for _, queue := range []string{"/srv/one", "/srv/two", "/srv/two"} {
		if err := Note(dir, "/etc/a.yaml", queue); err != nil {
			t.Fatal(err)
		}
		if got, ok := Noted(dir, "/etc/a.yaml"); !ok || got != queue {
			t.Errorf("got %q, %v, want %q", got, ok, queue)
		}
	}
	if got, ok := Noted(dir, "/etc/b.yaml"); ok {
		t.Errorf("another file has %q", got)
	}
	entries, err := os.ReadDir(filepath.Join(dir, notedDir))
	if err != nil || len(entries) != 1 {
		t.Fatalf("%v %v", entries, err)
	}
	info, err := entries[0].Info()
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
}

func TestANoteThatIsOfNoUseIsNone(t *testing.T) {
	dir := t.TempDir()
	if err := Note(dir, "/etc/a.yaml", "/srv/one"); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, notedDir, place("/etc/a.yaml"))
	for name, text := range map[string]string{"empty": "", "cut short": "/srv/o", "relative": "srv/one\n", "endless": "/" + strings.Repeat("x", maxNoted) + "\n"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, ok := Noted(dir, "/etc/a.yaml"); ok {
			t.Errorf("%s: %q", name, got)
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/hostname", file); err != nil {
		t.Fatal(err)
	}
	if got, ok := Noted(dir, "/etc/a.yaml"); ok {
		t.Errorf("a link: %q", got)
	}
}

func TestWithoutAStateDirectoryNothingIsReadFromTheWorkingDirectory(t *testing.T) {
	dir := t.TempDir()
	if err := Note(dir, "/etc/a.yaml", "/srv/planted"); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	for _, unknown := range []string{"", "."} {
		if got, ok := Noted(unknown, "/etc/a.yaml"); ok {
			t.Errorf("state directory %q: %q", unknown, got)
		}
	}
}
