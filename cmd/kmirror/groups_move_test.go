package main

import (
	"bytes"
	"strings"
	"testing"

	"kmirror/checkpoint"
)

func TestShowMoves(t *testing.T) {
	refused := checkpoint.GroupPlan{Group: "busy", Refused: "it has members"}
	done := checkpoint.GroupPlan{Group: "billing", Moves: []checkpoint.GroupMove{{Topic: "orders", From: 5, To: 9, OtherTopic: "east.orders", OtherOffset: 7, Exact: true, Done: true}}}
	unwritten := done
	unwritten.Moves = []checkpoint.GroupMove{done.Moves[0]}
	unwritten.Moves[0].Unwritten = "no rights"
	for _, c := range []struct {
		what  string
		plans []checkpoint.GroupPlan
		dry   bool
		fault string // "": none
		shown string
	}{
		{"refused alone", []checkpoint.GroupPlan{refused}, false, "1 move refused", "refused: it has members"},
		{"refused and done", []checkpoint.GroupPlan{refused, done}, false, "1 move refused; the rest is done", "moved"},
		{"would be refused", []checkpoint.GroupPlan{refused}, true, "1 move would be refused", "refused: it has members"},
		{"done", []checkpoint.GroupPlan{done}, false, "", "moved"},
		{"not written down", []checkpoint.GroupPlan{unwritten}, false, "", "moved; not written down (no rights)"},
	} {
		var out bytes.Buffer
		err := (&app{out: &out}).showMoves(c.plans, "east", groupsOptions{dryRun: c.dry})
		fault := ""
		if err != nil {
			fault = err.Error()
		}
		if fault != c.fault {
			t.Errorf("%s: got %q, want %q", c.what, fault, c.fault)
		}
		if !strings.Contains(out.String(), c.shown) {
			t.Errorf("%s: shown is\n%s", c.what, out.String())
		}
	}
}
