package mirror

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// An assignment is what the leader gives one member; a holding is what the
// member answers. Both are JSON: a version, and per flow and topic the
// partitions as ranges ("0-11,14").
//
// Handover rests on three rules, which keep two members from writing one
// partition even across changes of the leader:
//
//  1. a member publishes its holding before it starts a partition, and again
//     after it has stopped one: what it writes is always a subset;
//  2. a holding carries the version of the assignment it answers;
//  3. the leader gives a partition to a member only when no other living
//     member has it assigned or held, and every other living member has
//     answered its newest assignment (else it may be about to start something
//     that an older one named).
type assignment struct {
	Version    uint64
	Partitions map[partitionID]struct{}
	// Paths says, by flow, where the leader's mirror.yaml sends its records (see
	// dataPath). A member whose file says otherwise leaves the flow alone.
	Paths map[string]string
}

type assignmentJSON struct {
	Version uint64                       `json:"version"`
	Paths   map[string]string            `json:"paths,omitempty"`
	Flows   map[string]map[string]string `json:"flows"`
}

func newAssignment(version uint64, partitions ...partitionID) assignment {
	a := assignment{Version: version, Partitions: make(map[partitionID]struct{}, len(partitions))}
	for _, p := range partitions {
		a.Partitions[p] = struct{}{}
	}
	return a
}

func (a assignment) has(p partitionID) bool {
	_, ok := a.Partitions[p]
	return ok
}

func (a assignment) encode() []byte {
	byTopic := map[string]map[string][]int32{}
	for p := range a.Partitions {
		if byTopic[p.Flow] == nil {
			byTopic[p.Flow] = map[string][]int32{}
		}
		byTopic[p.Flow][p.Topic] = append(byTopic[p.Flow][p.Topic], p.Partition)
	}
	out := assignmentJSON{Version: a.Version, Paths: a.Paths, Flows: map[string]map[string]string{}}
	for flow, topics := range byTopic {
		out.Flows[flow] = map[string]string{}
		for topic, partitions := range topics {
			out.Flows[flow][topic] = formatRanges(partitions)
		}
	}
	b, err := json.Marshal(out)
	if err != nil { // maps of strings always marshal
		return nil
	}
	return b
}

func decodeAssignment(b []byte) (assignment, error) {
	var in assignmentJSON
	if err := json.Unmarshal(b, &in); err != nil {
		return assignment{}, fmt.Errorf("decode assignment: %w", err)
	}
	a := newAssignment(in.Version)
	a.Paths = in.Paths
	for flow, topics := range in.Flows {
		for topic, ranges := range topics {
			partitions, err := parseRanges(ranges)
			if err != nil {
				return assignment{}, fmt.Errorf("decode assignment of %s in %s: %w", topic, flow, err)
			}
			for _, p := range partitions {
				a.Partitions[partitionID{flow, topic, p}] = struct{}{}
			}
		}
	}
	return a, nil
}

// formatRanges writes partitions as "0-3,7".
func formatRanges(partitions []int32) string {
	slices.Sort(partitions)
	var b strings.Builder
	for i := 0; i < len(partitions); {
		j := i
		for j+1 < len(partitions) && partitions[j+1] == partitions[j]+1 {
			j++
		}
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(int(partitions[i])))
		if j > i {
			b.WriteByte('-')
			b.WriteString(strconv.Itoa(int(partitions[j])))
		}
		i = j + 1
	}
	return b.String()
}

// maxPartitions bounds what a damaged assignment can make us allocate.
const maxPartitions = 1 << 20

func parseRanges(s string) ([]int32, error) {
	var out []int32
	for part := range strings.SplitSeq(s, ",") {
		first, last, isRange := strings.Cut(part, "-")
		from, err := strconv.ParseInt(first, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("partition range %q: %w", part, err)
		}
		to := from
		if isRange {
			if to, err = strconv.ParseInt(last, 10, 32); err != nil {
				return nil, fmt.Errorf("partition range %q: %w", part, err)
			}
		}
		if from < 0 || to < from || to-from+int64(len(out)) >= maxPartitions {
			return nil, fmt.Errorf("partition range %q: out of bounds", part)
		}
		for p := from; p <= to; p++ {
			out = append(out, int32(p))
		}
	}
	return out, nil
}

// grant is the leader's decision for one round: what each member's assignment
// becomes, given the wanted owners and what the living members have and hold.
// Members whose assignment does not change are not in the result.
//
// wanted maps partitions to members; assigned and held are those of living
// members only (what the dead had is void: their membership has ended, and with
// it, by their own clock and before ours, their right to write).
func grant(members []string, wanted map[partitionID]string, assigned, held map[string]assignment) map[string]assignment {
	// A partition is busy while a member other than the wanted one may write it.
	answered := func(m string) bool {
		a, ok := assigned[m]
		return !ok || held[m].Version >= a.Version
	}
	next := make(map[string]map[partitionID]struct{}, len(members))
	for _, m := range members {
		next[m] = map[partitionID]struct{}{}
		for p := range assigned[m].Partitions {
			if wanted[p] == m {
				next[m][p] = struct{}{}
			}
		}
	}
	unanswered := 0
	for _, m := range members {
		if !answered(m) {
			unanswered++
		}
	}
	owners := map[partitionID][]string{}
	for _, m := range members {
		for p := range assigned[m].Partitions {
			owners[p] = append(owners[p], m)
		}
		for p := range held[m].Partitions {
			if !assigned[m].has(p) {
				owners[p] = append(owners[p], m)
			}
		}
	}
	for p, m := range wanted {
		if _, has := next[m][p]; has || next[m] == nil {
			continue
		}
		others := unanswered
		if !answered(m) {
			others--
		}
		free := others == 0
		for _, o := range owners[p] {
			free = free && o == m
		}
		if free {
			next[m][p] = struct{}{}
		}
	}
	changed := map[string]assignment{}
	for _, m := range members {
		a, known := assigned[m]
		same := known && len(next[m]) == len(a.Partitions)
		for p := range next[m] {
			same = same && a.has(p)
		}
		if !same {
			changed[m] = assignment{Version: max(a.Version, held[m].Version) + 1, Partitions: next[m]}
		}
	}
	return changed
}
