package verify

import (
	"cmp"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"
)

// Verdict is the outcome in a word.
type Verdict string

// The verdicts, from the best to the worst.
const (
	Nothing    Verdict = "nothing"    // there is nothing that could be compared
	Equal      Verdict = "equal"      // all that could be compared is the same
	Unfinished Verdict = "unfinished" // something could not be read, or was not read yet; so far nothing differs
	Different  Verdict = "different"
)

// Report is what a verification has found so far.
type Report struct {
	Flow      string        `json:"flow"`
	From      string        `json:"from"`
	To        string        `json:"to"`
	Begun     time.Time     `json:"begun"`
	Selection Selection     `json:"selection"`
	Verdict   Verdict       `json:"verdict"`
	Topics    []TopicReport `json:"topics"`
	Unmapped  []string      `json:"not_mirrored,omitempty"` // topics of the flow of which nothing is mirrored yet
	Vanished  []string      `json:"vanished,omitempty"`     // topics that were gone when their turn came, see Course
	Left      int           `json:"topics_left,omitempty"`  // whose turn has not come
	Total     Tally         `json:"total"`

	First       *Difference  `json:"first_difference,omitempty"` // by topic, partition and offset
	Differences []Difference `json:"differences,omitempty"`      // the first of each range, at most maxNamed
}

// TopicReport is one topic's part.
type TopicReport struct {
	Topic       string            `json:"topic"`
	TargetTopic string            `json:"target_topic"`
	Verdict     Verdict           `json:"verdict"`
	Before      int64             `json:"before_the_map"` // source offsets that were there before what the map knows
	Beyond      int64             `json:"not_mirrored"`   // source offsets that were not mirrored yet when it began
	Offsets     int64             `json:"offsets"`        // source offsets in all ranges
	Done        int64             `json:"offsets_done"`
	Tally       Tally             `json:"tally"`
	Digest      Digest            `json:"digest"` // XXH64 over the digests of its ranges
	Count       int               `json:"partition_count"`
	Unread      int               `json:"unread_partitions,omitempty"` // could not be read to their end
	Partitions  []PartitionReport `json:"partitions"`                  // of a run in several turns only those of interest
}

// PartitionReport is one partition's part.
type PartitionReport struct {
	Partition int32   `json:"partition"`
	Verdict   Verdict `json:"verdict"`
	Error     string  `json:"error,omitempty"`
	Ranges    []Range `json:"ranges"`
}

// maxNamed bounds the differences in a report.
const maxNamed = 100

// Report says what was found so far. It may be asked while Run runs.
func (v *Verification) Report() *Report {
	r := &Report{
		Flow: v.Flow.Name, From: v.Flow.From, To: v.Flow.To, Begun: v.Begun, Selection: v.Selection,
		Verdict: Nothing, Topics: append([]TopicReport{}, v.Course.Past...), Unmapped: append(slices.Clone(v.Course.Unmapped), v.Unmapped...),
		Vanished: v.Course.Vanished, Left: len(v.Course.Left) + len(v.Course.Again),
	}
	for _, t := range v.present() {
		if v.Course.divided() {
			t = t.brief()
		}
		r.Topics = append(r.Topics, t)
	}
	slices.SortFunc(r.Topics, func(a, b TopicReport) int { return cmp.Compare(a.Topic, b.Topic) })
	if r.Left > 0 {
		r.Verdict = Unfinished
	}
	for _, t := range r.Topics {
		r.Total.Add(t.Tally)
		r.Verdict = worse(r.Verdict, t.Verdict)
		for k := range t.Partitions {
			for _, one := range t.Partitions[k].Ranges {
				if one.First != nil && len(r.Differences) < maxNamed {
					r.Differences = append(r.Differences, *one.First)
				}
			}
		}
	}
	if len(r.Differences) > 0 {
		r.First = &r.Differences[0]
	}
	return r
}

// present are the topics of the present turn.
func (v *Verification) present() []TopicReport {
	topics := []TopicReport{}
	for i := 0; i < len(v.Parts); {
		j := i
		for j < len(v.Parts) && v.Parts[j].Topic == v.Parts[i].Topic {
			j++
		}
		topics = append(topics, reportTopic(v.Parts[i:j]))
		i = j
	}
	return topics
}

// reportTopic is about the parts of one topic.
func reportTopic(parts []*Part) TopicReport {
	t := TopicReport{Topic: parts[0].Topic, TargetTopic: parts[0].TargetTopic, Verdict: Nothing, Count: len(parts)}
	source, target := xxhash.New(), xxhash.New()
	for _, part := range parts {
		p := PartitionReport{Partition: part.Number, Verdict: Nothing, Ranges: part.Ranges()}
		if err := part.Err(); err != nil {
			p.Verdict, p.Error = Unfinished, err.Error()
			t.Unread++
		}
		t.Before += part.Before
		t.Beyond += part.Beyond
		t.Tally.Gone += part.Gone
		for i := range p.Ranges {
			one := &p.Ranges[i]
			one.Digest.SourceState, one.Digest.TargetState = nil, nil
			_, _ = source.WriteString(one.Digest.Source) // a hash never fails
			_, _ = target.WriteString(one.Digest.Target)
			t.Offsets += one.To - one.From
			t.Done += one.Next - one.From
			t.Tally.Add(one.Tally)
			p.Verdict = worse(p.Verdict, one.verdict())
		}
		t.Verdict = worse(t.Verdict, p.Verdict)
		t.Partitions = append(t.Partitions, p)
	}
	t.Digest = Digest{Source: hex64(source.Sum64()), Target: hex64(target.Sum64())}
	return t
}

func (r *Range) verdict() Verdict {
	switch {
	case r.Tally.Differences > 0:
		return Different
	case !r.Done:
		return Unfinished
	}
	return Equal
}

// worse is the worse of two verdicts.
func worse(a, b Verdict) Verdict {
	for _, v := range []Verdict{Different, Unfinished, Equal} {
		if a == v || b == v {
			return v
		}
	}
	return Nothing
}

// Offsets is how many source offsets there are to compare, and how many of them
// were dealt with.
func (v *Verification) Offsets() (all, done int64) {
	for _, part := range v.Parts {
		for _, r := range part.Ranges() {
			all += r.To - r.From
			done += r.Next - r.From
		}
	}
	return all, done
}
