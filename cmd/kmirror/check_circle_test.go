package main

import "testing"

// What a circle of identity flows leaves out is said, and what cannot be broken is a fault.
func TestCheckSaysHowACircleIsBroken(t *testing.T) {
	const clusters = "clusters: {east: {bootstrap: [e:9092]}, west: {bootstrap: [w:9092]}, hq: {bootstrap: [h:9092]}}\nflows:\n"
	const both = "  - {from: east, to: west, naming: identity}\n  - {from: west, to: east, naming: identity}\n"
	kmirror(t, "", "check", "-c", config(t, clusters+both)).want(t, exitOK,
		"circle: east->west forwards all but what came from its target: it leaves out the batches of west->east",
		"circle: west->east forwards all but what came from its target: it leaves out the batches of east->west")
	kmirror(t, "", "check", "-c", config(t, clusters+both), "-o", "json").want(t, exitOK, `"drops": [`, `"loop": "forwards all but what came from its target"`)
	kmirror(t, "", "check", "-c", config(t, clusters+"  - {from: east, to: west, naming: identity}\n  - {from: west, to: hq, naming: identity}\n  - {from: hq, to: east, naming: identity}\n")).
		want(t, exitUsage, "closes a circle that cannot be broken: east->west, hq->east, west->hq")
}
