package checkpoint_test

import (
	"testing"
	"testing/synctest"
	"time"

	"kmirror/checkpoint"
	"kmirror/topology"
)

// Scenarios of MirrorMaker 2's unit tests, by their names, that no other test
// of ours is about. All of them stand in docs/mirrormaker2-tests.md.

// checkpointsOf returns those that were written about a group and topic.
func (s *story) checkpointsOf(t *testing.T, group, topic string) (all []checkpoint.Checkpoint) {
	t.Helper()
	for _, rec := range s.checkpoints(t) {
		c, err := checkpoint.DecodeCheckpoint(rec)
		if err != nil {
			t.Error(err)
		} else if c.Group == group && c.Topic == topic {
			all = append(all, c)
		}
	}
	return all
}

func TestMirrorCheckpointTask(t *testing.T) {
	t.Run("testNoCheckpointForTopicWithoutOffsetSyncs", func(t *testing.T) {
		tell(t, nil, func(t *testing.T, s *story) {
			s.east.commit(t, "billing", "orders", 0, 23)
			s.east.commit(t, "billing", "other", 0, 5) // nothing of it is mirrored
			s.expect(t, "billing", checkpoint.Waiting, 21)
			if got := s.checkpointsOf(t, "billing", "east.other"); len(got) > 0 {
				t.Errorf("checkpoints of a topic of which nothing is mirrored: %v", got)
			}
		})
	})
	t.Run("testNoCheckpointForTopicWithNullOffsetAndMetadata", func(t *testing.T) {
		tell(t, nil, func(t *testing.T, s *story) {
			s.east.commit(t, "billing", "orders", 0, 23)
			s.east.commit(t, "billing", "orders", 1, -1)
			s.expect(t, "billing", checkpoint.InStep, 21)
			for _, c := range s.checkpointsOf(t, "billing", "east.orders") {
				if c.Partition != 0 || c.Upstream < 0 || c.Downstream < 0 {
					t.Errorf("a checkpoint out of nothing: %+v", c)
				}
			}
		})
	})
	t.Run("testSyncOffsetForTargetGroupWithNullOffsetAndMetadata", func(t *testing.T) {
		tell(t, nil, func(t *testing.T, s *story) {
			s.west.commit(t, "billing", "east.orders", 0, -1) // as Sarama resets
			s.east.commit(t, "billing", "orders", 0, 23)
			s.expect(t, "billing", checkpoint.InStep, 21)
		})
	})
	t.Run("testCheckpointRecordsMonotonicIfStoreRewinds", func(t *testing.T) {
		tell(t, nil, func(t *testing.T, s *story) {
			for _, offset := range []int64{23, 45, 67, 89} {
				s.east.commit(t, "billing", "orders", 0, offset)
				s.expect(t, "billing", checkpoint.InStep, offset/10*9+offset%10)
				s.stop()
				s.begin(t) // reads the map from its beginning
			}
			time.Sleep(3 * time.Second)
			last := int64(-1)
			for _, c := range s.checkpointsOf(t, "billing", "east.orders") {
				if c.Downstream < last {
					t.Errorf("a checkpoint goes back from %d to %d", last, c.Downstream)
				}
				last = c.Downstream
			}
			if last != 89-8 {
				t.Errorf("the last checkpoint is at %d, want 81", last)
			}
		})
	})
	t.Run("testCheckpointStoreInitialized", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			site := newSite(t, "west")
			index := checkpoint.NewIndex(site.ours, quiet()) // never run: nothing is known
			stop := start(t, checkpoint.NewSyncer(checkpoint.Routes{Forward: checkpoint.Route{Flow: flowEastWest(t), Maps: index}}, site.ours, site.ours, quiet()).Run)
			time.Sleep(time.Minute)
			topics, err := site.admin.ListTopics(t.Context(), "east.checkpoints.internal")
			if err != nil || topics.Has("east.checkpoints.internal") && topics["east.checkpoints.internal"].Err == nil {
				t.Errorf("something was written before the map was read: %v, %v", topics, err)
			}
			stop()
		})
	})
}

func TestReplicationPolicy(t *testing.T) {
	named := func(change func(*topology.Flow)) *topology.Flow {
		flow, err := topology.NewFlow("east", "west", change)
		if err != nil {
			t.Fatal(err)
		}
		return flow
	}
	same := named(func(f *topology.Flow) { f.Separator = "-" })
	other := named(func(f *topology.Flow) { f.Separator, f.InternalSeparator = "-", "." })
	for _, c := range []struct{ name, got, want string }{
		{"offsetSyncsTopic_shouldBeEffectedByInternalTopicSeparatorEnabled", same.OffsetSyncsTopic(), "mm2-offset-syncs-west-internal"},
		{"offsetSyncsTopic_shouldBeEffectedByInternalTopicSeparatorEnabled", other.OffsetSyncsTopic(), "mm2-offset-syncs.west.internal"},
		{"checkpointsTopic_shouldBeEffectedByInternalTopicSeparatorEnabled", same.CheckpointsTopic(), "east-checkpoints-internal"},
		{"checkpointsTopic_shouldBeEffectedByInternalTopicSeparatorEnabled", other.CheckpointsTopic(), "east.checkpoints.internal"},
		{"heartbeatsTopic_shouldNotBeEffectedByInternalTopicSeparatorConfig", other.TargetTopic("heartbeats"), "east-heartbeats"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.got != c.want {
				t.Errorf("got %s, want %s", c.got, c.want)
			}
		})
	}
	t.Run("testInternalTopic", func(t *testing.T) {
		for name, internal := range map[string]bool{
			"east.checkpoints.internal": true, "mm2-offset-syncs.west.internal": true, "__consumer_offsets": true,
			"east-checkpoints-internal": false, "heartbeats": false, "orders.internal": false,
		} {
			if got := other.Selection(name) == topology.Internal; got != internal {
				t.Errorf("%s is internal: %v, want %v", name, got, internal)
			}
		}
	})
	t.Run("testNoCycles", func(t *testing.T) {
		flow := named(nil)
		for name, selected := range map[string]bool{
			"west.orders": false, "west.east.orders": false, "east.west.orders": false, "west.west.orders": false,
			"orders": true, "east.orders": true, "other.orders": true,
		} {
			if got := flow.Selects(name); got != selected {
				t.Errorf("%s is mirrored: %v, want %v", name, got, selected)
			}
		}
	})
	t.Run("testReplicatesHeartbeatsDespiteFilter", func(t *testing.T) {
		none := func(on bool) *topology.Flow {
			return named(func(f *topology.Flow) { f.Topics, f.Heartbeats = []string{"nothing"}, on })
		}
		if !none(true).Selects("heartbeats") {
			t.Error("heartbeats are not mirrored though the flow has them on")
		}
		if none(false).Selects("heartbeats") {
			t.Error("heartbeats are mirrored though the flow has them off")
		}
	})
}
