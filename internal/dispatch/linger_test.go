package dispatch

import (
	"context"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// goroutine is the number of the one that calls it.
func goroutine() string {
	buf := make([]byte, 64)
	return strings.Fields(string(buf[:runtime.Stack(buf, false)]))[1]
}

func TestAGoroutineTakesTheNextWorkForASecondAndEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New(Options{})
		run := func() string {
			by := make(chan string, 1)
			if !d.spawn(func() { by <- goroutine() }) {
				t.Fatal("not started")
			}
			synctest.Wait() // it lingers
			return <-by
		}
		first := run()
		time.Sleep(lingerTime / 2)
		if second := run(); second != first {
			t.Errorf("goroutine %s ran after %s", second, first)
		}
		time.Sleep(lingerTime / 2)
		if third := run(); third != first {
			t.Error("the second began with the first work")
		}
		time.Sleep(lingerTime)
		synctest.Wait()
		if later := run(); later == first {
			t.Error("a goroutine outlasted its second")
		}
		if err := d.Stop(context.Background()); err != nil { // ends the one that lingers
			t.Error(err)
		}
		if d.spawn(func() { t.Error("ran after Stop") }) {
			t.Error("started after Stop")
		}
	})
}
