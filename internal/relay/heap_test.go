package relay

import "testing"

func TestTheRoomForGarbageIsTheSameWhateverIsInUse(t *testing.T) {
	for live, want := range map[uint64]int{0: 60, 5 << 20: 60, 64 << 20: 50, 128 << 20: 25, 160 << 20: 20, 1 << 40: 15} {
		if got := gcPercent(live); got != want {
			t.Errorf("%d bytes in use: %d %%, want %d %%", live, got, want)
		}
	}
}
