package config

import "io/fs"

// File is one configuration file as bytes.
type File struct {
	Path  string // absolute path it has or stands for
	Shown string // name in findings; "" = Path
	Data  []byte // as on the disk: references are not expanded
	Mode  fs.FileMode
}
