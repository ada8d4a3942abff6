package storage_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"

	"kmirror/broker/storage"
)

const hour = 3_600_000

// TestRetentionByTime drops what is older than the limit, down to an empty
// active segment, and remembers where the log begins.
func TestRetentionByTime(t *testing.T) {
	clock := int64(now)
	s, l := newLog(t, func(o *storage.Options, c *storage.LogConfig) {
		o.Now = func() time.Time { return time.UnixMilli(clock) }
		c.SegmentBytes, c.RetentionMillis, c.FileDeleteDelay = 400, 10*hour, time.Hour
	})
	for i := range 20 {
		mustAppend(t, l, plain(t, now-int64(20-i)*hour, fmt.Sprintf("%02d", i)))
	}
	s.Expire()
	if l.Start() != 0 {
		t.Errorf("start %d with nothing synced: only what is below the high watermark may go", l.Start())
	}
	mustSync(t, l)
	s.Expire()
	start := l.Start()
	if start < 6 || start > 10 {
		t.Errorf("start %d, want about 10", start)
	}
	if got := readAll(t, l, start); len(got) != 20-int(start) {
		t.Errorf("read %q", got)
	}
	_, err := l.Read(start-1, 100, true, 20)
	wantCode(t, err, kerr.OffsetOutOfRange)
	files := func(pattern string) int {
		found, _ := filepath.Glob(filepath.Join(l.Dir(), pattern))
		return len(found)
	}
	if files("*.log.deleted") == 0 {
		t.Error("files were not set aside")
	}
	clock += 100 * hour
	s.Expire()
	if l.Start() != 20 || l.End() != 20 || l.Segments() != 1 || l.Size() != 0 {
		t.Errorf("start %d, end %d, %d segments, %d bytes", l.Start(), l.End(), l.Segments(), l.Size())
	}
	s.Expire() // an empty active segment stays
	if l.Segments() != 1 {
		t.Errorf("%d segments", l.Segments())
	}
	if r := mustAppend(t, l, plain(t, clock, "new")); r.BaseOffset != 20 || r.LogStart != 20 {
		t.Errorf("%+v", r)
	}
	dir := copyDir(t, s.Dir()) // a crash right now
	s2, l2 := reopen(t, dir)
	defer s2.Close()
	if l2.Start() != 20 || l2.End() != 21 {
		t.Errorf("after a crash: start %d, end %d", l2.Start(), l2.End())
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if files("*.deleted") != 0 {
		t.Error("what was set aside is left")
	}
}

func TestRetentionBySize(t *testing.T) {
	s, l := newLog(t, func(_ *storage.Options, c *storage.LogConfig) { c.SegmentBytes, c.RetentionBytes = 400, 1000 })
	for i := range 100 {
		mustAppend(t, l, plain(t, now, fmt.Sprintf("%02d", i)))
	}
	mustSync(t, l)
	s.Expire()
	if size := l.Size(); size < 1000 || size > 1400 {
		t.Errorf("%d bytes are left", size)
	}
	if got := readAll(t, l, l.Start()); got[len(got)-1] != "99" {
		t.Errorf("read %q", got)
	}
	cfg := l.Config()
	cfg.RetentionBytes, cfg.Delete, cfg.Compact = 0, false, true
	l.SetConfig(cfg)
	before := l.Start()
	s.Expire()
	if l.Start() != before {
		t.Error("a topic that is only compacted lost records")
	}
}

func TestDeleteBefore(t *testing.T) {
	s, l := newLog(t, func(_ *storage.Options, c *storage.LogConfig) { c.SegmentBytes = 400 })
	for i := range 20 {
		mustAppend(t, l, plain(t, now, fmt.Sprintf("%02d", i)))
	}
	wantCode(t, l.DeleteBefore(1), kerr.OffsetOutOfRange) // nothing is synced
	mustSync(t, l)
	segments := l.Segments()
	if err := l.DeleteBefore(13); err != nil {
		t.Fatal(err)
	}
	if l.Start() != 13 || l.Segments() >= segments {
		t.Errorf("start %d, %d segments", l.Start(), l.Segments())
	}
	if err := l.DeleteBefore(3); err != nil || l.Start() != 13 {
		t.Errorf("backwards: start %d, %v", l.Start(), err)
	}
	wantCode(t, l.DeleteBefore(21), kerr.OffsetOutOfRange)
	if got := readAll(t, l, 13); len(got) != 7 {
		t.Errorf("read %q", got)
	}
	_, err := l.Read(12, 100, true, 20)
	wantCode(t, err, kerr.OffsetOutOfRange)
	s2, l2 := reopen(t, copyDir(t, s.Dir()))
	defer s2.Close()
	if l2.Start() != 13 || l2.End() != 20 {
		t.Errorf("after a crash: start %d, end %d", l2.Start(), l2.End())
	}
	if err := l.DeleteBefore(20); err != nil || l.Start() != 20 || l.Size() != 0 {
		t.Errorf("all of it: start %d, %d bytes, %v", l.Start(), l.Size(), err)
	}
	cfg := l.Config()
	cfg.Delete, cfg.Compact = false, true
	l.SetConfig(cfg)
	wantCode(t, l.DeleteBefore(20), kerr.PolicyViolation)
}

func TestRollByTimeAndIndex(t *testing.T) {
	_, l := newLog(t, func(_ *storage.Options, c *storage.LogConfig) { c.SegmentMillis = hour })
	mustAppend(t, l, plain(t, now-5*hour, "a"))
	mustAppend(t, l, plain(t, now-4*hour, "b"))
	if l.Segments() != 1 {
		t.Errorf("%d segments", l.Segments())
	}
	mustAppend(t, l, plain(t, now-4*hour+1, "c"))
	if l.Segments() != 2 {
		t.Errorf("%d segments", l.Segments())
	}
	_, l = newLog(t, func(_ *storage.Options, c *storage.LogConfig) { c.SegmentIndexBytes, c.IndexIntervalBytes = 80, 0 })
	for range 30 {
		mustAppend(t, l, plain(t, now, "a"))
	}
	if l.Segments() != 3 {
		t.Errorf("%d segments", l.Segments())
	}
}

func TestOffsetForTime(t *testing.T) {
	for _, segment := range []int{1 << 20, 300} {
		_, l := newLog(t, func(_ *storage.Options, c *storage.LogConfig) {
			c.SegmentBytes, c.IndexIntervalBytes, c.RetentionMillis = segment, 60, -1
		})
		// Times are not in order, within a batch neither.
		times := []int64{100, 90, 300, 250, 200, 500, 500, 400, 600, 550}
		for i := 0; i < len(times); i += 2 {
			rs := values(0, fmt.Sprint(i), fmt.Sprint(i+1))
			rs[0].Timestamp, rs[1].Timestamp = times[i], times[i+1]
			mustAppend(t, l, batchOf(t, plainOptions(), rs...))
		}
		mustSync(t, l)
		for ts := int64(0); ts <= 610; ts += 5 {
			wantOffset := int64(-1)
			for i, v := range times {
				if v >= ts {
					wantOffset = int64(i)
					break
				}
			}
			offset, timestamp, found, err := l.OffsetForTime(ts)
			if err != nil || found != (wantOffset >= 0) || found && (offset != wantOffset || timestamp != times[offset]) {
				t.Errorf("time %d: offset %d (time %d, %v, %v), want %d", ts, offset, timestamp, found, err, wantOffset)
			}
		}
		if offset, timestamp, found, err := l.MaxTimestamp(); err != nil || !found || offset != 8 || timestamp != 600 {
			t.Errorf("largest: %d %d %v %v", offset, timestamp, found, err)
		}
		if err := l.DeleteBefore(9); err != nil {
			t.Fatal(err)
		}
		if offset, _, found, err := l.OffsetForTime(0); err != nil || !found || offset != 9 {
			t.Errorf("after deletion: %d %v %v", offset, found, err)
		}
	}
	_, l := newLog(t, nil)
	if _, _, found, err := l.MaxTimestamp(); found || err != nil {
		t.Errorf("in an empty log: %v, %v", found, err)
	}
}

func TestEpochsAndTruncate(t *testing.T) {
	s, l := newLog(t, func(_ *storage.Options, c *storage.LogConfig) { c.SegmentBytes = 400; c.FileDeleteDelay = 0 })
	for i := range 20 {
		mustAppendEpoch(t, l, numbered(t, 1, 0, int32(i), 1), int32(i/5)*2) // epochs 0, 2, 4, 6
	}
	mustSync(t, l)
	type answer struct {
		Epoch int32
		End   int64
	}
	for epoch, want := range map[int32]answer{-1: {-1, -1}, 0: {0, 5}, 1: {0, 5}, 2: {2, 10}, 5: {4, 15}, 6: {6, 20}, 7: {-1, -1}} {
		var got answer
		got.Epoch, got.End = l.EpochEnd(epoch)
		if got != want {
			t.Errorf("epoch %d: %+v, want %+v", epoch, got, want)
		}
	}
	if l.EpochAt(7) != 2 || l.EpochAt(0) != 0 || l.EpochAt(19) != 6 {
		t.Errorf("epochs at 7, 0, 19: %d %d %d", l.EpochAt(7), l.EpochAt(0), l.EpochAt(19))
	}
	if err := l.Truncate(12); err != nil {
		t.Fatal(err)
	}
	if l.End() != 12 || l.HighWatermark() != 12 || l.LastEpoch() != 4 {
		t.Errorf("end %d, high watermark %d, epoch %d", l.End(), l.HighWatermark(), l.LastEpoch())
	}
	if got := readAll(t, l, 0); len(got) != 12 {
		t.Errorf("read %q", got)
	}
	_, err := l.Append(numbered(t, 1, 0, 20, 1), 6, storage.AppendOptions{FromClient: true})
	wantCode(t, err, kerr.OutOfOrderSequenceNumber)
	if r := mustAppendEpoch(t, l, numbered(t, 1, 0, 12, 1), 6); r.BaseOffset != 12 {
		t.Errorf("%+v", r)
	}
	mustSync(t, l)
	if e, end := l.EpochEnd(4); e != 4 || end != 12 {
		t.Errorf("epoch 4 ends at %d, %d", e, end)
	}
	if err := l.DeleteBefore(11); err != nil {
		t.Fatal(err)
	}
	want := readAll(t, l, 11)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, l = reopen(t, s.Dir())
	defer s.Close()
	if got := readAll(t, l, l.Start()); !cmp.Equal(got, want) || l.Start() != 11 {
		t.Errorf("reopened: %q from %d", got, l.Start())
	}
	if err := l.Truncate(0); err != nil || l.End() > 11 {
		t.Errorf("truncated to %d, %v", l.End(), err)
	}
}
