package main

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestTheMedianIsTheMiddleOrTheMeanOfTheTwoThere(t *testing.T) {
	for _, row := range []struct {
		of   []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 5}, 5}, {[]float64{4, 1, 2, 9}, 3}} {
		given := slices.Clone(row.of)
		if got := median(row.of); got != row.want {
			t.Errorf("median of %v: %v", row.of, got)
		}
		if !slices.Equal(given, row.of) {
			t.Errorf("%v was sorted in place", given)
		}
	}
}

func TestRoundsAreDividedOneByOne(t *testing.T) {
	for _, row := range []struct {
		of, by []float64
		want   quotient
	}{
		// The machine became four times slower after the first round: the ratios show nothing of it.
		{[]float64{80, 20, 18}, []float64{100, 25, 20}, quotient{.8, .8, .9}},
		{[]float64{10, 5}, []float64{0, 10}, quotient{.5, .5, .5}},
		{[]float64{10, 5, 7}, []float64{10}, quotient{1, 1, 1}},
		{nil, []float64{1}, quotient{}},
	} {
		if got := ratios(row.of, row.by); got != row.want {
			t.Errorf("%v by %v: %+v", row.of, row.by, got)
		}
	}
}

func TestDisturbedRoundsAreLeftOutAsFarAsThreeRemain(t *testing.T) {
	side := func(others ...float64) (out []leg) {
		for i, o := range others {
			out = append(out, leg{rate: float64(i), others: o})
		}
		return out
	}
	for _, row := range []struct {
		a, b []float64
		want []float64
	}{
		{[]float64{.1, .25, 0, .1}, []float64{0, 0, 0, .1}, []float64{0, 1, 2, 3}},
		{[]float64{.1, .3, 0, .1}, []float64{0, 0, 0, .1}, []float64{0, 2, 3}},
		{[]float64{.1, 0, 0, .1}, []float64{0, 0, .9, .1}, []float64{0, 1, 3}},
		{[]float64{.6, .5, .4, .3, .7}, []float64{0, 0, 0, 0, 0}, []float64{1, 2, 3}},
		{[]float64{.6, .5}, []float64{0, 0}, []float64{0, 1}},
	} {
		legs := undisturbed([][]leg{side(row.a...), side(row.b...)})
		if len(legs) != 2 || !slices.Equal(rates(legs[0]), row.want) || !slices.Equal(rates(legs[1]), row.want) {
			t.Errorf("%v and %v: %v", row.a, row.b, legs)
		}
	}
	if got := rounds([][]leg{side(0, 0, 0)}, 5); got != "median of the 3 quietest of 5 rounds" {
		t.Error(got)
	}
	if got := rounds([][]leg{side(0, 0, 0)}, 3); got != "median of 3 rounds" {
		t.Error(got)
	}
}

func TestByVolumeALegThatStallsCounts(t *testing.T) {
	// 300 events in 1 + 1 + 8 seconds.
	if got := byVolume([]leg{{rate: 100, events: 100}, {rate: 100, events: 100}, {rate: 12.5, events: 100}}); got != 30 {
		t.Errorf("%v", got)
	}
}

func TestSidesTakeTurnsAndTheFirstRoundDoesNotCount(t *testing.T) {
	var order strings.Builder
	side := func(name string) turn {
		n := 0.0
		return func() (leg, error) {
			order.WriteString(name)
			n++
			return leg{rate: n}, nil
		}
	}
	legs, err := alternate(3, side("a"), side("b"))
	if err != nil {
		t.Fatal(err)
	}
	if order.String() != "abbaabba" {
		t.Errorf("order %s", order.String())
	}
	for i, l := range legs {
		if got := rates(l); !slices.Equal(got, []float64{2, 3, 4}) {
			t.Errorf("side %d: %v", i, got)
		}
	}
	failed := errors.New("failed")
	if legs, err := alternate(3, side("a"), func() (leg, error) { return leg{}, failed }); !errors.Is(err, failed) || legs != nil {
		t.Errorf("%v, %v", legs, err)
	}
}

func TestARowReachesItsGoalOrTheFirstOrNeither(t *testing.T) {
	none := math.NaN()
	pair := mostOf([2]float64{2, 12}, [2]float64{1, 5})
	for _, row := range []struct {
		target target
		values []float64
		want   string
	}{
		{least("", .3, .5), []float64{.5, .1}, "goal"}, // the second is shown only
		{least("", .3, .5), []float64{.49}, "first"},
		{least("", .3, .5), []float64{.29}, "no"},
		{least("", none, .45), []float64{.45}, "goal"},
		{least("", none, .45), []float64{.44}, "no"},
		{most("", 200, 80), []float64{80}, "goal"},
		{most("", 200, 80), []float64{81}, "first"},
		{most("", 200, 80), []float64{201}, "no"},
		{most("", none, 2), []float64{2.1}, "no"},
		{most("", 0, 0), []float64{1}, "no"},
		{most("", 0, 0), []float64{0}, "goal"},
		{pair, []float64{1, 5}, "goal"},
		{pair, []float64{.5, 5.1}, "first"},
		{pair, []float64{2.1, 4}, "no"},
		{pair, []float64{1}, "no"}, // a figure is missing
		{most("", 1, 1), []float64{none}, "no"},
		{target{}, []float64{7}, ""},
	} {
		if got := markOf(row.target, row.values...); got != row.want {
			t.Errorf("%+v with %v: %q, want %q", row.target, row.values, got, row.want)
		}
	}
}

func TestTheTableShowsBoundsAndMarks(t *testing.T) {
	r := &report{}
	r.heading("Group")
	r.add("memory", "%.0f MiB", most(" MiB", 128, 96), 110)
	r.add("kept; lowest", "%.0f %%; %.0f %%", least(" %", 90, 95), 96, 80)
	r.add("p50 / p99", "%.1f / %.1f", mostOf([2]float64{1.5, 20}, [2]float64{.6, 4}), .4, 30)
	r.compare("over TLS", least("", math.NaN(), .45), quotient{.5, .4, .6})
	r.tell("for information", "%.0f/s", 7)
	var b bytes.Buffer
	if err := r.write(&b); err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(b.String(), "\n\n")
	want := `| what | this run | first | goal | reached |
|--- |--- |--- |--- |--- |
| **Group** | | | | |
| memory | 110 MiB | 128 MiB | 96 MiB | first |
| kept; lowest | 96 %; 80 % | 90 % | 95 % | goal |
| p50 / p99 | 0.4 / 30.0 | 1.5 / 20 | 0.6 / 4 | no |
| over TLS | 0.500; 0.400 | | 0.45 | goal |
| for information | 7/s | | | |
`
	var got strings.Builder
	for line := range strings.Lines(table) {
		got.WriteString(strings.Join(strings.Fields(line), " ") + "\n")
	}
	if got.String() != want {
		t.Errorf("table:\n%s\nwant:\n%s", got.String(), want)
	}
}

func TestTheTargetsOfABacklogDependOnItsSize(t *testing.T) {
	for _, row := range []struct {
		pending      int64
		rate, memory float64
		want         [2]string
	}{
		{1000000, .94, 129, [2]string{"first", "first"}},
		{1000000, .95, 128, [2]string{"goal", "goal"}},
		{10000000, .9, 160, [2]string{"goal", "goal"}},
		{10000000, .89, 161, [2]string{"no", "no"}},
	} {
		rate, memory := (&backlogPoint{Pending: row.pending}).targets()
		got := [2]string{markOf(rate, row.rate, row.rate), markOf(memory, row.memory)}
		if got != row.want {
			t.Errorf("%d pending: %v, want %v", row.pending, got, row.want)
		}
	}
}

func markOf(t target, v ...float64) string { return row{values: v, target: t}.reached() }

func TestASenderThatWasStoppedSendsNothingMore(t *testing.T) {
	l := &loader{socket: "missing", maxTime: time.Hour, pacer: pacer{n: 10, start: time.Now()}}
	l.stopped.Store(true)
	if lats, _ := l.connection(); len(lats) > 0 || l.errs.Load() > 0 {
		t.Errorf("%d sent, %d errors", len(lats), l.errs.Load())
	}
}
