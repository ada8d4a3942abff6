import java.time.Duration;
import java.util.*;
import java.util.concurrent.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.*;
import org.apache.kafka.common.errors.*;
import org.apache.kafka.common.serialization.*;

/** What Java's clients do with transactions, step by step. Ends with "done", or throws. */
public class Transactions {
    static String servers;

    static void check(boolean ok, String what) {
        if (!ok) throw new AssertionError(what);
        System.out.println("ok: " + what);
    }

    static KafkaProducer<String, String> producer(String id, int timeout) {
        Map<String, Object> c = new HashMap<>();
        c.put("bootstrap.servers", servers);
        c.put("transactional.id", id);
        c.put("transaction.timeout.ms", timeout);
        return new KafkaProducer<>(c, new StringSerializer(), new StringSerializer());
    }

    static KafkaConsumer<String, String> consumer(String group, boolean committed) {
        Map<String, Object> c = new HashMap<>();
        c.put("bootstrap.servers", servers);
        c.put("group.id", group);
        c.put("enable.auto.commit", false);
        c.put("auto.offset.reset", "earliest");
        c.put("isolation.level", committed ? "read_committed" : "read_uncommitted");
        return new KafkaConsumer<>(c, new StringDeserializer(), new StringDeserializer());
    }

    static List<String> all(String topic, boolean committed) {
        List<String> values = new ArrayList<>();
        try (KafkaConsumer<String, String> c = consumer("reader", committed)) {
            List<TopicPartition> tps = new ArrayList<>();
            for (PartitionInfo p : c.partitionsFor(topic)) tps.add(new TopicPartition(topic, p.partition()));
            c.assign(tps);
            c.seekToBeginning(tps);
            Map<TopicPartition, Long> ends = c.endOffsets(tps);
            while (tps.stream().anyMatch(tp -> c.position(tp) < ends.get(tp)))
                for (ConsumerRecord<String, String> r : c.poll(Duration.ofMillis(200))) values.add(r.value());
        }
        Collections.sort(values);
        return values;
    }

    interface Check { boolean is() throws Exception; }

    static void eventually(String what, Check check) throws Exception {
        long end = System.currentTimeMillis() + 20000;
        while (!check.is()) {
            if (System.currentTimeMillis() > end) throw new AssertionError("never: " + what);
            Thread.sleep(20);
        }
        System.out.println("ok: " + what);
    }

    static Throwable cause(Callable<?> what) {
        try {
            what.call();
            return null;
        } catch (ExecutionException e) {
            return e.getCause();
        } catch (Throwable e) {
            return e;
        }
    }

    public static void main(String[] args) throws Exception {
        servers = args[0];
        Map<String, Object> conf = new HashMap<>();
        conf.put("bootstrap.servers", servers);
        try (Admin admin = Admin.create(conf)) {
            admin.createTopics(List.of(new NewTopic("in", 2, (short) 1), new NewTopic("out", 2, (short) 1), new NewTopic("other", 1, (short) 1))).all().get();
            short level = admin.describeFeatures().featureMetadata().get().finalizedFeatures().get("transaction.version").maxVersionLevel();
            check(level == 2, "transaction.version is 2");
            writing(admin);
            copying(admin);
            fencing(admin);
            administering(admin);
            timing(admin);
            telling(admin);
        }
        System.out.println("done");
    }

    static void writing(Admin admin) throws Exception {
        try (KafkaProducer<String, String> p = producer("writer", 60000)) {
            p.initTransactions();
            for (int t = 0; t < 20; t++) {
                p.beginTransaction();
                for (int i = 0; i < 10; i++)
                    p.send(new ProducerRecord<>("in", i % 2, "k", (t % 4 == 3 ? "aborted" : "v") + String.format("-%02d-%d", t, i)));
                if (t % 4 == 3) p.abortTransaction(); else p.commitTransaction();
            }
            p.beginTransaction(); // and an empty one
            p.commitTransaction();
            p.beginTransaction();
            p.abortTransaction();
        }
        List<String> read = all("in", true);
        check(read.size() == 150 && read.stream().noneMatch(v -> v.startsWith("aborted")), "read_committed shows 150 records and none that was aborted");
        check(all("in", false).size() >= 150, "read_uncommitted shows more");
    }

    static void copying(Admin admin) throws Exception {
        try (KafkaConsumer<String, String> c = consumer("copier", true); KafkaProducer<String, String> p = producer("copier", 60000)) {
            p.initTransactions();
            c.subscribe(List.of("in"));
            int copied = 0, turn = 0;
            while (copied < 150) {
                ConsumerRecords<String, String> records = c.poll(Duration.ofMillis(200));
                if (records.isEmpty()) continue;
                Map<TopicPartition, OffsetAndMetadata> before = new HashMap<>(), offsets = new HashMap<>();
                p.beginTransaction();
                for (ConsumerRecord<String, String> r : records) {
                    TopicPartition tp = new TopicPartition(r.topic(), r.partition());
                    before.putIfAbsent(tp, new OffsetAndMetadata(r.offset()));
                    offsets.put(tp, new OffsetAndMetadata(r.offset() + 1));
                    p.send(new ProducerRecord<>("out", r.partition(), r.key(), r.value()));
                }
                p.sendOffsetsToTransaction(offsets, c.groupMetadata());
                if (turn++ == 0) {
                    p.abortTransaction();
                    for (Map.Entry<TopicPartition, OffsetAndMetadata> e : before.entrySet()) c.seek(e.getKey(), e.getValue());
                } else {
                    p.commitTransaction();
                    copied += records.count();
                }
            }
            Throwable stale = cause(() -> {
                p.beginTransaction();
                p.sendOffsetsToTransaction(Map.of(new TopicPartition("in", 0), new OffsetAndMetadata(1)),
                    new ConsumerGroupMetadata("copier", 99, "nobody", Optional.empty()));
                p.commitTransaction();
                return null;
            });
            check(stale instanceof CommitFailedException, "a stranger's generation: " + stale);
            p.abortTransaction();
        }
        check(all("out", true).equals(all("in", true)), "the copy is what was written");
        Map<TopicPartition, OffsetAndMetadata> committed = admin.listConsumerGroupOffsets("copier", new ListConsumerGroupOffsetsOptions().requireStable(true)).partitionsToOffsetAndMetadata().get();
        Map<TopicPartition, OffsetSpec> ask = new HashMap<>();
        committed.keySet().forEach(tp -> ask.put(tp, OffsetSpec.latest()));
        check(committed.size() == 2, "offsets are committed: " + committed);
    }

    static void fencing(Admin admin) throws Exception {
        try (KafkaProducer<String, String> first = producer("fenced", 60000)) {
            first.initTransactions();
            first.beginTransaction();
            first.send(new ProducerRecord<>("other", "k", "of the first")).get();
            try (KafkaProducer<String, String> second = producer("fenced", 60000)) {
                second.initTransactions();
                second.beginTransaction();
                second.send(new ProducerRecord<>("other", "k", "of the second")).get();
                Throwable e = cause(() -> { first.commitTransaction(); return null; });
                check(e instanceof ProducerFencedException || e instanceof InvalidProducerEpochException, "the first is fenced: " + e);
                second.commitTransaction();
                second.beginTransaction();
                second.send(new ProducerRecord<>("other", "k", "late")).get();
                admin.fenceProducers(List.of("fenced")).all().get();
                Throwable f = cause(() -> { second.commitTransaction(); return null; });
                check(f instanceof ProducerFencedException || f instanceof InvalidProducerEpochException, "the administrator fences: " + f);
            }
        }
        eventually("only what was committed is read", () -> all("other", true).equals(List.of("of the second")));
        check(all("other", false).size() == 3, "all of it was written");
    }

    static void administering(Admin admin) throws Exception {
        try (KafkaProducer<String, String> p = producer("open", 60000)) {
            p.initTransactions();
            p.beginTransaction();
            p.send(new ProducerRecord<>("other", "k", "hangs")).get();
            TransactionDescription d = admin.describeTransactions(List.of("open")).description("open").get();
            check(d.state() == TransactionState.ONGOING && d.topicPartitions().equals(Set.of(new TopicPartition("other", 0))), "described: " + d);
            check(admin.listTransactions(new ListTransactionsOptions().filterStates(List.of(TransactionState.ONGOING))).all().get()
                .stream().anyMatch(l -> l.transactionalId().equals("open")), "listed");
            check(admin.listTransactions(new ListTransactionsOptions().filterOnDuration(3600000)).all().get()
                .stream().noneMatch(l -> l.transactionalId().equals("open")), "not among those that run for an hour");
            TopicPartition tp = new TopicPartition("other", 0);
            ProducerState state = admin.describeProducers(List.of(tp)).partitionResult(tp).get().activeProducers().stream()
                .filter(a -> a.currentTransactionStartOffset().isPresent()).findFirst().get();
            check(state.producerId() == d.producerId(), "the producer is described: " + state);
            admin.abortTransaction(new AbortTransactionSpec(tp, state.producerId(), (short) state.producerEpoch(), state.coordinatorEpoch().orElse(0))).all().get();
            eventually("the partition is stable again", () -> admin.describeProducers(List.of(tp)).partitionResult(tp).get().activeProducers().stream()
                .noneMatch(a -> a.currentTransactionStartOffset().isPresent()));
            p.abortTransaction();
        }
        check(all("other", true).equals(List.of("of the second")), "what the administrator aborted is not read");
        admin.listTransactions(new ListTransactionsOptions().filterOnTransactionalIdPattern("o.*")).all().get()
            .forEach(l -> check(l.transactionalId().startsWith("o"), "pattern: " + l));
    }

    static void timing(Admin admin) throws Exception {
        try (KafkaProducer<String, String> p = producer("slow", 1000)) {
            p.initTransactions();
            p.beginTransaction();
            p.send(new ProducerRecord<>("other", "k", "too slow")).get();
            eventually("the transaction is over time", () -> admin.describeTransactions(List.of("slow")).description("slow").get().state() == TransactionState.COMPLETE_ABORT);
            Throwable e = cause(() -> { p.commitTransaction(); return null; });
            check(e instanceof KafkaException, "it cannot be committed: " + e);
        }
        check(all("other", true).equals(List.of("of the second")), "nor is it read");
    }

    /** Kafka's own tool reads the records of __transaction_state and of offsets. */
    static void telling(Admin admin) throws Exception {
        Map<String, Object> conf = new HashMap<>();
        conf.put("bootstrap.servers", servers);
        String transactions = "", offsets = "";
        try (KafkaConsumer<byte[], byte[]> c = new KafkaConsumer<>(conf, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            transactions = told(c, "__transaction_state", new org.apache.kafka.tools.consumer.TransactionLogMessageFormatter());
            offsets = told(c, "__consumer_offsets", new org.apache.kafka.tools.consumer.OffsetsMessageFormatter());
        }
        check(transactions.contains("\"transactionalId\":\"copier\"") && transactions.contains("\"clientTransactionVersion\":2") && transactions.contains("\"partitionIds\":[0]"),
            "TransactionLogMessageFormatter reads it");
        check(offsets.contains("\"group\":\"copier\""), "OffsetsMessageFormatter reads it");
    }

    static String told(KafkaConsumer<byte[], byte[]> c, String topic, MessageFormatter formatter) throws Exception {
        java.io.ByteArrayOutputStream out = new java.io.ByteArrayOutputStream();
        java.io.PrintStream print = new java.io.PrintStream(out);
        List<TopicPartition> tps = new ArrayList<>();
        for (PartitionInfo p : c.partitionsFor(topic)) tps.add(new TopicPartition(topic, p.partition()));
        c.assign(tps);
        c.seekToBeginning(tps);
        Map<TopicPartition, Long> ends = c.endOffsets(tps);
        while (tps.stream().anyMatch(tp -> c.position(tp) < ends.get(tp)))
            for (ConsumerRecord<byte[], byte[]> r : c.poll(Duration.ofMillis(200))) formatter.writeTo(r, print);
        print.flush();
        return out.toString();
    }
}
