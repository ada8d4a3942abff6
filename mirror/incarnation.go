package mirror

import (
	"fmt"
	"slices"

	"kmirror/checkpoint"
)

// acquaintance says whether a source topic and its target topic, by their ids,
// are the ones that were mirrored before.
type acquaintance int

const (
	sameTopics acquaintance = iota // yes
	newPair                        // nothing was ever mirrored between them
	newTarget                      // the target topic was deleted and created anew: it is filled again
	newSource                      // the source topic was deleted and created anew, and the target holds the old one's records
)

// incarnation compares the topic ids with those written down at the beginning of
// mirroring, and says in words what differs. It resets the map where it belongs
// to another target topic.
//
// The pair is one for all partitions, and whichever comes first writes it. So
// that a partition was mirrored into another target topic is also told by its
// own map, which bears the id of the topic that its target offsets belong to.
//
// The pair is written after the anchor of the first epoch: a crash between the
// two finds the old pair, and begins anew once more; the other way round, the
// next life would take an older life's epoch start for its own.
func incarnation(pair *topicPair, loaded checkpoint.Loaded) (known acquaintance, detail string) {
	var last *checkpoint.TopicPair // by the order of the topic: instances' clocks differ
	if n := len(loaded.Pairs); n > 0 {
		last = &loaded.Pairs[n-1]
	}
	var none [16]byte
	differ := func(a, b [16]byte) bool { return a != none && b != none && a != b }
	switch {
	case last == nil:
		loaded.Runs.TargetID = pair.target.ID
		return newPair, ""
	case last.TargetTopic != pair.targetName: // mirror.yaml gives it another name since: what was mirrored stays under the former one
		loaded.Runs.Reset(pair.target.ID)
		return newPair, ""
	case differ(last.TargetID, pair.target.ID), differ(loaded.Runs.TargetID, pair.target.ID):
		renamed := slices.ContainsFunc(loaded.Pairs, func(p checkpoint.TopicPair) bool {
			return p.TargetID == loaded.Runs.TargetID && p.TargetTopic != pair.targetName
		})
		loaded.Runs.Reset(pair.target.ID)
		if renamed { // see above; another partition has written the pair
			return newPair, ""
		}
		return newTarget, fmt.Sprintf("target topic %s was deleted and created anew", pair.targetName)
	case differ(last.SourceID, pair.source.ID):
		loaded.Runs.TargetID = pair.target.ID
		return newSource, fmt.Sprintf("source topic %s was deleted and created anew (its id was %x, now %x) and target topic %s holds the old one's records; to mirror the new one into an empty topic, delete the target topic; to keep the copy, exclude the topic",
			pair.source.Name, last.SourceID, pair.source.ID, pair.targetName)
	}
	loaded.Runs.TargetID = pair.target.ID
	return sameTopics, ""
}

// pairKey says where the pairs and the owners of a topic stand: by its name
// alone, so that a later incarnation finds them.
func pairKey(key checkpoint.Key) checkpoint.Key {
	key.TopicID = [16]byte{}
	return key
}
