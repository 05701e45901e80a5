package relay

import "testing"

func TestTheRoomForGarbageDependsOnWhatIsInUse(t *testing.T) {
	for live, want := range map[uint64]int{0: 100, 5 << 20: 100, 64 << 20: 75, 84 << 20: 33, 140 << 20: 20, 1 << 40: 15} {
		if got := gcPercent(live); got != want {
			t.Errorf("%d bytes in use: %d %%, want %d %%", live, got, want)
		}
	}
}
