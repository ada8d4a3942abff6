package coordinator

import "math"

// PartitionFor is Kafka's rule for the partition of __consumer_offsets that
// keeps a group: the absolute value of Java's String.hashCode, modulo n.
func PartitionFor(group string, n int32) int32 {
	if n <= 0 {
		return 0
	}
	h := javaHash(group)
	if h == math.MinInt32 { // has no absolute value; Kafka takes 0
		return 0
	}
	return max(h, -h) % n
}

// javaHash is String.hashCode: over UTF-16 units, wrapping.
func javaHash(s string) int32 {
	var h int32
	for _, r := range s {
		if r >= 0x10000 {
			r -= 0x10000
			h = 31*h + (0xd800 + r>>10)
			h = 31*h + (0xdc00 + r&0x3ff)
			continue
		}
		h = 31*h + r
	}
	return h
}
