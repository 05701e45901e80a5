package queue

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"

	"github.com/peanutsapp/peanuts-relay/internal/failpoint"
	"github.com/peanutsapp/peanuts-relay/internal/queue/journal"
)

// lanesFile has the names of the lanes a second time, outside the database: each is
// written there once, in one row, and without it nobody knows where the deliveries of
// a lane belong. It is replaced as a whole after the rows are durable, so it may lack
// what is new, and never has what the database does not.
const lanesFile = "lanes"

// laneNames is its content: one line of JSON, and one with its CRC-32C.
type laneNames struct {
	Store string          `json:"store"` // number, 10 hexadecimal digits
	Lanes map[Lane]string `json:"lanes"`
}

// readLaneNames returns nothing for a file that is missing, of another store, or cannot be
// believed.
func readLaneNames(dir string, store uint64) (map[Lane]string, error) {
	text, err := os.ReadFile(filepath.Join(dir, lanesFile))
	if err != nil {
		return nil, err
	}
	return decodeLaneNames(text, store)
}

func decodeLaneNames(text []byte, store uint64) (map[Lane]string, error) {
	line, sum, _ := bytes.Cut(text, []byte("\n"))
	if string(sum) != fmt.Sprintf("%08x\n", crc32.Checksum(line, castagnoli())) {
		return nil, &damageError{"the checksum of the lanes' names does not match"}
	}
	var n laneNames
	if err := json.Unmarshal(line, &n); err != nil {
		return nil, &damageError{"the lanes' names are not readable"}
	}
	if n.Store != fmt.Sprintf("%010x", store) {
		return nil, &damageError{"the lanes' names are of another store"}
	}
	for lane, name := range n.Lanes {
		if lane == 0 || name == "" {
			return nil, &damageError{"a lane has no name"}
		}
	}
	return n.Lanes, nil
}

// openLaneNames compares the names that were loaded with those in the file, and writes
// it when it lacks any.
func (s *Store) openLaneNames() error {
	if s.opts.unsynced {
		return nil
	}
	names, _ := readLaneNames(s.opts.Dir, s.id) // one that is missing or damaged is made anew
	same := len(names) == len(s.lanes)
	for lane, name := range names {
		l := s.lanes[lane]
		if l == nil {
			return &FormatError{File: filepath.Join(s.opts.Dir, dbDir), What: fmt.Sprintf("the row that names lane %d, of webhook %s, is missing", lane, name),
				Remedy: damagedRemedy + "; if you put an older copy of the queue here on purpose, remove " + filepath.Join(s.opts.Dir, lanesFile)}
		}
		same = same && l.name == name
	}
	if !same {
		s.writeLaneNames()
	}
	return nil
}

// writeLaneNames replaces the file. It is for the day on which the database is damaged:
// until then nothing depends on it, and a disk without room for it is no reason to stop.
func (s *Store) writeLaneNames() {
	if s.opts.unsynced {
		return
	}
	s.mu.Lock()
	n := laneNames{Store: fmt.Sprintf("%010x", s.id), Lanes: make(map[Lane]string, len(s.lanes))}
	for lane, l := range s.lanes {
		n.Lanes[lane] = l.name
	}
	s.mu.Unlock()
	line, err := json.Marshal(n)
	if err == nil {
		text := fmt.Appendf(append(line, '\n'), "%08x\n", crc32.Checksum(line, castagnoli()))
		failpoint.Here("lanes.names")
		err = replaceFile(filepath.Join(s.opts.Dir, lanesFile), text)
	}
	if err != nil {
		s.log.Warn("the names of the lanes could not be written a second time; they are needed when the database is damaged", "err", err)
	}
}

// replaceFile leaves the old content or the new, whatever happens.
func replaceFile(path string, text []byte) error {
	f, err := os.OpenFile(path+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	err = firstError(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err == nil {
		err = journal.SyncDir(filepath.Dir(path))
	}
	return err
}
