package broker

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// DescribeLogDirs: v1-4
//
// Behavior: the node's one data directory and the size of every partition in
// it, or of those asked for; partitions that do not exist are left out. A null
// list of topics means all.
//
// Version notes:
//   - v2: flexible
//   - v3: top-level error code
//   - v4: total and usable bytes of the file system (KIP-827)
func (n *Node) describeLogDirs(_ context.Context, _ *request, req *kmsg.DescribeLogDirsRequest) (kmsg.Response, error) {
	resp := kmsg.NewPtrDescribeLogDirsResponse()
	dir := kmsg.NewDescribeLogDirsResponseDir()
	dir.Dir = n.dir
	dir.TotalBytes, dir.UsableBytes = diskSpace(n.dir)
	add := func(topic string, partitions []int32) {
		t := kmsg.NewDescribeLogDirsResponseDirTopic()
		t.Topic = topic
		for _, partition := range partitions {
			if log := n.store.Log(topic, partition); log != nil {
				p := kmsg.NewDescribeLogDirsResponseDirTopicPartition()
				p.Partition, p.Size = partition, log.Size()
				t.Partitions = append(t.Partitions, p)
			}
		}
		if len(t.Partitions) > 0 {
			dir.Topics = append(dir.Topics, t)
		}
	}
	if req.Topics == nil {
		for _, t := range n.image().Topics() {
			all := make([]int32, len(t.Partitions))
			for i := range all {
				all[i] = int32(i)
			}
			add(t.Name, all)
		}
	} else {
		for _, t := range req.Topics {
			add(t.Topic, t.Partitions)
		}
	}
	resp.Dirs = append(resp.Dirs, dir)
	return resp, nil
}
