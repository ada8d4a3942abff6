package wire

import (
	"errors"
	"fmt"
)

// ErrPartialBatch says that a buffer ends within a batch. That is normal at the
// end of a fetch response, whose last batch the broker cuts to size.
var ErrPartialBatch = errors.New("batch is cut off")

// ErrLegacyMagic matches every *LegacyMagicError.
var ErrLegacyMagic = errors.New("message format before v2")

// LegacyMagicError says that a buffer goes on in message format 0 or 1, which
// [DecodeLegacy] reads.
type LegacyMagicError struct {
	Magic int8
}

func (e *LegacyMagicError) Error() string {
	return fmt.Sprintf("message format v%d, before v2", e.Magic)
}

// Is makes errors.Is(err, ErrLegacyMagic) true.
func (e *LegacyMagicError) Is(target error) bool { return target == ErrLegacyMagic }

// CorruptError says that bytes contradict themselves: a checksum, a length, a
// count or an offset cannot be true.
type CorruptError struct {
	Reason string
}

func (e *CorruptError) Error() string { return "corrupt: " + e.Reason }

func corrupt(format string, args ...any) error {
	return &CorruptError{Reason: fmt.Sprintf(format, args...)}
}

// InflateError says that compressed bytes unpack to more than the limit, in
// bytes. Nothing beyond the limit was unpacked.
type InflateError struct {
	Codec Codec
	Limit int
}

func (e *InflateError) Error() string {
	return fmt.Sprintf("%s data inflates beyond %d bytes", e.Codec, e.Limit)
}
