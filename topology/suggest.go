package topology

import (
	"slices"
	"strings"
)

// suggest says what to do about an unknown key.
func suggest(key string, known []string, synonyms map[string]string) string {
	if meant, ok := synonyms[key]; ok {
		return "did you mean " + meant + "?"
	}
	if near := nearest(key, known); near != "" {
		return "did you mean " + near + "?"
	}
	sorted := slices.Clone(known)
	slices.Sort(sorted)
	return "known here: " + strings.Join(sorted, ", ")
}

// nearest returns the known word that is most like one, empty if none is like
// it. Case counts only between words that are alike otherwise.
func nearest(word string, known []string) string {
	best, least, exact := "", 1+max(1, min(len(word), 12)/3), 0
	folded := strings.ToLower(strings.ReplaceAll(word, "-", "_"))
	for _, candidate := range known {
		d, e := distance(folded, strings.ToLower(candidate)), distance(word, candidate)
		if d < least || best != "" && d == least && e < exact {
			best, least, exact = candidate, d, e
		}
	}
	return best
}

// distance counts the letters to insert, delete, replace or swap with their neighbour.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	var before, last, row [65]int
	for j := range len(b) + 1 {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(row[j-1]+1, last[j]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}

// either lists words: a, b or c.
func either(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}
