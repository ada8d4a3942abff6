package integration_test

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// cluster is Apache Kafka on three nodes and a controller of its own, so that
// any of the nodes may die. Each is reached in three ways: directly (by the
// stories themselves and by the other nodes), over a link that a story can do
// harm to, and over SASL as a user that may be denied things.
//
// There is one of them for all stories: it takes a while to start. A story has
// topics of its own, and gives the cluster back whole.
type cluster struct {
	w          *world // of the standing things
	controller *process
	nodes      [3]*node
}

// node is one broker; its number is its place plus one.
type node struct {
	*process
	id   int32
	name string
	link *link
}

// theCluster is what the stories share, and what ends with the package.
var theCluster struct {
	standing
	once    sync.Once
	cluster *cluster // nil: could not be started
}

// saslUser is who kmirror is over SASL. It may do everything until a story
// denies it.
const saslUser, saslPassword = "kmirror", "secret"

// cluster gives the story the three nodes under a name: NAME is where its own
// clients connect, NAME-linked what goes over the links, NAME-sasl the third
// way. Each is a list of addresses.
func (w *world) cluster(name string) *cluster {
	w.t.Helper()
	classpath(w.t) // skips
	s := &theCluster
	s.TB = w.t
	s.once.Do(func() { s.cluster = startCluster(&s.standing) })
	c := s.cluster
	if c == nil {
		w.t.Fatal("the cluster of three did not start for an earlier test")
	}
	for _, way := range []string{"", "-linked", "-sasl"} {
		w.addresses[name+way] = c.addresses(way)
	}
	w.t.Cleanup(func() {
		c.heal()
		if w.t.Failed() {
			for _, n := range c.nodes {
				w.t.Log(n.tail(12))
			}
		}
	})
	c.heal()
	return c
}

func (c *cluster) addresses(way string) string {
	var all []string
	for _, n := range c.nodes {
		all = append(all, c.w.addr(n.name+way))
	}
	return strings.Join(all, ",")
}

func startCluster(s *standing) *cluster {
	s.Helper()
	c := &cluster{w: &world{t: s, dir: s.TempDir(), addresses: map[string]string{}}}
	w := c.w
	id := uuid()
	quorum := []string{
		"controller.quorum.bootstrap.servers=" + w.addr("controller"),
		"controller.listener.names=CONTROLLER",
		"listener.security.protocol.map=CONTROLLER:PLAINTEXT,DIRECT:PLAINTEXT,LINKED:PLAINTEXT,SASL:SASL_PLAINTEXT",
		"authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
		"super.users=User:ANONYMOUS",
		"allow.everyone.if.no.acl.found=true",
		"auto.create.topics.enable=false",
		"default.replication.factor=3",
		"min.insync.replicas=2",
		"num.network.threads=2", "num.io.threads=4", "background.threads=2", "num.recovery.threads.per.data.dir=1",
	}
	c.properties("controller", append([]string{
		"process.roles=controller",
		"node.id=100",
		"listeners=CONTROLLER://" + w.addr("controller"),
		"broker.session.timeout.ms=9000",
	}, quorum...))
	java, jars := classpath(s)
	command(s, w.dir, "", java, "-Xmx128m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", jars,
		"kafka.tools.StorageTool", "format", "--standalone", "-t", id, "-c", filepath.Join(w.dir, "controller.properties"))
	c.controller = c.jvm("controller")
	for i := range c.nodes {
		n := &node{id: int32(i + 1), name: fmt.Sprintf("node-%d", i+1)}
		n.link = newLink(s, w.addr(n.name+"-linked"), w.addr(n.name+"-linked-broker"))
		c.nodes[i] = n
		c.properties(n.name, append([]string{
			"process.roles=broker",
			fmt.Sprintf("node.id=%d", n.id),
			fmt.Sprintf("listeners=DIRECT://%s,LINKED://%s,SASL://%s", w.addr(n.name), w.addr(n.name+"-linked-broker"), w.addr(n.name+"-sasl")),
			fmt.Sprintf("advertised.listeners=DIRECT://%s,LINKED://%s,SASL://%s", w.addr(n.name), w.addr(n.name+"-linked"), w.addr(n.name+"-sasl")),
			"inter.broker.listener.name=DIRECT",
			"sasl.enabled.mechanisms=PLAIN",
			"listener.name.sasl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_" + saslUser + "=\"" + saslPassword + "\";",
			"broker.heartbeat.interval.ms=500",
			"broker.session.timeout.ms=9000",
			"replica.lag.time.max.ms=4000",
			"replica.fetch.wait.max.ms=200",
			"replica.socket.timeout.ms=3000",
			"controlled.shutdown.enable=true",
			"offsets.topic.replication.factor=3",
			"offsets.topic.num.partitions=3",
			"transaction.state.log.replication.factor=3",
			"transaction.state.log.min.isr=2",
			"transaction.state.log.num.partitions=3",
			"share.coordinator.state.topic.replication.factor=3",
			"share.coordinator.state.topic.num.partitions=1",
			"group.initial.rebalance.delay.ms=0",
			"log.cleaner.dedupe.buffer.size=4194304",
			"log.cleaner.io.buffer.size=65536",
			"log.retention.check.interval.ms=1000",
			"log.initial.task.delay.ms=1000",
			"quota.window.num=3", "quota.window.size.seconds=1",
		}, quorum...))
		// What the tool would write; three runs of it take as long as the start.
		meta := fmt.Sprintf("version=1\ncluster.id=%s\nnode.id=%d\ndirectory.id=%s\n", id, n.id, uuid())
		if err := os.MkdirAll(c.data(n.name), 0o755); err != nil {
			s.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(c.data(n.name), "meta.properties"), []byte(meta), 0o644); err != nil {
			s.Fatal(err)
		}
		n.process = c.jvm(n.name)
	}
	for _, n := range c.nodes {
		w.addresses["any"] = c.addresses("")
		c.up(n)
	}
	return c
}

// uuid is an id in Kafka's spelling.
func uuid() string {
	var id [16]byte
	_, _ = rand.Read(id[:])
	id[0] &= 0x7f // a dash in front looks like an option
	return base64.RawURLEncoding.EncodeToString(id[:])
}

func (c *cluster) data(name string) string { return filepath.Join(c.w.dir, name+"-kafka") }

func (c *cluster) properties(name string, settings []string) {
	c.w.t.Helper()
	settings = append(settings, "log.dirs="+c.data(name))
	if err := os.WriteFile(filepath.Join(c.w.dir, name+".properties"), []byte(strings.Join(settings, "\n")+"\n"), 0o644); err != nil {
		c.w.t.Fatal(err)
	}
}

// jvm starts a node, thriftily: the machine is shared.
func (c *cluster) jvm(name string) *process {
	c.w.t.Helper()
	java, jars := classpath(c.w.t)
	return start(c.w.t, c.w.dir, name, nil, java, "-Xmx256m", "-Xms128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
		"-cp", jars, "kafka.Kafka", filepath.Join(c.w.dir, name+".properties"))
}

// up waits until the node answers.
func (c *cluster) up(n *node) {
	c.w.t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(c.w.addr(n.name)))
	if err != nil {
		c.w.t.Fatal(err)
	}
	defer client.Close()
	eventually(c.w.t, 180*time.Second, n.name+" of the cluster", func() error {
		if !n.running() {
			c.w.t.Fatalf("%s ended: %v\n%s", n.name, n.err, n.tail(40))
		}
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		resp, err := kmsg.NewPtrMetadataRequest().RequestWith(ctx, client)
		if err == nil && !slices.ContainsFunc(resp.Brokers, func(b kmsg.MetadataResponseBroker) bool { return b.NodeID == n.id }) {
			err = fmt.Errorf("it is not registered yet")
		}
		return err
	})
}

// start starts a node that was killed and does not wait for it.
func (c *cluster) start(n *node) {
	c.w.t.Helper()
	n.process = c.jvm(n.name)
}

// heal undoes all harm and waits until every replica is in step.
func (c *cluster) heal() {
	c.w.t.Helper()
	for _, n := range c.nodes {
		n.link.heal()
		if !n.running() {
			c.start(n)
		}
	}
	for _, n := range c.nodes {
		c.up(n)
	}
	admin := c.admin()
	defer admin.Close()
	eventually(c.w.t, 120*time.Second, "all replicas in step", func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		topics, err := admin.ListTopicsWithInternal(ctx)
		if err != nil {
			return err
		}
		for _, topic := range topics {
			for _, p := range topic.Partitions {
				if p.Leader < 0 || len(p.ISR) < len(p.Replicas) {
					return fmt.Errorf("%s/%d: leader %d, in sync %v of %v", topic.Topic, p.Partition, p.Leader, p.ISR, p.Replicas)
				}
			}
		}
		return nil
	})
}

// links are the links of all nodes.
func (c *cluster) links() links {
	var all links
	for _, n := range c.nodes {
		all = append(all, n.link)
	}
	return all
}

func (c *cluster) admin() *kadm.Client {
	c.w.t.Helper()
	client, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(c.addresses(""), ",")...), kgo.MetadataMinAge(50*time.Millisecond))
	if err != nil {
		c.w.t.Fatal(err)
	}
	return kadm.NewClient(client)
}

// leader is the node that leads the partition.
func (c *cluster) leader(t testing.TB, topic string, partition int32) *node {
	t.Helper()
	admin := c.admin()
	defer admin.Close()
	var found *node
	eventually(t, 30*time.Second, "a leader of "+topic, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		topics, err := admin.ListTopics(ctx, topic)
		if err != nil {
			return err
		}
		p, ok := topics[topic].Partitions[partition]
		if !ok || p.Leader < 1 {
			return fmt.Errorf("partition %d: leader %d", partition, p.Leader)
		}
		found = c.nodes[p.Leader-1]
		return nil
	})
	return found
}

// moveLeaders turns the replicas of every partition of the topics by one and
// elects the first of each: all leaders move, as at an operator's command.
func (c *cluster) moveLeaders(t testing.TB, topics ...string) {
	t.Helper()
	admin := c.admin()
	defer admin.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	listed, err := admin.ListTopicsWithInternal(ctx, topics...)
	if err != nil {
		t.Fatal(err)
	}
	var wish kadm.AlterPartitionAssignmentsReq
	var elect kadm.TopicsSet
	for _, topic := range listed {
		for _, p := range topic.Partitions {
			wish.Assign(topic.Topic, p.Partition, append(slices.Clone(p.Replicas[1:]), p.Replicas[0]))
			elect.Add(topic.Topic, p.Partition)
		}
	}
	altered, err := admin.AlterPartitionAssignments(ctx, wish)
	if err == nil {
		err = altered.Error()
	}
	if err != nil {
		t.Fatalf("reassign %v: %v", topics, err)
	}
	eventually(t, 30*time.Second, "new leaders of "+strings.Join(topics, ", "), func() error {
		if _, err := admin.ElectLeaders(ctx, kadm.ElectPreferredReplica, elect); err != nil {
			return err
		}
		listed, err := admin.ListTopicsWithInternal(ctx, topics...)
		if err != nil {
			return err
		}
		for _, topic := range listed {
			for _, p := range topic.Partitions {
				if want := wish[topic.Topic][p.Partition][0]; p.Leader != want {
					return fmt.Errorf("%s/%d: leader %d, want %d of %v", topic.Topic, p.Partition, p.Leader, want, p.ISR)
				}
			}
		}
		return nil
	})
}
