package main

import (
	"context"
	"slices"
	"time"
)

// task is a part of a row and what its runs showed.
type task struct {
	row     int
	part    part
	control bool

	runs    int
	m       int           // of the last run
	last    time.Duration // what it took
	spent   time.Duration // all runs
	sum     tally
	failure *failure
	busy    bool
}

// failure is the first run of a task that did not hold.
type failure struct {
	Why     string `json:"why"`
	Command string `json:"command"`
	Log     string `json:"log"`
	Seed    uint64 `json:"seed"`
}

// soakFrom is how many minutes a run must have for its soak.
const soakFrom = 5

// tasksOf lists what there is to do, controls included. A soak takes a minute, and is left
// out of a run that hardly has more.
func tasksOf(board []row, minutes float64) (tasks []*task) {
	for _, r := range board {
		for _, p := range r.parts {
			if p.soak > 0 && minutes < soakFrom {
				continue
			}
			tasks = append(tasks, &task{row: r.number, part: p})
		}
		for _, p := range r.controls {
			tasks = append(tasks, &task{row: r.number, part: p, control: true})
		}
	}
	return tasks
}

// scheduler runs tasks, several at a time: each once, and then those that can grow, the
// one that had the least time first, as long as it fits in before the deadline.
type scheduler struct {
	tasks    []*task
	places   int // how many run at once; and as many of those that hardly need a processor
	deadline time.Time
	seed     uint64
	run      func(context.Context, job) (t tally, log string)
	show     func(now []*task)
}

// finished is a run that has ended.
type finished struct {
	t   *task
	j   job
	sum tally
	log string
}

// schedule returns when there is nothing left to run and nothing runs, or soon after the
// end of ctx.
func (s *scheduler) schedule(ctx context.Context) {
	ends := make(chan finished)
	for {
		for ctx.Err() == nil {
			t, m := s.next(time.Now())
			if t == nil {
				break
			}
			j := job{part: t.part, m: m, seed: seedOf(s.seed, t.part, t.runs)}
			t.busy = true
			go func() {
				sum, log := s.run(ctx, j)
				ends <- finished{t, j, sum, log}
			}()
		}
		s.show(s.tasks)
		if !slices.ContainsFunc(s.tasks, func(t *task) bool { return t.busy }) {
			return
		}
		f := <-ends
		f.t.busy = false
		if ctx.Err() == nil {
			f.t.add(f)
		}
	}
}

// next is the task that is to begin now, and how many times its short form; nil when
// there is none, or no room for it.
func (s *scheduler) next(now time.Time) (best *task, m int) {
	running := map[bool]int{} // by whether they wait
	for _, t := range s.tasks {
		if t.busy && t.part.alone {
			return nil, 0
		}
		if t.busy {
			running[t.part.waits]++
		}
	}
	room := func(t *task) bool { return !t.busy && running[t.part.waits] < s.places }
	left := false // something of the first round
	for _, t := range s.tasks {
		if t.runs > 0 || t.busy {
			continue
		}
		left = left || !t.part.alone
		if !t.part.alone && room(t) {
			return t, 1
		}
	}
	if left {
		return nil, 0
	}
	for _, t := range s.tasks { // what must be alone, when all the others had their turn
		if t.runs == 0 && !t.busy {
			if len(running) > 0 {
				return nil, 0
			}
			return t, 1
		}
	}
	for _, t := range s.tasks {
		if fit := t.fits(s.deadline.Sub(now)); fit > 0 && room(t) && (best == nil || t.spent < best.spent) {
			best, m = t, fit
		}
	}
	if best != nil && best.part.alone && len(running) > 0 {
		return nil, 0
	}
	return best, m
}

// fits is how many times its short form a task may do in that time: twice the last
// time, or what there is room for; 0 when there is none.
func (t *task) fits(left time.Duration) int {
	if t.busy || t.control || t.failure != nil || !t.part.grows() || t.sum.passed == 0 {
		return 0
	}
	each := max(t.last/time.Duration(t.m), time.Millisecond)
	m := min(2*t.m, int(left/each))
	if t.part.most > 0 {
		m = min(m, t.part.most)
	}
	return max(m, 0)
}

// add counts a run.
func (t *task) add(f finished) {
	t.runs++
	t.m, t.last, t.spent = f.j.m, f.sum.took, t.spent+f.sum.took
	t.sum.cases += f.sum.cases
	t.sum.acked += f.sum.acked
	t.sum.lost += f.sum.lost
	t.sum.passed += f.sum.passed
	for _, reason := range f.sum.skipped {
		if !slices.Contains(t.sum.skipped, reason) {
			t.sum.skipped = append(t.sum.skipped, reason)
		}
	}
	why := f.sum.why
	if len(f.sum.failed) == 0 && f.sum.lost > 0 && !t.control {
		f.sum.failed, why = []string{f.j.part.run}, "something that was acknowledged is lost"
	}
	if len(f.sum.failed) > 0 && t.failure == nil {
		t.failure = &failure{Why: why, Command: f.j.command(f.sum.failed), Log: f.log, Seed: f.j.seed}
	}
}
