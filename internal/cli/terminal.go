package cli

import (
	"os"

	"golang.org/x/sys/unix"
)

// Standard is the process's own streams.
func Standard() Streams {
	return Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, InTerm: terminal(os.Stdin), OutTerm: terminal(os.Stdout), ErrTerm: terminal(os.Stderr)}
}

// fallbackWidth is for a terminal that does not know its width, such as a
// serial line.
const fallbackWidth = 80

func terminal(f *os.File) Terminal {
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return Terminal{}
	}
	width := int(size.Col)
	if width == 0 {
		width = fallbackWidth
	}
	return Terminal{Width: width, Colour: true}
}
