package testhost

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAnotherUserHasNoRightsOfRoot(t *testing.T) {
	if AsUser(t) {
		return
	}
	closed := filepath.Join(t.TempDir(), "closed")
	if err := os.WriteFile(closed, nil, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := os.ReadFile(closed); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("a file without permissions was read: %v", err)
	}
	if err := os.Chown(closed, -1, 0); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("a file was given to the group of root: %v", err)
	}
}

// failEnv makes a test of the other process fail.
const failEnv = "TESTHOST_TEST_FAILS"

func TestWhatFailsAsAnotherUserFails(t *testing.T) {
	if os.Getenv(failEnv) != "" {
		t.Fatal("this is the failure")
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root to become another user")
	}
	cmd := Command(t, nobodys, "-test.run=^"+t.Name()+"$")
	cmd.Env = append(cmd.Env, failEnv+"=1")
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "this is the failure") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestAProgramThatIsMissingFailsWhereNothingIsSkipped(t *testing.T) {
	for ci, want := range map[string]string{"true": "failed", "": "skipped"} {
		t.Setenv("CI", ci)
		var r recorder
		r.TB = t
		Program(&r, "no-such-program-anywhere")
		if r.ended != want || !strings.Contains(r.why, "no-such-program-anywhere") {
			t.Errorf("CI=%q: %s, %s", ci, r.ended, r.why)
		}
	}
}

// recorder takes the end of a test.
type recorder struct {
	testing.TB
	ended, why string
}

func (r *recorder) Helper() {}

func (r *recorder) Fatalf(format string, args ...any) {
	r.end("failed", format, args)
}

func (r *recorder) Skipf(format string, args ...any) {
	r.end("skipped", format, args)
}

func (r *recorder) end(how, format string, args []any) {
	if r.ended == "" { // the real one does not come back
		r.ended, r.why = how, strings.TrimSpace(format+" "+args[0].(string))
	}
}
