package checkpoint_test

import (
	"testing"

	"kmirror/checkpoint"
)

func TestWhoseBatchesAreLeftOut(t *testing.T) {
	rule := checkpoint.OriginRule{Drops: []string{"b->a", "c->a"}, From: []string{"b", "c"}, Target: "b", Reads: func(flow string) string {
		return map[string]string{"b->a": "b", "c->a": "c", "d->a": "d", "a->b": "a"}[flow]
	}}
	all := map[string]string{"a": "A", "b": "B", "c": "C", "d": "D"}
	for _, test := range []struct {
		name   string
		p      checkpoint.Provenance
		refill bool
		ids    map[string]string
		want   bool
		doubt  bool
	}{
		{"of the way back", checkpoint.Provenance{Flow: "b->a", Source: "B", KeepsNames: true}, false, all, true, false},
		{"of another of the mesh", checkpoint.Provenance{Flow: "c->a", Source: "C", KeepsNames: true}, false, all, true, false},
		{"from before there were provenances", checkpoint.Provenance{Flow: "b->a"}, true, all, true, false},
		{"of a flow that is in no circle", checkpoint.Provenance{Flow: "d->a", Source: "D", KeepsNames: true}, false, all, false, false},
		{"of a flow that is in no circle, a cluster of the circle unseen", checkpoint.Provenance{Flow: "d->a", Source: "D", KeepsNames: true}, false, map[string]string{"b": "B", "d": "D"}, false, false},
		{"of another deployment that calls its clusters as this one calls others", checkpoint.Provenance{Flow: "a->b", Source: "B", KeepsNames: true}, false, all, true, false},
		{"the same, a cluster unseen", checkpoint.Provenance{Flow: "d->a", Source: "C", KeepsNames: true}, false, map[string]string{"b": "B", "d": "D"}, false, true},
		{"of another deployment, by the cluster", checkpoint.Provenance{Flow: "x->y", Source: "B", KeepsNames: true}, false, all, true, false},
		{"of another deployment, from elsewhere", checkpoint.Provenance{Flow: "x->y", Source: "X", KeepsNames: true}, false, all, false, false},
		{"of another deployment, under another name", checkpoint.Provenance{Flow: "x->y", Source: "B"}, false, all, false, false},
		{"of another deployment, a cluster unseen", checkpoint.Provenance{Flow: "x->y", Source: "X", KeepsNames: true}, false, map[string]string{"b": "B"}, false, true},
		{"of another deployment, another cluster unseen", checkpoint.Provenance{Flow: "x->y", Source: "B", KeepsNames: true}, false, map[string]string{"b": "B"}, true, false},
		{"of the cluster that stood there before, which nobody else has", checkpoint.Provenance{Flow: "b->a", Source: "B-lost", KeepsNames: true}, true, all, false, false},
		{"of the cluster that stood there before, which others bring", checkpoint.Provenance{Flow: "b->a", Source: "B-lost", KeepsNames: true}, false, all, true, false},
	} {
		rule.Refill = test.refill
		got, err := rule.Foreign(test.p, test.ids)
		if got != test.want || (err != nil) != test.doubt {
			t.Errorf("%s: got %v, %v; want %v, a doubt: %v", test.name, got, err, test.want, test.doubt)
		}
	}
}
