package verify

import (
	"fmt"
	"slices"

	"kmirror/internal/kafka"
)

// Course says which topics have had their turn. What is known of the partitions
// that are compared is held in memory, so where there are very many of them topics
// take turns: of each turn it is fixed when that begins what is compared, and when
// it is over, only what is worth telling is kept. The zero Course has not begun.
type Course struct {
	Now   []string `json:"now,omitempty"`   // topics of this turn
	Left  []string `json:"left,omitempty"`  // their turn comes
	Again []string `json:"again,omitempty"` // something of them could not be read: they come once more, whole, when none is left
	Last  bool     `json:"last,omitempty"`  // this turn is of those: what cannot be read now ends the run

	Past     []TopicReport `json:"past,omitempty"`     // what was found; of their partitions the worst only
	Unmapped []string      `json:"unmapped,omitempty"` // topics of former turns that nothing was mirrored of
	Vanished []string      `json:"vanished,omitempty"` // topics that were gone when their turn came
}

// divided says whether there is, or was, more than one turn.
func (c *Course) divided() bool {
	return c.Last || len(c.Left)+len(c.Again)+len(c.Past)+len(c.Vanished) > 0
}

// begin begins the next turn, if none is under way: with as many topics as have no
// more than so many partitions, and one at least. sizeOf says how many a topic has,
// and whether there is such a topic still.
func (c *Course) begin(most int, sizeOf func(topic string) (partitions int, there bool)) {
	for len(c.Now) == 0 && len(c.Left)+len(c.Again) > 0 {
		if len(c.Left) == 0 {
			c.Left, c.Again, c.Last = c.Again, nil, true
		}
		held := 0
		for len(c.Left) > 0 {
			name := c.Left[0]
			size, there := sizeOf(name)
			if there && len(c.Now) > 0 && held+size > most {
				break
			}
			c.Left = c.Left[1:]
			if !there {
				c.Vanished = append(c.Vanished, name)
				continue
			}
			c.Now, held = append(c.Now, name), held+size
		}
	}
}

// Next is the standing with which the next turn begins: Prepare goes on with it.
// nil: there is none, because all is done, or because what is left cannot be read
// at present. It is for when Run has returned nil.
func (v *Verification) Next() *Standing {
	failed := map[string]bool{}
	for _, part := range v.Parts {
		if part.Err() != nil {
			failed[part.Topic] = true
		}
	}
	c := v.Course
	if len(c.Left)+len(c.Again) == 0 || c.Last && len(failed) > 0 {
		return nil
	}
	c.Past = slices.Clone(c.Past)
	for _, t := range v.present() {
		if !failed[t.Topic] {
			c.Past = append(c.Past, t.brief())
		}
	}
	c.Again = slices.Clone(c.Again)
	for _, name := range c.Now {
		if failed[name] {
			c.Again = append(c.Again, name)
		}
	}
	c.Unmapped = append(slices.Clone(c.Unmapped), v.Unmapped...)
	c.Now = nil
	return &Standing{Flow: v.Flow.Name, Begun: v.Begun, Selection: v.Selection, Course: c}
}

// turn begins the next turn of the course, or goes on with the present one. What
// is gone meanwhile is not compared, and what was kept of it is forgotten.
func (v *Verification) turn(most int, there, here *kafka.Metadata, kept *Standing) (topics []string, left *Standing, err error) {
	sizeOf := func(topic string) (int, bool) {
		t := there.Topics[topic]
		return len(partitionsOf(t)), t != nil && here.Topics[v.Flow.TargetTopic(topic)] != nil
	}
	c := &v.Course
	c.Now = slices.DeleteFunc(slices.Clone(c.Now), func(name string) bool {
		_, there := sizeOf(name)
		if !there {
			c.Vanished = append(slices.Clone(c.Vanished), name)
		}
		return !there
	})
	c.begin(most, sizeOf)
	for _, name := range c.Now {
		if err := there.Topics[name].Err; err != nil {
			return nil, nil, fmt.Errorf("topic %s in %s: %w", name, v.Flow.From, err)
		}
	}
	if kept != nil {
		some := *kept
		some.Parts = slices.DeleteFunc(slices.Clone(some.Parts), func(p PartitionStanding) bool { return slices.Contains(c.Vanished, p.Topic) })
		left = &some
	}
	return c.Now, left, nil
}

func partitionsOf(t *kafka.Topic) []kafka.Partition {
	if t == nil {
		return nil
	}
	return t.Partitions
}

// brief is the report without the partitions that are as they should be, and with
// so many of the others at most, those that could not be read first.
func (t TopicReport) brief() TopicReport {
	var unread, different []PartitionReport
	for _, p := range t.Partitions {
		switch {
		case len(unread)+len(different) == maxNamed:
		case p.Error != "":
			unread = append(unread, p)
		case p.Verdict == Different:
			p.Ranges = slices.DeleteFunc(slices.Clone(p.Ranges), func(r Range) bool { return r.verdict() != Different })
			different = append(different, p)
		}
	}
	t.Partitions = append(unread, different...)
	return t
}
