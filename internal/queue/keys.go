package queue

import (
	"crypto/sha256"
	"encoding/binary"
)

// The first byte of every key names its kind. All numbers are big endian, so
// that Badger's order of keys is the order of the numbers. docs/queue.md has
// the complete table.
const (
	kindReady      = 'r' // lane4 seq8
	kindWaiting    = 'w' // lane4 due8 seq8
	kindReturning  = 'p' // lane4 seq8
	kindDue        = 'd' // lane4 seq8 -> due, finds a waiting row by id
	kindFollowing  = 'f' // lane4 seq8
	kindLine       = 'o' // lane4 hash8, and lane4 hash8 seq8: finds followers in order
	kindEvent      = 'E' // class1 day2 seq8; sorts before everything, see eventKind
	kindFormer     = 'e' // class1 day2 seq8: events as format 1 wrote them
	kindFinished   = 'h' // class1 day2 lane4 seq8
	kindAttempt    = 'a' // day2 lane4 seq8 att2, and with nth1: see appendUncountedKey
	kindRepeat     = 'i' // day2 hash16: idempotency keys
	kindSenderID   = 'x' // day2 hash16 seq8
	kindTemplate   = 't' // hash8
	kindLane       = 'c' // lane4
	kindDay        = 'b' // day2
	kindReplay     = 'j' // id
	kindState      = 's' // lane4 sink4 hash16: what a sink keeps for an entry
	kindQuarantine = 'z' // the original key
	kindMeta       = 'm' // see the meta keys below
	kindDummy      = '~' // see Store.giveBack
)

// Classes of finished deliveries.
const (
	classDelivered = 0
	classFailed    = 1
)

// Classes of event records. Those of format 1 are read, never written.
const (
	formerAccepted = 0
	formerFailed   = 1
	eventAccepted  = 2 // as accepted
	eventFailed    = 3 // copies that a failed delivery needs
)

// eventKind is the kind of an event record's row. Events must not have a kind
// that sorts behind rows that every group writes, as they had in format 1: a
// table that Badger makes of a group's rows then reaches from those over all
// events that there are, and merging it writes all of them again, so that the
// cost of an event grew with the backlog.
func eventKind(class uint8) byte {
	if class <= formerFailed {
		return kindFormer
	}
	return kindEvent
}

// Lengths of keys, kind included.
const (
	lenLaneSeq  = 1 + 4 + 8
	lenEvent    = 1 + 1 + 2 + 8
	lenFinished = 1 + 1 + 2 + 4 + 8
	lenAttempt  = 1 + 2 + 4 + 8 + 2
	lenSenderID = 1 + 2 + 16 + 8
	lenMetaLane = 2 + 4
	lenMetaGap  = 2 + 8
	lenState    = 1 + 4 + 4 + 16
	lenLine     = 1 + 4 + 8
	lenFollower = lenLine + 8
)

func metaLedgerKey() []byte { return []byte{kindMeta, 'L'} }
func metaFormatKey() []byte { return []byte{kindMeta, 'F'} }

// metaJournalKey names the last record of the journal that the database has.
func metaJournalKey() []byte { return []byte{kindMeta, 'J'} }

func metaDoubtKey() []byte { return []byte{kindMeta, 'D'} }

// metaDoubtAtKey says when relay time was made to doubt last.
func metaDoubtAtKey() []byte { return []byte{kindMeta, 'd'} }

// metaRemovedKey counts the failed deliveries of a lane that an operator took out of
// the log.
func metaRemovedKey(lane Lane) []byte {
	return binary.BigEndian.AppendUint32([]byte{kindMeta, 'R'}, uint32(lane))
}

// metaGapKey says that no event has a number between the one in its value and after,
// both excluded: the store was made from a backup then.
func metaGapKey(after uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{kindMeta, 'G'}, after)
}

func laneLifeKey(lane Lane) []byte {
	return binary.BigEndian.AppendUint32([]byte{kindMeta, 'w'}, uint32(lane))
}

func metaLaneKey(lane Lane) []byte {
	return binary.BigEndian.AppendUint32([]byte{kindMeta, 'n'}, uint32(lane))
}

func appendLanePrefix(b []byte, kind byte, lane Lane) []byte {
	return binary.BigEndian.AppendUint32(append(b, kind), uint32(lane))
}

// appendLaneSeq makes keys of the kinds r, p, f and d.
func appendLaneSeq(b []byte, kind byte, lane Lane, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(appendLanePrefix(b, kind, lane), seq)
}

func appendWaitingKey(b []byte, lane Lane, due int64, seq uint64) []byte {
	b = binary.BigEndian.AppendUint64(appendLanePrefix(b, kindWaiting, lane), uint64(due))
	return binary.BigEndian.AppendUint64(b, seq)
}

func lineKey(lane Lane, hash uint64) []byte {
	return binary.BigEndian.AppendUint64(appendLanePrefix(make([]byte, 0, lenLine), kindLine, lane), hash)
}

// appendFollowerKey makes the key that finds a follower in its line.
func appendFollowerKey(b, line []byte, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(append(b, line...), seq)
}

func appendEventKey(b []byte, ref payloadRef, seq uint64) []byte {
	b = binary.BigEndian.AppendUint16(append(b, eventKind(ref.class), ref.class), ref.day)
	return binary.BigEndian.AppendUint64(b, seq)
}

func appendFinishedKey(b []byte, class uint8, day uint16, lane Lane, seq uint64) []byte {
	b = binary.BigEndian.AppendUint16(append(b, kindFinished, class), day)
	b = binary.BigEndian.AppendUint32(b, uint32(lane))
	return binary.BigEndian.AppendUint64(b, seq)
}

func appendAttemptKey(b []byte, day uint16, lane Lane, seq uint64, number int) []byte {
	b = binary.BigEndian.AppendUint16(append(b, kindAttempt), day)
	b = binary.BigEndian.AppendUint32(b, uint32(lane))
	b = binary.BigEndian.AppendUint64(b, seq)
	return binary.BigEndian.AppendUint16(b, uint16(min(max(number, 0), 1<<16-1)))
}

// appendUncountedKey makes the key of the nth attempt of a day that did not count
// and has the number that the next one that counts will have. It sorts between
// those with that number and the one before.
func appendUncountedKey(b []byte, day uint16, lane Lane, seq uint64, number, nth int) []byte {
	return append(appendAttemptKey(b, day, lane, seq, number-1), byte(nth))
}

func appendRepeatKey(b []byte, day uint16, hash [16]byte) []byte {
	b = binary.BigEndian.AppendUint16(append(b, kindRepeat), day)
	return append(b, hash[:]...)
}

func appendSenderIDKey(b []byte, day uint16, hash [16]byte, seq uint64) []byte {
	b = binary.BigEndian.AppendUint16(append(b, kindSenderID), day)
	return binary.BigEndian.AppendUint64(append(b, hash[:]...), seq)
}

func templateKey(hash uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte{kindTemplate}, hash)
}

func laneKey(lane Lane) []byte { return appendLanePrefix(nil, kindLane, lane) }

func dayKey(day uint16) []byte {
	return binary.BigEndian.AppendUint16([]byte{kindDay}, day)
}

func statePrefix(lane Lane, sink uint32) []byte {
	b := make([]byte, 0, 2*lenState)
	return binary.BigEndian.AppendUint32(appendLanePrefix(b, kindState, lane), sink)
}

func stateKey(lane Lane, sink uint32, entryID string) []byte {
	hash := hashParts(entryID)
	return append(statePrefix(lane, sink), hash[:]...)
}

// splitState reads what an s row's key says beside the entry.
func splitState(key []byte) (lane Lane, sink uint32) {
	return Lane(binary.BigEndian.Uint32(key[1:])), binary.BigEndian.Uint32(key[5:])
}

func replayKey(id string) []byte { return append([]byte{kindReplay}, id...) }

func quarantineKey(key []byte) []byte { return append([]byte{kindQuarantine}, key...) }

func trackKind(t Track) byte {
	switch t {
	case Waiting:
		return kindWaiting
	case Returning:
		return kindReturning
	case Following:
		return kindFollowing
	default:
		return kindReady
	}
}

// appendPendingKey makes the key of a pending row on any track.
func appendPendingKey(b []byte, t Track, lane Lane, due int64, seq uint64) []byte {
	if t == Waiting {
		return appendWaitingKey(b, lane, due, seq)
	}
	return appendLaneSeq(b, trackKind(t), lane, seq)
}

// tail8 reads the sequence number that ends most keys.
func tail8(key []byte) uint64 { return binary.BigEndian.Uint64(key[len(key)-8:]) }

// splitWaiting reads what follows the lane in a waiting row's key.
func splitWaiting(key []byte) (due int64, seq uint64) {
	return int64(binary.BigEndian.Uint64(key[5:])), tail8(key)
}

// hashParts is a digest of texts that tells ("a","b") from ("ab",""). Two that
// meet by chance are beyond reach at 128 bits.
func hashParts(parts ...string) (h [16]byte) {
	var b []byte
	for _, p := range parts {
		b = binary.AppendUvarint(b, uint64(len(p)))
		b = append(b, p...)
	}
	sum := sha256.Sum256(b)
	copy(h[:], sum[:])
	return h
}
