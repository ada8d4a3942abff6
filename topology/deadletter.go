package topology

import "regexp"

// DeadLetterSuffix is what a dead-letter topic's name ends with if mirror.yaml gives it none.
const DeadLetterSuffix = ".dead-letter"

// LetterTopic is where records of a source topic go, on the target, that the
// target topic cannot take.
func (f *Flow) LetterTopic(source string) string {
	if f.DeadLetterTopic != "" {
		return f.DeadLetterTopic
	}
	return f.TargetTopic(source) + DeadLetterSuffix
}

// WritesLetters reports whether some topic of the flow has record_too_large: dead_letter.
func (f *Flow) WritesLetters() bool {
	if f.Policies.RecordTooLarge == TooLargeDeadLetter {
		return true
	}
	for i := range f.TopicRules {
		if f.TopicRules[i].Policies.RecordTooLarge == TooLargeDeadLetter {
			return true
		}
	}
	return false
}

// lettersPattern matches names of dead-letter topics that the flow may write,
// empty if it writes none.
func (f *Flow) lettersPattern() string {
	switch {
	case !f.WritesLetters():
		return ""
	case f.DeadLetterTopic != "":
		return regexp.QuoteMeta(f.DeadLetterTopic)
	}
	return `.*` + regexp.QuoteMeta(DeadLetterSuffix)
}

// lettersOf are the patterns of dead-letter topics that a flow does not mirror:
// those that stand on its source, and those whose names on the target its own
// letters would take.
func lettersOf(f *Flow, all []*Flow) []string {
	var found []string
	for _, other := range all {
		if pattern := other.lettersPattern(); pattern != "" && (other.To == f.From || other == f && f.DeadLetterTopic == "") {
			found = append(found, pattern)
		}
	}
	return found
}
