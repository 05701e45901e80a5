package main

import (
	"testing"
	"time"
)

func TestOthersHadWhatIsNeitherIdleNorOurs(t *testing.T) {
	for _, row := range []struct {
		from, to processors
		want     float64
	}{
		{processors{100, 50, 10}, processors{300, 200, 60}, .5},
		{processors{100, 50, 10}, processors{300, 90, 60}, 0}, // ticks are coarse
		{processors{}, processors{}, 0},
	} {
		if got := row.from.othersUntil(row.to); got != row.want {
			t.Errorf("%+v to %+v: %v", row.from, row.to, got)
		}
	}
	if p := readProcessors(); p.busy <= 0 || p.all < p.busy || p.own <= 0 || p.own > p.busy+time.Minute {
		t.Errorf("of this machine: %+v", p)
	}
}
