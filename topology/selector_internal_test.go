package topology

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"
	"pgregory.net/rapid"
)

// pattern draws expressions over few letters, so that they often meet.
func pattern() *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		var b strings.Builder
		for range rapid.IntRange(1, 4).Draw(t, "atoms") {
			atom := rapid.SampledFrom([]string{
				`a`, `b`, `\.`, `-`, `[ab]`, `[^a]`, `.`, `.*`, `(a|bb)`, `(?:ab)?`, `a+`, `b*?`, `\w`, `\b`, `^`, `$`, `(?i)A`, `x\.`, `y\.`, `[a-f]{2,3}`, `heartbeats`, `__`, `\B`,
			}).Draw(t, "atom")
			b.WriteString(atom)
		}
		return b.String()
	})
}

func names() *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		return strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", ".", "-", "x.", "y.", "_", "A", "heartbeats", "cc"}), 1, 7).Draw(t, "parts"), "")
	})
}

func drawFlow(t *rapid.T, label, from, to string, clusters []string) *Flow {
	flow := DefaultFlow(from, to)
	flow.Topics = rapid.SliceOfN(pattern(), 1, 2).Draw(t, label+" topics")
	flow.ExcludeTopics = rapid.SliceOfN(pattern(), 0, 2).Draw(t, label+" excludes")
	flow.Naming = rapid.SampledFrom([]Naming{Prefixed, Identity}).Draw(t, label+" naming")
	flow.Separator = rapid.SampledFrom([]string{".", "-", "--"}).Draw(t, label+" separator")
	flow.Heartbeats = rapid.Bool().Draw(t, label+" heartbeats")
	if rapid.IntRange(0, 2).Draw(t, label+" renames") == 0 {
		flow.Rename = rapid.SliceOfN(rapid.SampledFrom([]RenameRule{
			{From: `a(.*)`, To: `b$1`},
			{From: `(a|bb)-(.*)`, To: `$1.$2`},
			{From: `([^-]*)-(.*)`, To: `$1-x-$2`},
			{From: `x\.(.*)`, To: `$1`},
			{From: `(.*)`, To: `q.$1`},
			{From: `(a+)(b*)`, To: `$1c$2`},
			{From: `(.*)\.(.*)`, To: `$1-$2`},
			{From: `(?:b)(.*)b`, To: `a$1`},
			{From: `heart(.+)`, To: `$1`},
		}), 1, 2).Draw(t, label+" rename")
	}
	if rapid.IntRange(0, 3).Draw(t, label+" letters") == 0 {
		flow.Policies.RecordTooLarge = TooLargeDeadLetter
	}
	if err := flow.compile(clusters, []*Flow{&flow}); err != nil {
		t.Skip(err)
	}
	return &flow
}

// mapsBack reports whether the proofs let a flow's renames pass.
func mapsBack(flow *Flow, s *selector) bool {
	source := &flowSource{flow: flow, renames: make([]renameSource, len(flow.Rename))}
	for i := range source.renames {
		source.renames[i] = renameSource{at: value{node: &yaml.Node{}}, from: value{node: &yaml.Node{}}, to: value{node: &yaml.Node{}}}
	}
	r := &reader{}
	r.proveRename(source, s)
	return len(r.faults) == 0
}

// Renames that the proofs let pass give each topic a name of its own, which leads back to it.
func TestProvedRenamesMapBack(t *testing.T) {
	clusters := []string{"x", "y", "z"}
	passed, refused := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		flow := drawFlow(t, "flow", "x", "y", clusters)
		if len(flow.Rename) == 0 {
			t.Skip()
		}
		proved := mapsBack(flow, drawSelector(t, flow, clusters))
		if !proved {
			refused++
			return
		}
		passed++
		targets := map[string]string{}
		for range 40 {
			name := names().Draw(t, "name")
			if !flow.Selects(name) {
				continue
			}
			target := flow.TargetTopic(name)
			if other, taken := targets[target]; taken && other != name {
				t.Fatalf("%q and %q are both %q", name, other, target)
			}
			targets[target] = name
			if back, ok := flow.SourceTopic(target); LegalTopic(target) && (!ok || back != name) {
				t.Fatalf("%q is %q there and %q, %v back", name, target, back, ok)
			}
			if InternalTopic(target, flow.Separator) {
				t.Fatalf("%q is called %q, which is internal", name, target)
			}
		}
	})
	if passed == 0 || refused == 0 {
		t.Errorf("%d passed and %d refused; the draws show nothing", passed, refused)
	}
}

func drawSelector(t *rapid.T, flow *Flow, clusters []string) *selector {
	made, err := newSelector(flow, clusters)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// An automaton says of every name what the regexp package says.
func TestAutomatonIsTheExpression(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := pattern().Draw(t, "pattern")
		re, err := compilePattern(text)
		if err != nil {
			t.Skip(err)
		}
		a, err := newAutomaton(text)
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			name := names().Draw(t, "name")
			state := a.start()
			for i := range len(name) {
				state = a.step(state, name[i])
			}
			if got, want := a.accepts(state), re.MatchString(name); got != want {
				t.Fatalf("%q on %q: automaton %v, regexp %v", text, name, got, want)
			}
		}
	})
}

// runs reports whether a machine takes a name.
func runs(m *machine, name string) bool {
	threads, _ := m.start()
	for i := range len(name) {
		threads = m.after(threads, name[i])
	}
	return m.accepts(threads)
}

// A selector says of every name what the flow says, forwards and backwards.
func TestSelectorIsTheFlow(t *testing.T) {
	clusters := []string{"x", "y", "z"}
	rapid.Check(t, func(t *rapid.T) {
		flow := drawFlow(t, "flow", "x", "y", clusters)
		made := drawSelector(t, flow, clusters)
		if !mapsBack(flow, made) {
			t.Skip()
		}
		for range 20 {
			name := names().Draw(t, "name")
			source, mapped := flow.SourceTopic(name)
			want := mapped && (flow.Selects(source) || flow.Selection(source) == Reserved)
			got := runs(&machine{stages: []*selector{made}, back: true}, name)
			if forth := runs(&machine{stages: []*selector{made}}, name); forth != (flow.Selects(name) || flow.Selection(name) == Reserved) {
				t.Fatalf("flow %+v takes %q: automata %v, methods %v", *flow, name, forth, !forth)
			}
			if got != want {
				t.Fatalf("flow %+v writes %q: automata %v, methods %v (source %q)", *flow, name, got, want, source)
			}
		}
	})
}

// Two flows share a topic exactly if the proof shows one.
func TestSharedTopicsAreFound(t *testing.T) {
	clusters := []string{"x", "y", "z"}
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawFlow(t, "a", "x", "z", clusters), drawFlow(t, "b", "y", "z", clusters)
		writes := func(f *Flow, target string) bool {
			source, mapped := f.SourceTopic(target)
			return mapped && (f.Selects(source) || f.Selection(source) == Reserved)
		}
		left, right := drawSelector(t, a, clusters), drawSelector(t, b, clusters)
		if !mapsBack(a, left) || !mapsBack(b, right) {
			t.Skip()
		}
		topic, decided := shared(left, right)
		if !decided {
			t.Fatal("small patterns must be decided")
		}
		if topic != "" && (!writes(a, topic) || !writes(b, topic)) {
			t.Fatalf("the example %q is not written by both: %v, %v", topic, writes(a, topic), writes(b, topic))
		}
		for range 30 {
			name := names().Draw(t, "name")
			if topic == "" && writes(a, name) && writes(b, name) {
				t.Fatalf("both write %q, and the proof says they share nothing", name)
			}
		}
	})
}

// A circle is found exactly if a topic can go round it.
func TestCirclesAreFound(t *testing.T) {
	clusters := []string{"x", "y", "z"}
	rapid.Check(t, func(t *rapid.T) {
		ends := []string{"x", "y", "z"}[:rapid.IntRange(2, 3).Draw(t, "clusters")]
		var sources []*flowSource
		var selectors []*selector
		for i, from := range ends {
			flow := drawFlow(t, from, from, ends[(i+1)%len(ends)], clusters)
			sources = append(sources, &flowSource{flow: flow, sound: true})
			selectors = append(selectors, drawSelector(t, flow, clusters))
		}
		r := &reader{}
		broken := breakLoops(sources, selectors)
		broken.fault(r)
		r.proveNoCircle(sources, selectors, broken)
		if sources[0].flow.Loop != LoopNone {
			return // the circle is broken, see TestLoopsOfIdentityFlows
		}
		for range 30 {
			name := names().Draw(t, "name")
			for i := range sources {
				travelled, whole := name, true
				for hop := range sources {
					flow := sources[(i+hop)%len(sources)].flow
					if whole = flow.Selects(travelled); !whole {
						break
					}
					travelled = flow.TargetTopic(travelled)
				}
				if whole && len(r.faults) == 0 {
					t.Fatalf("%q of %s comes back as %q, and the proof says nothing does", name, sources[i].flow.From, travelled)
				}
			}
		}
	})
}

// Lists of names as people write them are decided quickly.
func TestLongListsOfNamesAreProvedQuickly(t *testing.T) {
	var left, right []string
	for i := range 400 {
		left = append(left, fmt.Sprintf("orders-%03d", i))
		right = append(right, fmt.Sprintf("orders-%03d", i+400))
	}
	clusters := []string{"a", "b", "c"}
	made := make([]*selector, 0, 2)
	for i, list := range [][]string{left, right} {
		flow := DefaultFlow(clusters[i], "c")
		flow.Topics, flow.Naming = list, Identity
		if err := flow.compile(clusters, []*Flow{&flow}); err != nil {
			t.Fatal(err)
		}
		f, err := newSelector(&flow, clusters)
		if err != nil {
			t.Fatal(err)
		}
		made = append(made, f)
	}
	begun := time.Now()
	if topic, decided := shared(made[0], made[1]); topic != "" && topic != "heartbeats" || !decided {
		t.Errorf("got %q, decided %v", topic, decided)
	}
	t.Log("took", time.Since(begun))
}
