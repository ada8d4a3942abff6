package wire

import "hash/crc32"

// CRC-32C by algebra.
//
// Without its initial and final inversions, a CRC is the remainder of the
// message, read as a polynomial over GF(2), divided by P. Remainders are
// linear: when some bytes of a message change, its checksum changes by the
// remainder of the difference, times x^8 for every byte that follows. The
// inversions cancel, since both checksums have them. So a checksum follows from
// the old one, the changed bytes and the *number* of bytes behind them.
//
// Polynomials are in reflected order, as in hash/crc32: the top bit is x^0.

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// one is the polynomial 1.
const one = uint32(1) << 31

// powers[j][i] is x^(8*i*256^j) mod P: one factor per byte of a length.
//
//nolint:gochecknoglobals // an immutable table of 4 KiB
var powers = shiftPowers()

func shiftPowers() (t [4][256]uint32) {
	step := one >> 8 // x^8: one byte
	for j := range t {
		t[j][0] = one
		for i := 1; i < 256; i++ {
			t[j][i] = mulModP(t[j][i-1], step)
		}
		step = mulModP(t[j][255], step)
	}
	return t
}

// mulModP multiplies two polynomials modulo P.
func mulModP(a, b uint32) (product uint32) {
	for a != 0 {
		product ^= b & -(a >> 31) // the coefficient of x^0
		a <<= 1
		b = b>>1 ^ crc32.Castagnoli&-(b&1) // times x
	}
	return product
}

// ShiftCRC moves a difference of CRC-32C checksums behind n more bytes (0 to
// 2^32-1): when a and b are the checksums of two messages of equal length, and
// both are followed by the same n bytes, the checksums of the longer messages
// differ by ShiftCRC(a^b, n). It costs at most four multiplications.
func ShiftCRC(difference uint32, n int) uint32 {
	for j := 0; j < len(powers) && n > 0; j++ {
		if i := n & 0xff; i != 0 {
			difference = mulModP(powers[j][i], difference)
		}
		n >>= 8
	}
	return difference
}
