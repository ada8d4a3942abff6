package mirror

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"kmirror/checkpoint"
	"kmirror/internal/kafka"
	"kmirror/topology"
)

// A topic that goes round stops, once, whether the way back was there before or
// comes while we mirror; what the other flow does not mirror does not stop, and an
// operator's word is not asked for again.
func TestUnlistedCircleStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		flow, err := topology.NewFlow("east", "west", func(f *topology.Flow) { f.Naming = topology.Identity })
		if err != nil {
			t.Fatal(err)
		}
		var (
			mu      sync.Mutex // guards the three below
			now     *world
			told    []Incident
			faulted []string
		)
		source := &mapTopic{}
		watch := &circleWatch{
			flow: func() *topology.Flow { return flow }, reads: func(string) string { return "" },
			world: func() *world { mu.Lock(); defer mu.Unlock(); return now },
			tell:  func(in Incident) { mu.Lock(); defer mu.Unlock(); told = append(told, in) },
			fault: func(topic string, _ error) { mu.Lock(); defer mu.Unlock(); faulted = append(faulted, topic) },
			known: checkpoint.NewProvenances(source), circles: map[string]*haltError{}, held: map[partitionID]bool{},
		}
		see := func(mapped bool) {
			pair := func(name, target string, id byte) *topicPair {
				return &topicPair{source: &kafka.Topic{Name: name, ID: [16]byte{id}}, targetName: target}
			}
			mu.Lock()
			defer mu.Unlock()
			now = &world{sourceID: "E", targetID: "W", sourceMapped: mapped, topics: []*topicPair{
				pair("orders", "orders", 1), pair("users", "users", 2), pair("heartbeats", "east.heartbeats", 3),
			}}
		}
		mirrors := func(topic string, id byte) {
			p := checkpoint.TopicPair{Flow: "remote->local", SourceTopic: topic, TargetTopic: topic, TargetID: [16]byte{id}, SourceID: [16]byte{9}}
			at := checkpoint.Key{Flow: p.Flow, Topic: topic}.MapPartition()
			source.mu.Lock()
			defer source.mu.Unlock()
			source.records[at] = append(source.records[at], checkpoint.EncodePair(p))
		}
		orders, users := partitionID{"east->west", "orders", 0}, partitionID{"east->west", "users", 0}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go watch.Run(ctx)
		see(false)
		if halt := watch.stop(ctx, orders); halt != nil {
			t.Fatalf("stops for nothing: %v", halt)
		}
		see(true)
		source.say(checkpoint.Provenance{Flow: "remote->local", ProducerID: 7, Source: "W", Target: "E", KeepsNames: true})
		mirrors("users", 8) // one that was deleted meanwhile
		mirrors("heartbeats", 3)
		time.Sleep(2 * circleLook)
		synctest.Wait()
		if len(told) != 0 {
			t.Fatalf("told %+v of a flow that has no topic in common", told)
		}
		mirrors("orders", 1)
		time.Sleep(3 * circleLook)
		synctest.Wait()
		if !slices.Equal(faulted, []string{"orders"}) || len(told) != 1 || told[0].Kind != KindUnlistedCircle || told[0].Topic != "orders" || told[0].Partition != -1 ||
			!strings.Contains(told[0].Detail, "remote->local") || !strings.Contains(told[0].Action, "{from: west, to: east, naming: identity, paused: true}") {
			t.Errorf("faulted %v, told %+v", faulted, told)
		}
		if halt := watch.stop(ctx, orders); halt == nil || halt.kind != KindUnlistedCircle || !slices.Contains(AcceptableKinds(), halt.kind) {
			t.Errorf("orders begins: %v", halt)
		}
		if halt := watch.stop(ctx, orders); halt != nil {
			t.Errorf("asks for a word that was given: %v", halt)
		}
		if halt := watch.stop(ctx, users); halt != nil {
			t.Errorf("users does not begin: %v", halt)
		}

		watch = &circleWatch{
			flow: watch.flow, reads: watch.reads, world: watch.world, tell: watch.tell, fault: watch.fault,
			known: checkpoint.NewProvenances(source), circles: map[string]*haltError{}, held: map[partitionID]bool{},
		}
		if halt := watch.stop(ctx, orders); halt == nil {
			t.Error("a next life begins before it has looked")
		}
	})
}
