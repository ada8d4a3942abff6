package wire_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/internal/wire"
)

// fetched is what a test compares.
type fetched struct {
	Topic               string
	ID                  [16]byte
	Partition           int32
	Code                int16
	High, Stable, Start int64
	Records             string
	Aborted             [][2]int64
	Session             int32
	Top                 int16
	Throttle            int32
}

func TestFetchRequestAgreesWithKmsg(t *testing.T) {
	var f wire.FetchRequest
	for version := int16(wire.FetchOldest); version <= wire.FetchNewest; version++ {
		for _, forgotten := range []int{0, 2, 200} {
			f.Begin(version, wire.FetchOptions{MaxWaitMillis: 500, MinBytes: 1, MaxBytes: 2 << 20, SessionID: 77, SessionEpoch: 5})
			for i := range 3 {
				f.Topic(fmt.Sprintf("topic-%d", i), [16]byte{byte(i + 1)})
				for p := range 2 {
					f.Partition(int32(p), int32(9+i), int64(1000*i+p), 1<<20)
				}
			}
			for i := range forgotten {
				f.Forget(fmt.Sprintf("gone-%d", i), [16]byte{byte(i + 100)})
				f.Forgotten(int32(i))
				f.Forgotten(7)
			}
			got := kmsg.NewPtrFetchRequest()
			got.SetVersion(version)
			if err := got.ReadFrom(f.End()); err != nil {
				t.Fatalf("v%d: %v", version, err)
			}
			want := kmsg.NewPtrFetchRequest()
			want.SetVersion(version)
			want.ReplicaID, want.MaxWaitMillis, want.MinBytes, want.MaxBytes, want.IsolationLevel = -1, 500, 1, 2<<20, 1
			if version >= 7 {
				want.SessionID, want.SessionEpoch = 77, 5
			}
			name := func(s string, id byte) (string, [16]byte) {
				if version >= 13 {
					return "", [16]byte{id}
				}
				return s, [16]byte{}
			}
			for i := range 3 {
				rt := kmsg.NewFetchRequestTopic()
				rt.Topic, rt.TopicID = name(fmt.Sprintf("topic-%d", i), byte(i+1))
				for p := range 2 {
					rp := kmsg.NewFetchRequestTopicPartition()
					rp.Partition, rp.FetchOffset, rp.PartitionMaxBytes = int32(p), int64(1000*i+p), 1<<20
					if version >= 9 {
						rp.CurrentLeaderEpoch = int32(9 + i)
					}
					rt.Partitions = append(rt.Partitions, rp)
				}
				want.Topics = append(want.Topics, rt)
			}
			for i := 0; version >= 7 && i < forgotten; i++ {
				ft := kmsg.NewFetchRequestForgottenTopic()
				ft.Topic, ft.TopicID = name(fmt.Sprintf("gone-%d", i), byte(i+100))
				ft.Partitions = []int32{int32(i), 7}
				want.ForgottenTopics = append(want.ForgottenTopics, ft)
			}
			if diff := cmp.Diff(want.AppendTo(nil), got.AppendTo(nil)); diff != "" {
				t.Fatalf("v%d, %d forgotten: %s", version, forgotten, diff)
			}
		}
	}
	if n := testing.AllocsPerRun(50, func() {
		f.Begin(17, wire.FetchOptions{})
		for i := range 100 {
			f.Topic("x", [16]byte{1})
			f.Partition(int32(i), 0, 0, 0)
		}
		f.End()
	}); n != 0 {
		t.Errorf("a request allocates %v times", n)
	}
}

// randomFetch makes a response as a broker would.
func randomFetch(r *rand.Rand, version int16) (*kmsg.FetchResponse, []fetched) {
	resp := kmsg.NewPtrFetchResponse()
	resp.SetVersion(version)
	resp.ThrottleMillis = int32(r.IntN(10))
	if version >= 7 {
		resp.SessionID = r.Int32()
	}
	var want []fetched
	for i := range r.IntN(4) {
		rt := kmsg.NewFetchResponseTopic()
		if version >= 13 {
			rt.TopicID = [16]byte{byte(i), 1}
		} else {
			rt.Topic = fmt.Sprintf("topic-%d", i)
		}
		for p := range r.IntN(4) {
			rp := kmsg.NewFetchResponseTopicPartition()
			rp.Partition, rp.ErrorCode, rp.HighWatermark, rp.LastStableOffset = int32(p), int16(r.IntN(3)), r.Int64(), r.Int64()
			if version >= 5 {
				rp.LogStartOffset = r.Int64()
			}
			w := fetched{Topic: rt.Topic, ID: rt.TopicID, Partition: rp.Partition, Code: rp.ErrorCode, High: rp.HighWatermark, Stable: rp.LastStableOffset, Start: rp.LogStartOffset, Session: resp.SessionID, Throttle: resp.ThrottleMillis}
			if r.IntN(2) == 0 {
				rp.RecordBatches = bytes.Repeat([]byte{'r'}, r.IntN(300))
				w.Records = string(rp.RecordBatches)
			}
			for range r.IntN(3) {
				a := kmsg.NewFetchResponseTopicPartitionAbortedTransaction()
				a.ProducerID, a.FirstOffset = r.Int64(), r.Int64()
				rp.AbortedTransactions = append(rp.AbortedTransactions, a)
				w.Aborted = append(w.Aborted, [2]int64{a.ProducerID, a.FirstOffset})
			}
			if version >= 12 && r.IntN(3) == 0 { // tags that say more than we ask for
				rp.DivergingEpoch.Epoch, rp.CurrentLeader.LeaderID = 3, 2
			}
			rt.Partitions = append(rt.Partitions, rp)
			want = append(want, w)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	if version >= 16 && r.IntN(2) == 0 {
		b := kmsg.NewFetchResponseBroker()
		b.NodeID, b.Host = 4, "elsewhere"
		resp.Brokers = append(resp.Brokers, b)
	}
	return resp, want
}

func walkFetch(version int16, body []byte) (got []fetched, err error) {
	r, err := wire.ReadFetch(version, body)
	if err != nil {
		return nil, err
	}
	for r.Next() {
		p := r.At()
		f := fetched{Topic: string(p.Topic), ID: p.ID, Partition: p.Partition, Code: p.ErrorCode, High: p.HighWatermark, Stable: p.LastStable, Start: p.LogStart, Records: string(p.Records), Session: r.SessionID, Top: r.ErrorCode, Throttle: r.ThrottleMillis}
		for producer, first := range p.Aborted() {
			f.Aborted = append(f.Aborted, [2]int64{producer, first})
		}
		got = append(got, f)
	}
	return got, r.Err()
}

func TestReadFetchAgreesWithKmsg(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for version := int16(wire.FetchOldest); version <= wire.FetchNewest; version++ {
		for range 100 {
			resp, want := randomFetch(r, version)
			body := resp.AppendTo(nil)
			got, err := walkFetch(version, body)
			if err != nil {
				t.Fatalf("v%d: %v", version, err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("v%d: %s", version, diff)
			}
			// Cut anywhere, it is a fault, or what came before the cut is as it was.
			cut := body[:r.IntN(len(body))]
			got, err = walkFetch(version, cut)
			if corrupt := (*wire.CorruptError)(nil); err != nil && !errors.As(err, &corrupt) {
				t.Fatalf("v%d: %v", version, err)
			}
			if len(got) > len(want) || !cmp.Equal(want[:len(got)], got) && len(got) > 0 {
				t.Fatalf("v%d cut at %d of %d: %v", version, len(cut), len(body), got)
			}
		}
	}
}

func TestReadFetchAllocatesNothing(t *testing.T) {
	resp, _ := randomFetch(rand.New(rand.NewPCG(11, 4)), 17)
	body := resp.AppendTo(nil)
	sum := int64(0)
	if n := testing.AllocsPerRun(50, func() {
		r, err := wire.ReadFetch(17, body)
		if err != nil {
			t.Fatal(err)
		}
		for r.Next() {
			for producer := range r.At().Aborted() {
				sum += producer
			}
		}
	}); n != 0 {
		t.Errorf("a walk allocates %v times", n)
	}
}

func FuzzReadFetch(f *testing.F) {
	r := rand.New(rand.NewPCG(5, 6))
	for version := int16(wire.FetchOldest); version <= wire.FetchNewest; version++ {
		resp, _ := randomFetch(r, version)
		f.Add(version, resp.AppendTo(nil))
	}
	f.Fuzz(func(t *testing.T, version int16, body []byte) {
		if version < wire.FetchOldest || version > wire.FetchNewest {
			return
		}
		got, err := walkFetch(version, body)
		size := 0
		for _, p := range got {
			size += len(p.Records) + len(p.Aborted)*16
		}
		if size > len(body)+len(body)/16 { // an empty response is smaller than the fields
			t.Errorf("%d bytes out of %d", size, len(body))
		}
		if err != nil {
			return
		}
		// What is read without a fault, kmsg reads too, and the same.
		resp := kmsg.NewPtrFetchResponse()
		resp.SetVersion(version)
		if resp.ReadFrom(body) != nil {
			return
		}
		n := 0
		for _, rt := range resp.Topics {
			for _, rp := range rt.Partitions {
				if n >= len(got) || got[n].Partition != rp.Partition || got[n].Records != string(rp.RecordBatches) || got[n].Code != rp.ErrorCode {
					t.Fatalf("partition %d differs", n)
				}
				n++
			}
		}
	})
}

func TestReadProduceAgreesWithKmsg(t *testing.T) {
	type produced struct {
		Topic     string
		ID        [16]byte
		Partition int32
		Code      int16
		Base      int64
		Start     int64
		Message   string
	}
	walk := func(version int16, body []byte) (got []produced, throttle int32, err error) {
		r, err := wire.ReadProduce(version, body)
		if err != nil {
			return nil, 0, err
		}
		for r.Next() {
			p := r.At()
			got = append(got, produced{string(p.Topic), p.ID, p.Partition, p.ErrorCode, p.BaseOffset, p.LogStart, string(p.Message)})
		}
		return got, r.ThrottleMillis(), r.Err()
	}
	r := rand.New(rand.NewPCG(7, 8))
	for version := int16(3); version <= 13; version++ {
		for range 50 {
			resp := kmsg.NewPtrProduceResponse()
			resp.SetVersion(version)
			resp.ThrottleMillis = 12
			var want []produced
			for i := range 1 + r.IntN(3) {
				rt := kmsg.NewProduceResponseTopic()
				if version >= 13 {
					rt.TopicID = [16]byte{byte(i), 1}
				} else {
					rt.Topic = fmt.Sprintf("topic-%d", i)
				}
				for p := range r.IntN(4) {
					rp := kmsg.NewProduceResponseTopicPartition()
					rp.Partition, rp.ErrorCode, rp.BaseOffset = int32(p), int16(r.IntN(3)), r.Int64()
					w := produced{Topic: rt.Topic, ID: rt.TopicID, Partition: rp.Partition, Code: rp.ErrorCode, Base: rp.BaseOffset, Start: -1}
					if version >= 5 {
						rp.LogStartOffset = r.Int64()
						w.Start = rp.LogStartOffset
					}
					if version >= 8 && r.IntN(2) == 0 {
						text := "no"
						rp.ErrorMessage, w.Message = &text, text
						bad := kmsg.NewProduceResponseTopicPartitionErrorRecord()
						bad.ErrorMessage = &text
						rp.ErrorRecords = append(rp.ErrorRecords, bad)
					}
					if version >= 10 && r.IntN(3) == 0 {
						rp.CurrentLeader.LeaderID = 5
					}
					rt.Partitions = append(rt.Partitions, rp)
					want = append(want, w)
				}
				resp.Topics = append(resp.Topics, rt)
			}
			body := resp.AppendTo(nil)
			got, throttle, err := walk(version, body)
			if err != nil || throttle != 12 {
				t.Fatalf("v%d: %v, throttle %d", version, err, throttle)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("v%d: %s", version, diff)
			}
			if got, _, _ := walk(version, body[:r.IntN(len(body))]); len(got) > len(want) {
				t.Fatalf("v%d: more out of less", version)
			}
		}
	}
}
