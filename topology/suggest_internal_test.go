package topology

import "testing"

func TestNearest(t *testing.T) {
	for _, c := range []struct{ word, want string }{
		{"wset", "west"}, // not West, which is as near but for its case
		{"WEST", "West"},
		{"Wets", "West"},
		{"east", "east"},
		{"north", ""},
	} {
		if got := nearest(c.word, []string{"West", "west", "east"}); got != c.want {
			t.Errorf("nearest(%q) = %q, want %q", c.word, got, c.want)
		}
	}
}
