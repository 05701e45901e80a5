package dispatch

import (
	"iter"
	"slices"
	"sync/atomic"

	"github.com/peanutsapp/peanuts-relay/internal/queue"
)

// keepCap is the capacity that an empty fifo keeps; a burst must not leave its
// memory behind in a thousand lanes.
const keepCap = 32

// fifo is a list of deliveries that counts its payloads against the budget of
// all lanes. The lane's lock guards it.
type fifo struct {
	q     []queue.Delivery
	head  int
	bytes int64
	total *atomic.Int64
}

func (f *fifo) len() int { return len(f.q) - f.head }

// push moves what is there only when that makes room for many: a list that stays
// nearly full would be moved for each delivery otherwise.
func (f *fifo) push(del *queue.Delivery) {
	if f.head > len(f.q)/4 && len(f.q) == cap(f.q) {
		n := copy(f.q, f.q[f.head:])
		clear(f.q[n:])
		f.q, f.head = f.q[:n], 0
	}
	f.q = append(f.q, *del)
	f.account(int64(len(del.Payload)))
}

// pop takes the oldest; the fifo must not be empty.
func (f *fifo) pop() queue.Delivery {
	del := f.q[f.head]
	f.q[f.head] = queue.Delivery{}
	f.head++
	f.account(-int64(len(del.Payload)))
	f.settle()
	return del
}

// unpop makes a delivery the oldest.
func (f *fifo) unpop(del *queue.Delivery) {
	if f.head > 0 {
		f.head--
		f.q[f.head] = *del
	} else {
		f.q = slices.Insert(f.q, 0, *del)
	}
	f.account(int64(len(del.Payload)))
}

// remove takes out the delivery with this sequence, if it is there.
func (f *fifo) remove(seq uint64) (queue.Delivery, bool) {
	for i := f.head; i < len(f.q); i++ {
		if f.q[i].Seq == seq {
			del := f.q[i]
			n := copy(f.q[i:], f.q[i+1:])
			f.q[i+n] = queue.Delivery{}
			f.q = f.q[:i+n]
			f.account(-int64(len(del.Payload)))
			f.settle()
			return del, true
		}
	}
	return queue.Delivery{}, false
}

// removeEntry takes out the oldest delivery of an entry.
func (f *fifo) removeEntry(entry string) (queue.Delivery, bool) {
	for del := range f.all() {
		if del.EntryID == entry {
			return f.remove(del.Seq)
		}
	}
	return queue.Delivery{}, false
}

// all goes through the deliveries, the oldest first.
func (f *fifo) all() iter.Seq[*queue.Delivery] {
	return func(yield func(*queue.Delivery) bool) {
		for i := f.head; i < len(f.q); i++ {
			if !yield(&f.q[i]) {
				return
			}
		}
	}
}

func (f *fifo) has(seq uint64) bool {
	for i := f.head; i < len(f.q); i++ {
		if f.q[i].Seq == seq {
			return true
		}
	}
	return false
}

// drain empties the fifo and calls gone for each sequence that was in it.
func (f *fifo) drain(gone func(seq uint64)) {
	for i := f.head; i < len(f.q); i++ {
		gone(f.q[i].Seq)
	}
	f.account(-f.bytes)
	f.q, f.head = nil, 0
}

func (f *fifo) account(n int64) {
	f.bytes += n
	f.total.Add(n)
}

func (f *fifo) settle() {
	if f.head < len(f.q) {
		return
	}
	f.q, f.head = f.q[:0], 0
}

// trim gives back the room that a burst left behind in an empty fifo.
func (f *fifo) trim() {
	if f.len() == 0 && cap(f.q) > keepCap {
		f.q, f.head = nil, 0
	}
}
