package mirror

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"kmirror/checkpoint"
	"kmirror/topology"
)

// A way back that mirror.yaml does not show is told once, also when it comes to be
// while we mirror.
func TestUnlistedCircleIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		flow, err := topology.NewFlow("east", "west", func(f *topology.Flow) { f.Naming = topology.Identity })
		if err != nil {
			t.Fatal(err)
		}
		var now atomic.Pointer[world]
		now.Store(&world{sourceID: "E", targetID: "W"})
		source := &mapTopic{}
		var told []Incident
		watch := &circleWatch{
			flow: func() *topology.Flow { return flow }, reads: func(string) string { return "" }, world: now.Load,
			known: checkpoint.NewProvenances(source), tell: func(in Incident) { told = append(told, in) }, told: map[string]bool{},
		}
		ctx, cancel := context.WithCancel(t.Context())
		go watch.Run(ctx)
		time.Sleep(3 * circleLook)
		synctest.Wait()
		if len(told) != 0 {
			t.Fatalf("told %+v of nothing", told)
		}
		now.Store(&world{sourceID: "E", targetID: "W", sourceMapped: true})
		source.say(checkpoint.Provenance{Flow: "remote->local", ProducerID: 7, Source: "W", Target: "E", KeepsNames: true})
		time.Sleep(3 * circleLook)
		cancel()
		synctest.Wait()
		if len(told) != 1 || told[0].Kind != KindUnlistedCircle || told[0].Flow != "east->west" || told[0].Partition != -1 ||
			!strings.Contains(told[0].Detail, "remote->local") || !strings.Contains(told[0].Action, "{from: west, to: east, naming: identity, paused: true}") {
			t.Errorf("told %+v", told)
		}
	})
}
