package coordinator

import "kmirror/internal/wire"

// Restore makes t what a record of the log says of it, as loading does.
func (t *Transaction) Restore(r wire.Record) error {
	_, state, _, err := decodeTransaction(r)
	if err == nil && state != nil {
		t.state = *state
	}
	return err
}
