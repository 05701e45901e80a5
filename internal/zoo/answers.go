package zoo

import (
	"strings"

	"github.com/peanutsapp/peanuts-relay/internal/sinkpb"
)

// answers are the animals whose results are wrong. What they deliver is in their record
// all the same:
//
//	too-few       all but the first
//	too-many      all, and one more of an unknown delivery
//	unknown       one of an unknown delivery, for each
//	duplicate     each twice, delivered first and rejected second
//	none          no results
//	bad-outcome   an outcome that does not exist
//	big-state     a state of 5 KiB
//	big-message   a message of 1 MiB, with control characters
//	huge-N        an answer of N MiB, 64 without a number
//	shuffled      in the opposite order, which is right
func answers() map[string]func(animal) {
	all := map[string]func(animal){
		"huge": func(a animal) {
			r := a.raw()
			r.after = func(rs []*sinkpb.Result) []*sinkpb.Result {
				rs[0].Message = strings.Repeat("m", a.number(64)<<20)
				return rs
			}
			r.serve()
		},
	}
	stranger := func() *sinkpb.Result {
		return &sinkpb.Result{DeliveryId: "nobody_asked", Outcome: sinkpb.Outcome_OUTCOME_DELIVERED}
	}
	for behaviour, after := range map[string]func([]*sinkpb.Result) []*sinkpb.Result{
		"too-few":  func(rs []*sinkpb.Result) []*sinkpb.Result { return rs[1:] },
		"too-many": func(rs []*sinkpb.Result) []*sinkpb.Result { return append(rs, stranger()) },
		"unknown": func(rs []*sinkpb.Result) []*sinkpb.Result {
			for i := range rs {
				rs[i] = stranger()
			}
			return rs
		},
		"duplicate": func(rs []*sinkpb.Result) []*sinkpb.Result {
			for _, r := range rs {
				rs = append(rs, &sinkpb.Result{DeliveryId: r.GetDeliveryId(), Outcome: sinkpb.Outcome_OUTCOME_REJECTED, Code: "twice"})
			}
			return rs
		},
		"none": func([]*sinkpb.Result) []*sinkpb.Result { return nil },
		"bad-outcome": each(func(r *sinkpb.Result) {
			r.Outcome = 99
		}),
		"big-state": each(func(r *sinkpb.Result) {
			r.State = []byte(strings.Repeat("s", 5<<10))
		}),
		"big-message": each(func(r *sinkpb.Result) {
			r.Message = "\x1b[2J" + strings.Repeat("m\x00", 512<<10)
		}),
		"shuffled": func(rs []*sinkpb.Result) []*sinkpb.Result {
			for i, j := 0, len(rs)-1; i < j; i, j = i+1, j-1 {
				rs[i], rs[j] = rs[j], rs[i]
			}
			return rs
		},
	} {
		all[behaviour] = func(a animal) {
			r := a.raw()
			r.after = after
			r.serve()
		}
	}
	return all
}

func each(change func(*sinkpb.Result)) func([]*sinkpb.Result) []*sinkpb.Result {
	return func(rs []*sinkpb.Result) []*sinkpb.Result {
		for _, r := range rs {
			change(r)
		}
		return rs
	}
}
