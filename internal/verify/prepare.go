package verify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"kmirror/checkpoint"
	"kmirror/internal/kafka"
	"kmirror/topology"
)

// Cluster is what is asked of source and target; *kafka.Cluster is one.
type Cluster interface {
	Log
	checkpoint.Reader
	ListOffsets(ctx context.Context, partitions map[string][]int32, timestamp int64) (map[string]map[int32]int64, error)
	Metadata(ctx context.Context, topics ...string) (*kafka.Metadata, error)
	TopicConfigs(ctx context.Context, topics []string) (map[string]map[string]kafka.ConfigEntry, error)
}

// Verification is everything that is known of a run before it reads records.
type Verification struct {
	Flow      *topology.Flow
	Begun     time.Time
	Selection Selection
	Parts     []*Part  // of the present turn, by topic
	Unmapped  []string // topics of the present turn that nothing was mirrored of
	Course    Course
}

// Part is one partition of a verification.
type Part struct {
	*Job
	TopicID, TargetID [16]byte
	Gone              int64 // records of the map that were gone before it began
}

// DefaultAtOnce is how many partitions one turn takes at most, unless a topic has
// more: all that is known of them is held in memory, about 1 KB each and 32 bytes
// for each run of their maps.
const DefaultAtOnce = 200_000

// NotFoundError says that something that was named is not there.
type NotFoundError struct{ Text string }

func (e *NotFoundError) Error() string { return e.Text }

// Setting is what is compared, and who is asked.
type Setting struct {
	Source, Target Cluster
	Config         *topology.Config
	Flow           *topology.Flow
	AtOnce         int // partitions in one turn; 0: DefaultAtOnce
	// Others asks another cluster of the configuration for its id. It is called
	// only where a circle of more than two clusters makes it necessary; nil, or an
	// error: not known.
	Others func(ctx context.Context, name string) (id string, err error)
}

// Prepare fixes what is to be compared: which partitions, from where to where.
// With a standing it goes on with that: the ranges are those that were kept, and
// the topics have to be the same ones still. Source and target are asked for
// metadata and offsets, and for their offset maps. Where there are more partitions
// than may be held at once, it is about the topics of one turn: see Course.
//
// Errors: *NotFoundError for topics and partitions that are not there, or not
// mirrored; *OutdatedError for a standing that no longer fits.
func Prepare(ctx context.Context, of Setting, choice Selection, kept *Standing) (*Verification, error) {
	flow := of.Flow
	v := &Verification{Flow: flow, Begun: time.Now(), Selection: choice}
	if kept != nil {
		v.Begun, v.Selection, v.Course = kept.Begun, kept.Selection, kept.Course
	}
	there, err := of.Source.Metadata(ctx)
	if err != nil {
		return nil, err
	}
	here, err := of.Target.Metadata(ctx)
	if err != nil {
		return nil, err
	}
	if here.Topics[checkpoint.MapTopic] == nil {
		return nil, &NotFoundError{fmt.Sprintf("nothing was mirrored into %s yet: it has no topic %s", flow.To, checkpoint.MapTopic)}
	}
	if !v.Course.divided() {
		topics, err := choose(flow, v.Selection, there, here)
		if err != nil {
			return nil, err
		}
		if v.Course.Left = topics; kept != nil { // it had one turn for all
			v.Course = Course{Now: topics}
		}
	}
	topics, kept, err := v.turn(cmp.Or(of.AtOnce, DefaultAtOnce), there, here, kept)
	if err != nil {
		return nil, err
	}
	if len(topics) == 0 { // those that were left are gone
		return v, nil
	}
	p := &preparation{v: v, config: of.Config, source: of.Source, target: of.Target, others: of.Others, there: there, here: here, kept: kept}
	if err := p.describe(ctx, topics); err != nil {
		return nil, err
	}
	if err := p.load(ctx, topics); err != nil {
		return nil, err
	}
	fresh := v.Parts
	if kept != nil && len(kept.Parts) > 0 {
		if fresh, err = p.goOn(); err != nil {
			return nil, err
		}
	}
	return v, p.plan(ctx, fresh)
}

// choose is the topics to be compared, sorted.
func choose(flow *topology.Flow, choice Selection, there, here *kafka.Metadata) ([]string, error) {
	names := choice.Topics
	if len(names) == 0 {
		for _, name := range slices.Sorted(maps.Keys(there.Topics)) {
			if flow.Selects(name) && here.Topics[flow.TargetTopic(name)] != nil {
				names = append(names, name)
			}
		}
		if len(names) == 0 {
			return nil, &NotFoundError{fmt.Sprintf("flow %s mirrors no topic that there is on both sides", flow.Name)}
		}
	}
	for _, name := range names {
		t := there.Topics[name]
		switch {
		case t == nil:
			return nil, &NotFoundError{fmt.Sprintf("no topic %q in %s: `kmirror topics %s` lists what there is", name, flow.From, flow.From)}
		case t.Err != nil:
			return nil, fmt.Errorf("topic %s in %s: %w", name, flow.From, t.Err)
		case !flow.Selects(name):
			return nil, &NotFoundError{fmt.Sprintf("flow %s does not mirror topic %q: it is %s", flow.Name, name, flow.Selection(name))}
		case here.Topics[flow.TargetTopic(name)] == nil:
			return nil, &NotFoundError{fmt.Sprintf("topic %q of %s is not in %s yet, as %q", name, flow.From, flow.To, flow.TargetTopic(name))}
		case choice.Partition >= 0 && int(choice.Partition) >= len(t.Partitions):
			return nil, &NotFoundError{fmt.Sprintf("topic %q in %s has %d partitions, and none of number %d", name, flow.From, len(t.Partitions), choice.Partition)}
		}
	}
	return names, nil
}

// preparation gathers what is known of the partitions.
type preparation struct {
	v              *Verification
	config         *topology.Config
	source, target Cluster
	others         func(ctx context.Context, cluster string) (id string, err error)
	there, here    *kafka.Metadata
	kept           *Standing
	compacts       [2]map[string]bool // by topic; in the source, in the target
}

// describe finds out which topics are compacted. Where nobody may ask, none
// counts as compacted.
func (p *preparation) describe(ctx context.Context, topics []string) error {
	targets := make([]string, 0, len(topics))
	for _, name := range topics {
		targets = append(targets, p.v.Flow.TargetTopic(name))
	}
	for i, ask := range []struct {
		Cluster
		topics []string
	}{{p.source, topics}, {p.target, targets}} {
		found, err := ask.TopicConfigs(ctx, ask.topics)
		if err != nil && len(found) == 0 && ctx.Err() != nil {
			return err
		}
		p.compacts[i] = map[string]bool{}
		for name, configs := range found {
			p.compacts[i][name] = strings.Contains(configs["cleanup.policy"].Value, "compact")
		}
	}
	return nil
}

// load reads the map, and makes a part of each partition that it knows.
func (p *preparation) load(ctx context.Context, topics []string) error {
	flow := p.v.Flow
	byPlace := map[int32][]checkpoint.Key{}
	for _, name := range topics {
		t := p.there.Topics[name]
		for id := range t.Partitions {
			if want := p.v.Selection.Partition; want >= 0 && want != int32(id) {
				continue
			}
			key := checkpoint.Key{Flow: flow.Name, Topic: name, TopicID: t.ID, Partition: int32(id)}
			byPlace[key.MapPartition()] = append(byPlace[key.MapPartition()], key)
		}
	}
	var all errgroup.Group
	loaded := make([]map[checkpoint.Key]checkpoint.Loaded, checkpoint.MapPartitions)
	for place, keys := range byPlace {
		all.Go(func() (err error) {
			loaded[place], err = checkpoint.LoadPartitions(ctx, p.target, place, keys)
			return err
		})
	}
	if err := all.Wait(); err != nil {
		return fmt.Errorf("read the offset map of %s: %w", flow.To, err)
	}
	mine, loops, err := p.writers(ctx)
	if err != nil {
		return err
	}
	for _, name := range topics {
		t, known := p.there.Topics[name], 0
		filter, target := flow.FilterFor(name), p.here.Topics[flow.TargetTopic(name)]
		letters := p.letters(name)
		for id := range t.Partitions {
			key := checkpoint.Key{Flow: flow.Name, Topic: name, TopicID: t.ID, Partition: int32(id)}
			found, ok := loaded[key.MapPartition()][key]
			if !ok || id >= len(target.Partitions) {
				continue
			}
			part := Partition{
				Topic: name, TargetTopic: target.Name, Number: int32(id), Through: found.Runs.Through(),
				Owns:    func(id int64, epoch int16) bool { return mine(id) || found.Ledger.Owns(id, epoch) },
				Carries: found.Ledger.Source, Filter: filter,
				SourceCompacts: p.compacts[0][name], TargetCompacts: p.compacts[1][target.Name],
			}
			if flow.BreaksLoop(name) {
				part.Loops = loops
			}
			if letters != nil {
				part.Letters = func(ctx context.Context, offset int64) (bool, error) { return letters.has(ctx, int32(id), offset) }
			}
			if found.Runs.TargetID == target.ID || found.Runs.TargetID == [16]byte{} {
				part.Runs = make([]checkpoint.Run, 0, found.Runs.Len())
				found.Runs.All(func(r checkpoint.Run) bool { part.Runs = append(part.Runs, r); return true })
			}
			known += len(part.Runs)
			p.v.Parts = append(p.v.Parts, &Part{Job: NewJob(part, nil), TopicID: t.ID, TargetID: target.ID})
		}
		if known == 0 {
			p.v.Unmapped = append(p.v.Unmapped, name)
		}
	}
	return nil
}

// writers finds out whose producer ids are whose: those of this flow in the
// target, and in the source those of what the flow leaves out. It is called after
// the map was read, so that whoever wrote what is compared is known. The answers
// only read, so they may be asked concurrently.
func (p *preparation) writers(ctx context.Context) (mine func(id int64) bool, loops func(id int64) (bool, error), err error) {
	flow := p.v.Flow
	target := checkpoint.NewProvenances(p.target)
	if err := target.Update(ctx); err != nil {
		return nil, nil, err
	}
	mine = func(id int64) bool {
		known, ok := target.Of(id)
		return ok && known.Flow == flow.Name
	}
	if len(flow.Drops) > 0 && p.there.Topics[checkpoint.MapTopic] != nil {
		loops, err = p.leftOut(ctx)
	}
	return mine, loops, err
}

// leftOut judges, as the mirror does, every producer id of the source that is
// known to be a flow's. Of the clusters that are not compared only those are asked
// who they are that make a difference.
func (p *preparation) leftOut(ctx context.Context) (func(id int64) (bool, error), error) {
	flow := p.v.Flow
	source := checkpoint.NewProvenances(p.source)
	if err := source.Update(ctx); err != nil {
		return nil, err
	}
	rule := checkpoint.NewOriginRule(flow, p.config.Flow)
	ids := map[string]string{flow.From: p.there.ClusterID, flow.To: p.here.ClusterID}
	type verdict struct {
		foreign bool
		doubt   error
	}
	verdicts := map[int64]verdict{}
	var silent map[string]error // clusters that were asked in vain; nil: none was asked
	for known := range source.All() {
		foreign, err := rule.Foreign(known, ids)
		if err != nil && silent == nil {
			silent = p.introduce(ctx, rule.From, ids)
			foreign, err = rule.Foreign(known, ids)
		}
		if doubt := (*checkpoint.DoubtError)(nil); errors.As(err, &doubt) {
			err = fmt.Errorf("%w: %w", err, silent[doubt.Unseen])
		}
		verdicts[known.ProducerID] = verdict{foreign, err}
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return func(id int64) (bool, error) { return verdicts[id].foreign, verdicts[id].doubt }, nil
}

// introduce asks clusters that are not compared for their ids, and returns why
// some did not say theirs.
func (p *preparation) introduce(ctx context.Context, clusters []string, ids map[string]string) (silent map[string]error) {
	silent = map[string]error{}
	for _, name := range clusters {
		if ids[name] != "" || silent[name] != nil {
			continue
		}
		id, err := "", errors.New("it was not asked")
		if p.others != nil {
			id, err = p.others(ctx, name)
		}
		if err == nil && id == "" {
			err = errors.New("it has no id")
		}
		if err != nil {
			silent[name] = err
			continue
		}
		ids[name] = id
	}
	return silent
}

// plan fixes the ranges of parts, by where both logs begin and end now.
func (p *preparation) plan(ctx context.Context, parts []*Part) error {
	if len(parts) == 0 {
		return nil
	}
	sources, targets := map[string][]int32{}, map[string][]int32{}
	for _, part := range parts {
		sources[part.Topic] = append(sources[part.Topic], part.Number)
		targets[part.TargetTopic] = append(targets[part.TargetTopic], part.Number)
	}
	var failed error // what a partition lacks is its own trouble
	list := func(of Cluster, partitions map[string][]int32, at int64) func(topic string, id int32) (int64, bool) {
		found, err := of.ListOffsets(ctx, partitions, at)
		failed = errors.Join(failed, err)
		return func(topic string, id int32) (int64, bool) {
			offset, ok := found[topic][id]
			return offset, ok
		}
	}
	start, end, begin := list(p.source, sources, kafka.Earliest), list(p.source, sources, kafka.Latest), list(p.target, targets, kafka.Earliest)
	since := func(string, int32) (int64, bool) { return -1, true }
	if p.v.Selection.SinceMillis > 0 {
		since = list(p.source, sources, p.v.Selection.SinceMillis)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	known := 0
	for _, part := range parts {
		var x Extent
		var ok [4]bool
		x.SourceStart, ok[0] = start(part.Topic, part.Number)
		x.SourceEnd, ok[1] = end(part.Topic, part.Number)
		x.TargetStart, ok[2] = begin(part.TargetTopic, part.Number)
		x.Since, ok[3] = since(part.Topic, part.Number)
		if ok != [4]bool{true, true, true, true} {
			part.err = failed
			continue
		}
		known++
		if x.Since < 0 && p.v.Selection.SinceMillis > 0 { // no record is that young
			x.Since = x.SourceEnd
		}
		part.list, part.Before, part.Beyond, part.Gone = part.Plan(x, p.v.Selection.Sample)
	}
	if known == 0 && len(parts) == len(p.v.Parts) {
		return failed
	}
	return nil
}

// OutdatedError says that what was kept of a verification no longer fits.
type OutdatedError struct{ Text string }

func (e *OutdatedError) Error() string { return e.Text }

// goOn takes the ranges that were kept, and returns the parts of which none were.
func (p *preparation) goOn() (fresh []*Part, err error) {
	type place struct {
		topic     string
		partition int32
	}
	kept := map[place]*PartitionStanding{}
	for i := range p.kept.Parts {
		kept[place{p.kept.Parts[i].Topic, p.kept.Parts[i].Partition}] = &p.kept.Parts[i]
	}
	for _, part := range p.v.Parts {
		k := kept[place{part.Topic, part.Number}]
		if k == nil { // it has come since, or could not be asked then
			fresh = append(fresh, part)
			continue
		}
		if k.TopicID != part.TopicID || k.TargetID != part.TargetID {
			return nil, &OutdatedError{fmt.Sprintf("topic %s was created anew since, on one side", part.Topic)}
		}
		part.list, part.Before, part.Beyond, part.Gone = k.Ranges, k.Before, k.Beyond, k.Gone
	}
	if len(fresh)+len(kept) > len(p.v.Parts) {
		return nil, &OutdatedError{"some of its partitions are no longer there, or no longer mirrored"}
	}
	return fresh, nil
}

// Standing is the verification as it is kept.
func (v *Verification) Standing() *Standing {
	s := &Standing{Flow: v.Flow.Name, Begun: v.Begun, Selection: v.Selection}
	if v.Course.divided() {
		s.Course = v.Course
	}
	for _, part := range v.Parts {
		if part.ranges() == 0 && part.Err() != nil {
			continue // it is asked again
		}
		s.Parts = append(s.Parts, PartitionStanding{
			Topic: part.Topic, TopicID: part.TopicID, TargetID: part.TargetID, Partition: part.Number,
			Before: part.Before, Beyond: part.Beyond, Gone: part.Gone, Ranges: part.Ranges(),
		})
	}
	return s
}

// Jobs are the parts that have something to compare.
func (v *Verification) Jobs() []*Job {
	var jobs []*Job
	for _, part := range v.Parts {
		if part.ranges() > 0 {
			jobs = append(jobs, part.Job)
		}
	}
	return jobs
}
