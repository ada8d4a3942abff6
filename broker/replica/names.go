package replica

import (
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
)

// MaxTopicName is the longest name of a topic, in bytes.
const MaxTopicName = 249

// ValidateTopicName refuses what Kafka refuses: *Error INVALID_TOPIC_EXCEPTION.
func ValidateTopicName(name string) error {
	switch {
	case name == "":
		return refuse(kerr.InvalidTopicException, "Topic name is invalid: the empty string is not allowed")
	case name == "." || name == "..":
		return refuse(kerr.InvalidTopicException, "Topic name is invalid: '%s' is not allowed", name)
	case len(name) > MaxTopicName:
		return refuse(kerr.InvalidTopicException, "Topic name is invalid: the length of '%s' is longer than the max allowed length %d", name, MaxTopicName)
	case strings.ContainsFunc(name, illegalInTopic):
		return refuse(kerr.InvalidTopicException, "Topic name is invalid: '%s' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'", name)
	}
	return nil
}

func illegalInTopic(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '.' && r != '_' && r != '-'
}

// Internal tells whether Kafka itself keeps a topic of that name.
func Internal(name string) bool {
	switch name {
	case "__consumer_offsets", "__transaction_state", "__share_group_state":
		return true
	}
	return false
}

// collisionKey is alike for names that metrics could not tell apart: '.' and
// '_' are the same there, so Kafka refuses the second of two such topics.
func collisionKey(name string) string { return strings.ReplaceAll(name, ".", "_") }
