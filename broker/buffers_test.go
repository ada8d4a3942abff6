package broker

import "testing"

func TestBuffersLendWhatWasAskedFor(t *testing.T) {
	var b buffers
	for _, n := range []int{0, 1, 4095, 4096, 4097, 1 << 20, 1<<20 + 1, 1 << 24, 1<<24 + 1} {
		buf := b.get(n)
		if len(buf) != n {
			t.Errorf("get(%d) has length %d", n, len(buf))
		}
		b.put(buf)
		if again := b.get(n); len(again) != n {
			t.Errorf("second get(%d) has length %d", n, len(again))
		}
	}
	b.put(make([]byte, 5000)) // not one of ours: must not poison a class
	if buf := b.get(8192); cap(buf) < 8192 {
		t.Errorf("get(8192) has capacity %d", cap(buf))
	}
}
