package integration_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// classpath finds a Java and Apache Kafka's jars.
func classpath(t testing.TB) (java, jars string) {
	t.Helper()
	return tool(t, "java", "default-jdk-headless"), filepath.Join(part(t, "kafka"), "*")
}

// kafka starts an Apache Kafka broker (one node, KRaft) at the named address.
func (w *world) kafka(name string, settings ...string) *process {
	w.t.Helper()
	java, jars := classpath(w.t)
	data := filepath.Join(w.dir, name+"-kafka")
	file := filepath.Join(w.dir, name+".properties")
	broker, controller := w.addr(name), w.addr(name+"-controller")
	properties := append([]string{
		"process.roles=broker,controller",
		"node.id=1",
		"controller.quorum.bootstrap.servers=" + controller,
		"listeners=PLAINTEXT://" + broker + ",CONTROLLER://" + controller,
		"advertised.listeners=PLAINTEXT://" + broker,
		"controller.listener.names=CONTROLLER",
		"log.dirs=" + data,
		"offsets.topic.replication.factor=1",
		"offsets.topic.num.partitions=4",
		"transaction.state.log.replication.factor=1",
		"transaction.state.log.min.isr=1",
		"transaction.state.log.num.partitions=4",
		"share.coordinator.state.topic.replication.factor=1",
		"group.initial.rebalance.delay.ms=0",
	}, settings...)
	if err := os.WriteFile(file, []byte(strings.Join(properties, "\n")+"\n"), 0o644); err != nil {
		w.t.Fatal(err)
	}
	id := strings.TrimSpace(command(w.t, w.dir, "", java, "-Xmx128m", "-cp", jars, "kafka.tools.StorageTool", "random-uuid"))
	command(w.t, w.dir, "", java, "-Xmx128m", "-cp", jars, "kafka.tools.StorageTool", "format", "--standalone", "-t", id, "-c", file)
	p := w.startKafka(name)
	return p
}

// startKafka starts the broker in the directory that kafka made, once more.
func (w *world) startKafka(name string) *process {
	w.t.Helper()
	java, jars := classpath(w.t)
	p := start(w.t, w.dir, name, nil, java, "-Xmx512m", "-cp", jars, "kafka.Kafka", filepath.Join(w.dir, name+".properties"))
	client := w.client(name)
	defer client.Close()
	eventually(w.t, 90*time.Second, "Apache Kafka "+name, func() error {
		if !p.running() {
			w.t.Fatalf("Apache Kafka ended: %v\n%s", p.err, p.tail(40))
		}
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		_, err := kmsg.NewPtrMetadataRequest().RequestWith(ctx, client)
		return err
	})
	return p
}

// java runs one of Kafka's own command-line tools.
func (w *world) java(class string, args ...string) string {
	w.t.Helper()
	return w.javaInput("", class, args...)
}

func (w *world) javaInput(stdin, class string, args ...string) string {
	w.t.Helper()
	out, err := w.tryJava(stdin, class, args...)
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

func (w *world) tryJava(stdin, class string, args ...string) (string, error) {
	w.t.Helper()
	java, jars := classpath(w.t)
	return tryCommand(w.t, w.dir, stdin, java, append([]string{"-Xmx256m", "-XX:TieredStopAtLevel=1", "-cp", jars, class}, args...)...)
}

// consul starts a Consul server in development mode at the address "consul".
func (w *world) consul() *process {
	w.t.Helper()
	binary := part(w.t, "consul")
	host, port, err := net.SplitHostPort(w.addr("consul"))
	if err != nil {
		w.t.Fatal(err)
	}
	p := start(w.t, w.dir, "consul", nil, binary, "agent", "-dev", "-bind="+host, "-client="+host,
		"-http-port="+port, "-serf-lan-port="+w.port("consul-lan"), "-serf-wan-port=-1", "-server-port="+w.port("consul-server"),
		"-grpc-port=-1", "-grpc-tls-port=-1", "-dns-port=-1", "-log-level=warn")
	d := &daemon{w: w, http: w.addr("consul")}
	eventually(w.t, 60*time.Second, "Consul", func() error {
		if !p.running() {
			w.t.Fatalf("Consul ended: %v\n%s", p.err, p.tail(40))
		}
		body, err := d.get("/v1/status/leader")
		if err == nil && len(body) < 5 {
			err = fmt.Errorf("no leader yet: %s", body)
		}
		return err
	})
	return p
}
