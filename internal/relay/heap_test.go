package relay

import "testing"

func TestTheRoomForGarbageDependsOnWhatIsInUse(t *testing.T) {
	for live, want := range map[uint64]int{0: 100, 5 << 20: 100, 64 << 20: 37, 76 << 20: 15, 100 << 20: 12, 160 << 20: 8, 1 << 40: 8} {
		if got := gcPercent(live); got != want {
			t.Errorf("%d bytes in use: %d %%, want %d %%", live, got, want)
		}
	}
}

func TestFreedMemoryIsReturnedByALargeProcessAlone(t *testing.T) {
	for _, c := range []struct {
		free, all uint64
		want      bool
	}{
		{0, 0, false}, {40 << 20, 84 << 20, false}, {10 << 20, 180 << 20, false}, {20 << 20, 110 << 20, true}, {80 << 20, 180 << 20, true},
	} {
		if got := tooMuchSpare(c.free, c.all); got != c.want {
			t.Errorf("%d bytes free of %d: %v", c.free, c.all, got)
		}
	}
}
