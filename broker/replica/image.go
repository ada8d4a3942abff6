package replica

import (
	"maps"
	"slices"
	"strings"
)

// Image is the cluster at one moment. It and everything it returns is
// immutable.
type Image struct {
	next       int64 // offset of the first record not in it
	topics     map[string]*Topic
	byID       map[ID]*Topic
	collisions map[string]string // collisionKey -> a topic that has it
	sorted     []*Topic          // by name
	partitions int               // over all topics
	brokers    map[int32]map[string]string
	nextPID    int64
}

// Topic is one topic.
type Topic struct {
	Name       string
	ID         ID
	Internal   bool              // one of Kafka's own (__consumer_offsets)
	Partitions []Partition       // index = partition number
	Configs    map[string]string // what differs from the brokers' settings; nil: nothing
}

// Partition is who keeps a partition.
type Partition struct {
	Leader      int32 // -1: none
	LeaderEpoch int32 // grows with every change of leadership
	Replicas    []int32
	ISR         []int32
}

// AnyBroker stands for the settings that hold for every broker.
const AnyBroker int32 = -1

func newImage() *Image {
	return &Image{
		topics:     map[string]*Topic{},
		byID:       map[ID]*Topic{},
		collisions: map[string]string{},
		brokers:    map[int32]map[string]string{},
	}
}

// Offset is the offset in the metadata log of the first record that is not in
// the image; it counts the changes.
func (m *Image) Offset() int64 { return m.next }

// Topic is the topic of that name, nil if there is none.
func (m *Image) Topic(name string) *Topic { return m.topics[name] }

// TopicByID is the topic with that id, nil if there is none.
func (m *Image) TopicByID(id ID) *Topic { return m.byID[id] }

// Topics are all topics, by name.
func (m *Image) Topics() []*Topic { return m.sorted }

// Partitions counts the partitions of all topics.
func (m *Image) Partitions() int { return m.partitions }

// BrokerConfigs are the dynamic settings of one broker, or of AnyBroker.
func (m *Image) BrokerConfigs(broker int32) map[string]string { return m.brokers[broker] }

// Settings are the settings of a broker that was started with static ones.
func (m *Image) Settings(static map[string]string, broker int32) Settings {
	return Settings{Static: static, Cluster: m.brokers[AnyBroker], Broker: m.brokers[broker]}
}

// NextProducerID is the first producer id that no broker has been given.
func (m *Image) NextProducerID() int64 { return m.nextPID }

// clone is a copy to be changed; topics are shared, for they do not change.
func (m *Image) clone() *Image {
	c := *m
	c.topics, c.byID = maps.Clone(m.topics), maps.Clone(m.byID)
	c.collisions, c.brokers = maps.Clone(m.collisions), maps.Clone(m.brokers)
	c.sorted = slices.Clone(m.sorted)
	return &c
}

func (m *Image) place(name string) (int, bool) {
	return slices.BinarySearchFunc(m.sorted, name, func(t *Topic, name string) int { return strings.Compare(t.Name, name) })
}

// put adds or replaces a topic. Needs an image that is not published.
func (m *Image) put(t *Topic) {
	at, found := m.place(t.Name)
	if found {
		m.partitions -= len(m.sorted[at].Partitions)
		m.sorted[at] = t
	} else {
		m.sorted = slices.Insert(m.sorted, at, t)
	}
	m.topics[t.Name], m.byID[t.ID] = t, t
	m.collisions[collisionKey(t.Name)] = t.Name
	m.partitions += len(t.Partitions)
}

// drop removes a topic. Needs an image that is not published.
func (m *Image) drop(t *Topic) {
	if at, found := m.place(t.Name); found {
		m.sorted = slices.Delete(m.sorted, at, at+1)
	}
	delete(m.topics, t.Name)
	delete(m.byID, t.ID)
	delete(m.collisions, collisionKey(t.Name))
	m.partitions -= len(t.Partitions)
}
