package mirror

import (
	"fmt"

	"kmirror/checkpoint"
)

// acquaintance says whether a source topic and its target topic, by their ids,
// are the ones that were mirrored before.
type acquaintance int

const (
	sameTopics acquaintance = iota // yes
	newPair                        // nothing was ever mirrored between them
	newTarget                      // the target topic was deleted and created anew: it is filled again
)

// incarnation compares the topic ids with those written down at the beginning
// of mirroring. A source topic that was created anew while its copy stayed ends
// in a stop: what follows in the copy would not be what its consumers had read.
//
// The pair is one for all partitions, and whichever comes first writes it. So
// that a partition was mirrored into another target topic is also told by its
// own map, which bears the id of the topic that its target offsets belong to.
//
// The pair is written after the anchor of the first epoch: a crash between the
// two finds the old pair, and begins anew once more; the other way round, the
// next life would take an older life's epoch start for its own.
func incarnation(pair *topicPair, loaded checkpoint.Loaded) (acquaintance, error) {
	var last *checkpoint.TopicPair
	for i := range loaded.Pairs {
		if p := &loaded.Pairs[i]; last == nil || p.TimeMillis >= last.TimeMillis {
			last = p
		}
	}
	var none [16]byte
	differ := func(a, b [16]byte) bool { return a != none && b != none && a != b }
	switch {
	case last == nil:
		loaded.Runs.TargetID = pair.target.ID
		return newPair, nil
	case differ(last.TargetID, pair.target.ID), differ(loaded.Runs.TargetID, pair.target.ID):
		loaded.Runs.Reset(pair.target.ID)
		return newTarget, nil
	case differ(last.SourceID, pair.source.ID):
		return 0, &goneError{fmt.Sprintf("source topic %s was deleted and created anew (its id was %x, now %x) and target topic %s holds the old one's records; to mirror the new one from its start, delete the target topic; to keep the copy, exclude the topic",
			pair.source.Name, last.SourceID, pair.source.ID, pair.targetName)}
	}
	loaded.Runs.TargetID = pair.target.ID
	return sameTopics, nil
}
