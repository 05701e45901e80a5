package queue

import (
	"slices"

	"github.com/peanutsapp/peanuts-relay/internal/id"
)

// window judges what was noted of the events of the window.
func (a *auditor) window() {
	for at, e := range a.events {
		seq := a.base + uint64(at)
		if e&eventThere != 0 {
			a.out.EventsKept++
		} else if e&eventDamaged != 0 {
			a.out.EventsKept++
			a.wrong(id.Event(a.s.id, seq), "its record is damaged")
		} else if e&eventLost != 0 {
			a.out.EventsLost++
		} else if a.due(seq) == seq {
			a.wrong(id.Event(a.s.id, seq), "was accepted, and its record is nowhere")
		}
	}
	for _, lane := range a.laneOrder() {
		l := a.lanes[lane]
		for at, p := range l.places {
			switch n := p & placeCount; {
			case n > 1:
				a.wrong(a.delivery(lane, a.base+uint64(at)), "is in more than one state")
			case n == 0 && p&placeListed != 0:
				a.absent(lane, l, a.base+uint64(at))
			}
		}
	}
}

// absent notes a delivery that its event says there is, and that is nowhere. It may
// have been let go as whatever had ended on a day whose log was dropped. Otherwise an
// operator took it out of the log, or it is lost; the sums will tell.
func (a *auditor) absent(lane Lane, l *auditLane, seq uint64) {
	log := bucketBit(kindFinished, classDelivered) | bucketBit(kindFinished, classFailed)
	for i := len(a.days) - 1; i >= 0; i-- {
		d := &a.days[i]
		if d.gone&log != 0 && (i+1 == len(a.days) || a.days[i+1].firstSeq > seq) {
			return
		}
	}
	if len(a.days) == 0 || seq < a.days[0].firstSeq {
		return // whole days are forgotten
	}
	l.gone++
	if len(l.names) < maxAuditProblems {
		l.names = append(l.names, AuditProblem{ID: a.delivery(lane, seq), What: "was accepted, and is in no state"})
	}
}

// due is the first event from a number on that must have a record, the highest
// number there is when there is none: the bucket of its day was not dropped, and the
// number was given out.
func (a *auditor) due(seq uint64) uint64 {
	for i := range a.days {
		d := &a.days[i]
		last := a.led.lastSeq
		if i+1 < len(a.days) {
			last = a.days[i+1].firstSeq - 1
		}
		if last < seq || d.gone&bucketBit(kindEvent, eventAccepted) != 0 {
			continue
		}
		at := max(seq, d.firstSeq)
		for _, g := range a.gaps {
			if at > g.last && at < g.next {
				at = g.next
			}
		}
		if at <= last {
			return at
		}
	}
	return 1<<64 - 1
}

// settle compares the sums.
func (a *auditor) settle() {
	exact := [2]bool{a.nothingDropped(classDelivered), a.nothingDropped(classFailed)}
	var sum int64
	for _, lane := range a.laneOrder() {
		l, want := a.lanes[lane], a.snapshot.lanes[lane]
		a.findings.compare(lane, want, &l.laneCounts)
		out := AuditLane{Lane: lane, Webhook: l.name, Pending: l.pending(), Success: want.success, Failed: want.failed,
			Delivered: l.kept[classDelivered], Refused: l.kept[classFailed], SetAside: l.setAside[0] + l.setAside[1], Removed: want.removedRows}
		out.Forgotten = out.Success + out.Failed - out.Delivered - out.Refused - out.SetAside - out.Removed
		a.out.Lanes = append(a.out.Lanes, out)
		sum += want.pending() + out.Success + out.Failed

		for class, of := range [2]struct {
			name   string
			ended  int64
			except int64
		}{{"delivered", out.Success, l.setAside[0]}, {"failed", out.Failed, l.setAside[1] + out.Removed}} {
			left := of.ended - l.kept[class] - of.except
			if left < 0 || left > 0 && exact[class] {
				a.wrong("", "webhook %s: %d deliveries were %s, %d are in the log and %d are accounted for otherwise", l.name, of.ended, of.name, l.kept[class], of.except)
			}
		}
		if l.gone > out.SetAside+out.Removed {
			for _, p := range l.names {
				a.wrong(p.ID, "%s", p.What)
			}
			a.out.Wrong += l.gone - int64(len(l.names))
		}
	}
	a.out.Rows = a.rows
	for _, what := range a.findings.Problems {
		a.wrong("", "%s", what)
	}
	if a.led.deliveries != sum {
		a.wrong("", "%d deliveries were accepted, %d are finished or pending", a.led.deliveries, sum)
	}
	var skipped uint64
	for _, g := range a.gaps {
		skipped += g.next - g.last - 1
	}
	if given := int64(a.led.lastSeq - skipped); given != a.led.events {
		a.wrong("", "%d events were accepted, %d numbers were given out", a.led.events, given)
	}
	a.out.EventsForgotten = a.out.Events - a.out.EventsKept - a.out.EventsLost
}

// nothingDropped reports whether retention has never dropped a day of the log.
func (a *auditor) nothingDropped(class uint8) bool {
	bit := bucketBit(kindFinished, class)
	return (len(a.days) == 0 && a.led.lastSeq == 0 || len(a.days) > 0 && a.days[0].firstSeq <= 1) &&
		!slices.ContainsFunc(a.days, func(d dayState) bool { return d.gone&bit != 0 })
}
