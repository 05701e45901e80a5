package relay

import "testing"

func TestTheRoomForGarbageDependsOnWhatIsInUse(t *testing.T) {
	for live, want := range map[uint64]int{0: 100, 5 << 20: 100, 64 << 20: 62, 84 << 20: 23, 100 << 20: 20, 160 << 20: 12, 1 << 40: 12} {
		if got := gcPercent(live); got != want {
			t.Errorf("%d bytes in use: %d %%, want %d %%", live, got, want)
		}
	}
}
