package queue

// appendEntryState makes the value of an s row.
func appendEntryState(b, key, state []byte) []byte {
	start := len(b)
	return seal(appendText(append(b, valueVersion), state), start, key)
}

// decodeEntryState returns a copy.
func decodeEntryState(key, val []byte) ([]byte, error) {
	d, err := unseal(key, val)
	if err != nil {
		return nil, err
	}
	state := append([]byte(nil), d.bytes()...)
	if len(state) == 0 || len(state) > MaxEntryState {
		d.fail() // neither is ever written
	}
	return state, d.end()
}
