package queue

// fifo is a list that keeps its memory. What passes through it is moved within it
// less than four times for each that is pushed, however full it stays.
type fifo[T any] struct {
	items []T
	head  int
}

func (f *fifo[T]) len() int { return len(f.items) - f.head }

func (f *fifo[T]) first() T { return f.items[f.head] }

func (f *fifo[T]) push(vs ...T) {
	if len(f.items)+len(vs) > cap(f.items) && f.head > len(f.items)/4 {
		n := copy(f.items, f.items[f.head:])
		clear(f.items[n:])
		f.items, f.head = f.items[:n], 0
	}
	f.items = append(f.items, vs...)
}

func (f *fifo[T]) pop() T {
	v := f.items[f.head]
	f.drop(1)
	return v
}

// drop removes the first n.
func (f *fifo[T]) drop(n int) {
	clear(f.items[f.head : f.head+n])
	if f.head += n; f.head == len(f.items) {
		f.items, f.head = f.items[:0], 0
	}
}

// last is the last n.
func (f *fifo[T]) last(n int) []T { return f.items[len(f.items)-n:] }
