package http1

import (
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// pipe is a Conn whose other end tells when it is closed.
func pipe(t *testing.T) (c *Conn, closed func() bool) {
	ours, theirs := net.Pipe()
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = theirs.Read(make([]byte, 1))
	}()
	return NewConn(ours), func() bool {
		synctest.Wait()
		select {
		case <-done:
			return true
		default:
			return false
		}
	}
}

func TestThePoolHandsOutTheLastOneFirstAndKeepsNoMoreThanItMay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPool(2, time.Minute)
		defer p.Close()
		if p.Get() != nil {
			t.Error("an empty pool has a connection")
		}
		a, _ := pipe(t)
		b, _ := pipe(t)
		c, closed := pipe(t)
		for _, each := range []*Conn{a, b, c} {
			p.Put(each, time.Now())
		}
		if !closed() {
			t.Error("the third is not closed")
		}
		if p.Get() != b || p.Get() != a || p.Get() != nil {
			t.Error("not the last in first out")
		}
	})
}

func TestThePoolLetsGoOfWhatIsOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPool(3, time.Minute)
		defer p.Close()
		a, aClosed := pipe(t)
		b, bClosed := pipe(t)
		p.Put(a, time.Now())
		time.Sleep(40 * time.Second)
		p.Put(b, time.Now())
		for range 4 { // b serves on
			time.Sleep(10 * time.Second)
			if got := p.Get(); got != b {
				t.Fatal("not the last one")
			}
			p.Put(b, time.Now())
		}
		if !aClosed() || bClosed() {
			t.Errorf("a closed %v, b closed %v", aClosed(), bClosed())
		}
		time.Sleep(59 * time.Second)
		if bClosed() {
			t.Error("closed too early")
		}
		time.Sleep(2 * time.Second)
		if !bClosed() || p.Get() != nil {
			t.Error("not closed in time")
		}
		// The timer is armed again.
		c, cClosed := pipe(t)
		p.Put(c, time.Now())
		time.Sleep(61 * time.Second)
		if !cClosed() {
			t.Error("the next one is not closed")
		}
	})
}

func TestThePoolThrowsAwayWhatDied(t *testing.T) {
	p := NewPool(3, time.Minute)
	defer p.Close()
	good, _ := link(t)
	p.Put(good, time.Now())
	for range 2 {
		bad, theirs := link(t)
		theirs.Close()
		eventually(t, "alive", func() bool { return !bad.alive() })
		p.Put(bad, time.Now())
	}
	if p.Get() != good || p.Get() != nil {
		t.Error("not the one that lives")
	}
}

func TestAClosedPoolKeepsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPool(3, time.Minute)
		a, aClosed := pipe(t)
		b, bClosed := pipe(t)
		p.Put(a, time.Now())
		p.Close()
		p.Put(b, time.Now())
		p.Close()
		if !aClosed() || !bClosed() || p.Get() != nil {
			t.Error("something is kept")
		}
	})
}

func TestThePoolMayBeUsedByMany(t *testing.T) {
	p := NewPool(4, time.Millisecond) // old at once: the timer takes part
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				c := p.Get()
				if c == nil {
					ours, theirs := net.Pipe()
					defer theirs.Close()
					c = NewConn(ours)
				}
				p.Put(c, time.Now())
			}
		})
	}
	wg.Wait()
	p.Close()
}
