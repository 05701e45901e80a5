package webhookedit

import "os"

// FailSync has every sync of the directory's names answered by fail, after it was
// made.
func (e *Editor) FailSync(fail func() error) {
	e.disk.sync = func(root *os.Root) error {
		if err := syncNames(root); err != nil {
			return err
		}
		return fail()
	}
}
