package packagetest

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/peanutsapp/peanuts-relay/internal/testhost"
)

// Two machines that differ in time zone, language and umask make the same bytes. scripts/package
// --verify also compares the bytes of programs built in different directories.
func TestBothBuildsAreTheSame(t *testing.T) {
	deb, archive := files(t, formerVersion)
	dir := filepath.Join(t.TempDir(), "another name")
	umask := syscall.Umask(0o077)
	defer syscall.Umask(umask)
	if err := buildPackage(dir, formerVersion, "TZ=Pacific/Auckland", "LC_ALL=C.UTF-8"); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{deb, archive} {
		one, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		other, err := os.ReadFile(filepath.Join(dir, filepath.Base(file)))
		if err != nil {
			t.Fatal(err)
		}
		if string(one) != string(other) {
			t.Errorf("%s differs between two builds", filepath.Base(file))
		}
	}
	testhost.Cases(t, 1)
}

// A higher version is one for dpkg, too, and what is on the way to a version comes before it.
func TestVersionsAreInTheOrderOfDpkg(t *testing.T) {
	testhost.Program(t, "dpkg")
	var last string
	for _, tag := range []string{"6f1c0de-dirty", "v1.2.3-rc.1", "v1.2.3-rc.1-2-g6f1c0de", "v1.2.3", "v1.2.3-4-g6f1c0de", "v1.2.3-4-g6f1c0de-dirty", "v1.2.4", "v1.10.0"} {
		version := strings.TrimSpace(testhost.Run(t, "env", "VERSION="+tag, "../../scripts/package", "--version"))
		if last != "" {
			testhost.Run(t, "dpkg", "--compare-versions", last, "lt", version)
		}
		last = version
	}
}
