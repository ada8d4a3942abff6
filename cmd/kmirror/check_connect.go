package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"kmirror/checkpoint"
	"kmirror/internal/kafka"
	"kmirror/topology"
)

// checkClusters connects to every cluster and completes the result. The error
// carries the exit code: unreachable clusters weigh more than findings, two
// names for one cluster more than all.
func (a *app) checkClusters(ctx context.Context, cfg *topology.Config, result *checkResult) error {
	var (
		mu       sync.Mutex // guards seen and result while the connections run
		wait     sync.WaitGroup
		seen     = map[string]*kafka.Metadata{}
		sides    = map[string]*side{}
		unlinked []error
	)
	for i, t := range cfg.Clusters {
		wait.Go(func() {
			cluster, metadata, err := a.connect(ctx, t)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				result.Clusters[i].Error = err.Error()
				unlinked = append(unlinked, err)
				return
			}
			seen[t.Name], sides[t.Name] = metadata, &side{cluster, metadata}
			row := &result.Clusters[i]
			row.ID, row.Brokers, row.Topics = metadata.ClusterID, len(metadata.Brokers), len(metadata.Topics)
		})
	}
	wait.Wait()
	defer func() {
		for _, s := range sides {
			s.close()
		}
	}()
	for i, f := range cfg.Flows {
		if source := seen[f.From]; source != nil {
			count, findings := checkFlow(f, source, seen[f.To])
			result.Flows[i].Topics = count
			result.Findings = append(result.Findings, findings...)
		}
		asking, cancel := context.WithTimeout(ctx, a.timeout)
		r := &risks{flow: f, reads: checkpoint.ReadsOf(cfg.Flow), source: sides[f.From], target: sides[f.To]}
		result.Flows[i].Fence = r.look(asking)
		cancel()
		result.Findings = append(result.Findings, r.findings...)
	}
	aliases := cfg.CheckClusterIDs(clusterIDs(seen))
	switch {
	case aliases != nil:
		return errors.Join(append([]error{aliases}, unlinked...)...)
	case len(unlinked) > 0:
		return errors.Join(unlinked...)
	case slices.ContainsFunc(result.Findings, func(f finding) bool { return !f.Note }):
		return &shownError{exitFailure}
	default:
		return nil
	}
}

func clusterIDs(seen map[string]*kafka.Metadata) map[string]string {
	ids := map[string]string{}
	for name, metadata := range seen {
		if metadata.ClusterID != "" {
			ids[name] = metadata.ClusterID
		}
	}
	return ids
}

// checkFlow looks for topics that cannot be mirrored as they are. target is nil when it is not known.
func checkFlow(f *topology.Flow, source, target *kafka.Metadata) (topics int, findings []finding) {
	for _, name := range slices.Sorted(maps.Keys(source.Topics)) {
		if !f.Selects(name) {
			continue
		}
		topics++
		where := f.Name + ": topic " + name
		other := f.TargetTopic(name)
		if len(other) > topology.MaxTopicName {
			findings = append(findings, finding{
				false, where, fmt.Sprintf("as %s its name has %d characters and Kafka takes %d", other, len(other), topology.MaxTopicName),
				"exclude it with exclude_topics, or use naming: identity",
			})
			continue
		}
		if target == nil || target.Topics[other] == nil {
			continue
		}
		have, need := len(target.Topics[other].Partitions), len(source.Topics[name].Partitions)
		if have > need {
			findings = append(findings, finding{
				true, where, fmt.Sprintf("%s in %s has %d partitions, the source %d: the others stay empty, or somebody else writes there", other, f.To, have, need),
				"give the source as many if both shall be alike",
			})
		}
	}
	return topics, findings
}
