package process

import "github.com/peanutsapp/peanuts-relay/internal/pluginfile"

// File is an open executable that may be trusted: see [pluginfile.Open].
type File = pluginfile.File

// Identity tells one version of an executable from another.
type Identity = pluginfile.Identity

// Open opens a plugin's executable and refuses one that somebody else could have changed:
// see [pluginfile.Open].
func Open(path, sha256 string) (*File, error) { return pluginfile.Open(path, sha256) }
