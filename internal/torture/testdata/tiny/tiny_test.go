package tiny

import (
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"
)

func count() int {
	n, _ := strconv.Atoi(os.Getenv("TINY_CASES"))
	return n
}

func TestNothingIsLost(t *testing.T) {
	n := count()
	t.Attr("cases", strconv.Itoa(n))
	t.Attr("acked", strconv.Itoa(10*n))
	t.Attr("lost", "0")
	if got := Kept(n); got != n {
		t.Errorf("kept %d of %d", got, n)
	}
}

func TestSubtestsAreCases(t *testing.T) {
	for _, name := range []string{"one", "two", "three"} {
		t.Run(name, func(*testing.T) {})
	}
}

func TestSomethingIsLost(t *testing.T) {
	t.Attr("acked", "7")
	t.Attr("lost", "2")
}

func TestItFails(t *testing.T) {
	t.Log("a note")
	t.Run("below", func(t *testing.T) { t.Error("seed " + os.Getenv("PEANUTS_TEST_SEED")) })
}

func TestItPanics(*testing.T) { panic("at the disco") }

func TestItIsSkipped(t *testing.T) { t.Skip("the moon is not full") }

func TestTheControlSeesNothing(t *testing.T) { t.Error("nothing was noticed") }

func TestItReportsNonsense(t *testing.T) { t.Attr("lost", "many") }

func TestItHangs(t *testing.T) {
	cmd := exec.Command("sleep", "3600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(os.Getenv("TINY_PIDS"), []byte(strconv.Itoa(os.Getpid())+" "+strconv.Itoa(cmd.Process.Pid)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Hour)
}

func FuzzNothing(f *testing.F) {
	f.Add(1)
	f.Fuzz(func(*testing.T, int) {})
}
