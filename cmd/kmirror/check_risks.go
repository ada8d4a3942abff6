package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"kmirror/checkpoint"
	"kmirror/internal/kafka"
	"kmirror/topology"
)

// risks says of a flow what its clusters can take back, lose or refuse. Either
// side is nil if it could not be connected.
type risks struct {
	flow           *topology.Flow
	reads          func(flow string) (cluster string) // as in checkpoint.OriginRule
	source, target *side
	findings       []finding
}

// side is one cluster of a flow.
type side struct {
	*remote
	metadata *kafka.Metadata
}

func (r *risks) note(where, problem, remedy string) {
	r.findings = append(r.findings, finding{true, r.flow.Name + ": " + where, problem, remedy})
}

func (r *risks) fault(where, problem, remedy string) {
	r.findings = append(r.findings, finding{false, r.flow.Name + ": " + where, problem, remedy})
}

// look asks all there is to ask, and says how the flow's dead owners are kept
// from writing: "fenced", "detection", or "" where that is not known.
func (r *risks) look(ctx context.Context) (fence string) {
	sources, targets := r.topics()
	if r.source != nil {
		r.configs(ctx, r.source, r.flow.From, sources)
		r.rights(ctx, r.source, r.flow.From, sources, []right{{3, "READ"}, {10, "DESCRIBE_CONFIGS"}})
		r.circle(ctx, sources)
		if len(r.flow.Drops) > 0 && r.source.metadata.Topics[checkpoint.MapTopic] != nil { // whose records are whose stands there
			r.rights(ctx, r.source, r.flow.From, []string{checkpoint.MapTopic}, []right{{3, "READ"}})
		}
	}
	if r.target == nil {
		return ""
	}
	r.configs(ctx, r.target, r.flow.To, targets)
	wanted := []right{{3, "READ"}, {4, "WRITE"}, {10, "DESCRIBE_CONFIGS"}, {7, "ALTER"}}
	if r.flow.SyncsConfigs() {
		wanted = append(wanted, right{11, "ALTER_CONFIGS"})
	}
	r.rights(ctx, r.target, r.flow.To, targets, wanted)
	return r.fence(ctx)
}

// topics are those that the flow mirrors, and what of their counterparts exists.
func (r *risks) topics() (sources, targets []string) {
	if r.source == nil {
		return nil, nil
	}
	for _, name := range slices.Sorted(maps.Keys(r.source.metadata.Topics)) {
		if !r.flow.Selects(name) {
			continue
		}
		sources = append(sources, name)
		if target := r.flow.TargetTopic(name); r.target != nil && r.target.metadata.Topics[target] != nil {
			targets = append(targets, target)
		}
	}
	return sources, targets
}

// circle warns of other deployments that mirror the target back into the source.
func (r *risks) circle(ctx context.Context, topics []string) {
	if r.target == nil || r.source.metadata.Topics[checkpoint.MapTopic] == nil || r.flow.Naming != topology.Identity || len(r.flow.Drops) > 0 {
		return
	}
	producers := checkpoint.NewProvenances(r.source)
	if producers.Update(ctx) != nil {
		return // who may not read there cannot be told
	}
	for _, other := range producers.Unlisted(r.flow, r.target.metadata.ClusterID, r.reads) {
		both := slices.Clone(topics)
		both = slices.DeleteFunc(both, func(name string) bool {
			return r.flow.TargetTopic(name) != name || !producers.Mirrors(other, name, r.source.metadata.Topics[name].ID)
		})
		if len(both) > 0 {
			r.fault("cluster "+r.flow.From, fmt.Sprintf("the flow %s of another deployment, or of an earlier file, mirrors %s of %s into it under the same name (%s): each record would come back, so that is not mirrored", other, plural(len(both), "topic"), r.flow.To, some(both)),
				fmt.Sprintf("write the way back into the file, {from: %s, to: %s, naming: identity, paused: true} with its topics; or let each topic go one way only", r.flow.To, r.flow.From))
		}
	}
}

// configs warns of topics that may lose what they have acknowledged.
func (r *risks) configs(ctx context.Context, at *side, cluster string, topics []string) {
	configs, err := at.TopicConfigs(ctx, topics)
	if err != nil && ctx.Err() == nil {
		if errors.Is(err, kerr.TopicAuthorizationFailed) || errors.Is(err, kerr.ClusterAuthorizationFailed) {
			r.fault("cluster "+cluster, "may not read the configs of topics ("+firstLine(err)+")", "grant DESCRIBE_CONFIGS on them, or say configs: {sync: false}")
		} else {
			r.note("cluster "+cluster, "the configs of topics cannot be read ("+firstLine(err)+")", "check the cluster")
		}
	}
	var unclean, thin []string
	for _, name := range topics {
		if configs[name]["unclean.leader.election.enable"].Value == "true" {
			unclean = append(unclean, name)
		}
		if t := at.metadata.Topics[name]; configs[name]["min.insync.replicas"].Value == "1" && len(t.Partitions) > 0 && len(t.Partitions[0].Replicas) > 1 {
			thin = append(thin, name)
		}
	}
	if len(unclean) > 0 {
		r.note("cluster "+cluster, fmt.Sprintf("%s with unclean.leader.election.enable=true: an election may take back records that were acknowledged (%s)", plural(len(unclean), "topic"), some(unclean)),
			"set it to false, or choose with the policies source_truncated and target_truncated what happens then")
	}
	if len(thin) > 0 {
		r.note("cluster "+cluster, fmt.Sprintf("%s with several replicas and min.insync.replicas=1: the loss of one broker may lose records that were acknowledged (%s)", plural(len(thin), "topic"), some(thin)),
			"set min.insync.replicas to 2 where there are three replicas")
	}
}

// right is an operation on a topic, by its number in Kafka's protocol.
type right struct {
	operation int
	name      string
}

// rights warns of topics that the clusters will refuse. Brokers before 2.3 do not say.
func (r *risks) rights(ctx context.Context, at *side, cluster string, topics []string, wanted []right) {
	lacking := map[string][]string{} // topics, by right
	for some := range slices.Chunk(topics, 500) {
		req := kmsg.NewPtrMetadataRequest()
		req.IncludeTopicAuthorizedOperations = true
		for _, name := range some {
			t := kmsg.NewMetadataRequestTopic()
			t.Topic = &name
			req.Topics = append(req.Topics, t)
		}
		answer, err := at.Request(ctx, req)
		if err != nil {
			return // the cluster answered a moment ago: what this is shows elsewhere
		}
		metadata, ok := answer.(*kmsg.MetadataResponse)
		if !ok || metadata.GetVersion() < 8 {
			return
		}
		for _, t := range metadata.Topics {
			if t.Topic == nil || t.ErrorCode != 0 || t.AuthorizedOperations == -1<<31 {
				continue
			}
			for _, w := range wanted {
				if t.AuthorizedOperations&(1<<w.operation) == 0 {
					lacking[w.name] = append(lacking[w.name], *t.Topic)
				}
			}
		}
	}
	for _, w := range wanted {
		if names := lacking[w.name]; len(names) > 0 {
			r.fault("cluster "+cluster, fmt.Sprintf("%s may not be reached with %s (%s)", plural(len(names), "topic"), w.name, some(names)),
				fmt.Sprintf("grant %s on them to kmirror's user", w.name))
		}
	}
}

// fence says whether the target can fence.
func (r *risks) fence(ctx context.Context) string {
	const detection = "detection"
	if r.flow.Fence == topology.FenceDetect {
		return detection
	}
	where := "cluster " + r.flow.To
	offered, err := r.target.Transactions(ctx)
	switch {
	case err != nil:
		r.note(where, "whether it offers transactions cannot be asked ("+firstLine(err)+")", "check the cluster")
		return ""
	case !offered:
		r.note(where, "it offers no transactions: what an instance that died still has under way is detected, not prevented, and may stand twice",
			"nothing, if that will do (fence: detect says so); else a cluster with brokers from 2.5 and transactions")
		return detection
	}
	if r.target.metadata.Topics["__transaction_state"] == nil {
		return "fenced" // to ask for a coordinator would make the topic
	}
	req := kmsg.NewPtrFindCoordinatorRequest()
	req.CoordinatorKey, req.CoordinatorType = "kmirror."+r.flow.Name, 1
	answer, err := r.target.Request(ctx, kafka.AtMost(req, 3))
	if found, ok := answer.(*kmsg.FindCoordinatorResponse); err == nil && ok && errors.Is(kerr.ErrorForCode(found.ErrorCode), kerr.TransactionalIDAuthorizationFailed) {
		r.fault(where, "transactional ids may not be used", "grant WRITE and DESCRIBE on the transactional ids that begin with kmirror. to kmirror's user, or say fence: detect")
		return ""
	}
	return "fenced"
}

// some names the first of many.
func some(names []string) string {
	const shown = 3
	if len(names) <= shown {
		return strings.Join(names, ", ")
	}
	return strings.Join(names[:shown], ", ") + fmt.Sprintf(" and %d more", len(names)-shown)
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}
